/// F_NOTIFY of fcntl(2): somebody is told when something happens to a directory's files. Kernel lock held.
open class DirectoryWatch: FileWatcher {
  public final unowned(unsafe) let file: OpenFile
  public final let descriptor: Int32
  private var watch: FileWatch?
  private var isRepeated = false

  public init(_ file: OpenFile, descriptor: Int32) {
    self.file = file
    self.descriptor = descriptor
  }

  deinit { watch?.end() }

  /// Something of what was asked for happened.
  open func tell() {}

  /// DN_ACCESS 1, MODIFY 2, CREATE 4, DELETE 8, RENAME 16, ATTRIB 32; DN_MULTISHOT is the top bit. 0 ends it.
  public final func follow(_ mask: UInt32) {
    var events: FileEvent = []
    if mask & 1 != 0 { events.insert(.access) }
    if mask & 2 != 0 { events.insert(.modify) }
    if mask & 4 != 0 { events.formUnion([.create, .movedTo]) }
    if mask & 8 != 0 { events.formUnion([.delete, .movedFrom]) }
    if mask & 16 != 0 { events.insert(.renamed) }
    if mask & 32 != 0 { events.insert(.attributes) }
    isRepeated = mask & 0x8000_0000 != 0
    watch?.end()
    watch = nil
    if !events.isEmpty {
      watch = FileWatch(descriptor: descriptor, inode: file.inode, mask: events.rawValue, instance: self)
    }
  }

  public final func happened(_ event: FileEvent, to watch: FileWatch, name: [UInt8], cookie: UInt32) {
    tell()
    if !isRepeated { remove(watch) }
  }

  public final func remove(_ watch: FileWatch) {
    watch.end()
    self.watch = nil
  }
}
