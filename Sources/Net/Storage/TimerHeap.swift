/// Connections ordered by their next deadline: a binary heap, so that idle connections cost nothing.
struct TimerHeap {
  private var entries: [TCPConnection] = []

  var earliest: UInt64? { entries.first?.deadline }
  var first: TCPConnection? { entries.first }

  /// Puts, moves or removes a connection; `deadline` nil (`UInt64.max`) removes it.
  mutating func update(_ connection: TCPConnection, _ deadline: UInt64) {
    if deadline == connection.deadline, connection.heapIndex >= 0 || deadline == .max { return }
    if deadline == .max {
      remove(connection)
      return
    }
    connection.deadline = deadline
    if connection.heapIndex < 0 {
      connection.heapIndex = entries.count
      entries.append(connection)
    }
    siftUp(connection.heapIndex)
    siftDown(connection.heapIndex)
  }

  mutating func remove(_ connection: TCPConnection) {
    let index = connection.heapIndex
    connection.deadline = .max
    guard index >= 0, let last = entries.popLast() else { return }
    connection.heapIndex = -1
    guard last !== connection else { return }
    entries[index] = last
    last.heapIndex = index
    siftUp(index)
    siftDown(last.heapIndex)
  }

  private mutating func exchange(_ a: Int, _ b: Int) {
    entries.swapAt(a, b)
    entries[a].heapIndex = a
    entries[b].heapIndex = b
  }

  private mutating func siftUp(_ start: Int) {
    var index = start
    while index > 0, entries[index].deadline < entries[(index - 1) / 2].deadline {
      exchange(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  private mutating func siftDown(_ start: Int) {
    var index = start
    while true {
      var least = index
      for child in (2 * index + 1)...(2 * index + 2) where child < entries.count {
        if entries[child].deadline < entries[least].deadline { least = child }
      }
      if least == index { return }
      exchange(index, least)
      index = least
    }
  }
}
