public import ABI
public import Tasks

/// The bytes between the two sides of a pipe, a terminal or a stream socket: a ring that grows on demand up to its
/// capacity, so that an idle pipe costs nothing and a busy one does not allocate.
public struct PipeBuffer {
  private var memory: UnsafeMutableRawPointer?
  private var size = 0
  private var start = 0
  public private(set) var count = 0
  /// How many bytes it holds at most; a power of two.
  public private(set) var capacity: Int

  public init(capacity: Int) { self.capacity = capacity }

  public var space: Int { capacity - count }

  /// Drops the contents and gives the memory back.
  public mutating func discard() {
    memory?.deallocate()
    memory = nil
    size = 0
    start = 0
    count = 0
  }

  /// F_SETPIPE_SZ: EBUSY when the contents would not fit.
  public mutating func setCapacity(_ wanted: Int) throws(Errno) {
    guard wanted >= count else { throw .busy }
    capacity = wanted
    if size > wanted { resize(wanted) }
  }

  private mutating func resize(_ newSize: Int) {
    let target = UnsafeMutableRawPointer.allocate(byteCount: newSize, alignment: 16)
    if let memory {
      let head = min(count, size - start)
      target.copyMemory(from: memory + start, byteCount: head)
      (target + head).copyMemory(from: memory, byteCount: count - head)
      memory.deallocate()
    }
    memory = target
    size = newSize
    start = 0
  }

  private mutating func reserve(_ more: Int) {
    let wanted = count + more
    guard wanted > size else { return }
    var newSize = max(size, min(4096, capacity))
    while newSize < wanted { newSize *= 2 }
    resize(min(newSize, capacity))
  }

  /// Appends as much of `slice` as there is room for, and says how much.
  public mutating func append(_ slice: UserSlice) throws(Errno) -> Int {
    let amount = min(slice.count, space)
    guard amount > 0 else { return 0 }
    reserve(amount)
    guard let memory else { return 0 }
    var end = start + count
    if end >= size { end -= size }
    let head = min(amount, size - end)
    try slice.copyIn(UnsafeMutableRawBufferPointer(start: memory + end, count: head))
    if amount > head {
      try slice.dropFirst(head).copyIn(UnsafeMutableRawBufferPointer(start: memory, count: amount - head))
    }
    count += amount
    return amount
  }

  /// Appends a byte; false when full.
  public mutating func append(_ byte: UInt8) -> Bool {
    guard space > 0 else { return false }
    reserve(1)
    guard let memory else { return false }
    var end = start + count
    if end >= size { end -= size }
    memory.storeBytes(of: byte, toByteOffset: end, as: UInt8.self)
    count += 1
    return true
  }

  /// Appends as many of the bytes as there is room for, and says how many.
  public mutating func append(contentsOf bytes: [UInt8]) -> Int {
    bytes.withUnsafeBytes { buffer in
      // Memory of the libOS is always there.
      do throws(Errno) { return try append(UserSlice(kernel: buffer)) } catch { return 0 }
    }
  }

  /// The byte `index` places behind the first; 0 where there is none.
  public subscript(index: Int) -> UInt8 {
    guard index >= 0, index < count, let memory else { return 0 }
    var place = start + index
    if place >= size { place -= size }
    return memory.load(fromByteOffset: place, as: UInt8.self)
  }

  /// Copies out the first bytes, as many as fit, and leaves them in place.
  public func peek(_ slice: UserSlice) throws(Errno) -> Int {
    let amount = min(slice.count, count)
    guard amount > 0, let memory else { return 0 }
    let head = min(amount, size - start)
    try slice.copyOut(UnsafeRawBufferPointer(start: memory + start, count: head))
    if amount > head {
      try slice.dropFirst(head).copyOut(UnsafeRawBufferPointer(start: memory, count: amount - head))
    }
    return amount
  }

  /// Drops the first `amount` bytes.
  public mutating func dropFirst(_ amount: Int) {
    count -= amount
    start = count == 0 ? 0 : start + amount
    if start >= size { start = count == 0 ? 0 : start - size }
  }

  /// Drops the last `amount` bytes.
  public mutating func dropLast(_ amount: Int) { count -= amount }

  /// Moves the first bytes out, as many as fit.
  public mutating func take(_ slice: UserSlice) throws(Errno) -> Int {
    let amount = try peek(slice)
    dropFirst(amount)
    return amount
  }
}
