/// What a conversation or a port is found by.
struct TableKey: Equatable {
  let remoteLow: UInt64
  let remoteHigh: UInt64
  let localLow: UInt64
  let localHigh: UInt64
  let ports: UInt32

  init(local: Endpoint, remote: Endpoint) {
    remoteLow = remote.address.low
    remoteHigh = remote.address.high
    localLow = local.address.low
    localHigh = local.address.high
    ports = UInt32(local.port) << 16 | UInt32(remote.port)
  }

  init(port: UInt16) {
    remoteLow = 0
    remoteHigh = 0
    localLow = 0
    localHigh = 0
    ports = UInt32(port)
  }

  /// Spreads all bits. Of IPv4 conversations, both addresses fit the first word.
  @inline(__always)
  func hash(_ seed: UInt64) -> UInt64 {
    var word = mixed(remoteLow ^ (localLow << 32 | localLow >> 32) ^ seed)
    if remoteHigh | localHigh != 0 { word = mixed(mixed(word &+ remoteHigh) ^ localHigh) }
    return mixed(word &+ UInt64(ports))
  }
}

/// An open-addressing table with linear probing. The hash is keyed, so that a sender cannot choose collisions.
struct HashTable<Value: AnyObject> {
  private struct Slot {
    var key: TableKey
    var value: Value?
  }

  private var slots: [Slot]
  private(set) var count = 0
  private let seed: UInt64

  init(seed: UInt64) {
    self.seed = seed
    slots = [Slot](repeating: Slot(key: TableKey(port: 0), value: nil), count: 16)
  }

  @inline(__always)
  private func home(_ key: TableKey) -> Int {
    Int(truncatingIfNeeded: key.hash(seed)) & (slots.count - 1)
  }

  private func index(_ key: TableKey) -> Int? {
    var index = home(key)
    while slots[index].value != nil {
      if slots[index].key == key { return index }
      index = (index + 1) & (slots.count - 1)
    }
    return nil
  }

  subscript(key: TableKey) -> Value? {
    guard let index = index(key) else { return nil }
    return slots[index].value
  }

  /// Adds a value under a key that is not there yet, or replaces the value that is.
  mutating func insert(_ value: Value, _ key: TableKey) {
    if let index = index(key) {
      slots[index].value = value
      return
    }
    if (count + 1) * 4 > slots.count * 3 { rehash() }
    place(value, key)
    count += 1
  }

  private mutating func place(_ value: Value, _ key: TableKey) {
    var index = home(key)
    while slots[index].value != nil { index = (index + 1) & (slots.count - 1) }
    slots[index] = Slot(key: key, value: value)
  }

  private mutating func rehash() {
    let old = slots
    slots = [Slot](repeating: Slot(key: TableKey(port: 0), value: nil), count: old.count * 2)
    for slot in old {
      if let value = slot.value { place(value, slot.key) }
    }
  }

  mutating func remove(_ key: TableKey) {
    guard var hole = index(key) else { return }
    let mask = slots.count - 1
    slots[hole].value = nil
    count -= 1
    var next = (hole + 1) & mask
    // Backward shift: move up whoever may not be cut off from its home by the new hole.
    while slots[next].value != nil {
      let distance = (next &- home(slots[next].key)) & mask
      if distance >= (next &- hole) & mask {
        slots[hole] = slots[next]
        slots[next].value = nil
        hole = next
      }
      next = (next + 1) & mask
    }
  }

  /// Every value, for rare whole-table work.
  var values: [Value] {
    var found: [Value] = []
    for slot in slots {
      if let value = slot.value { found.append(value) }
    }
    return found
  }
}
