import ABI
import Testing
import VFS

@Suite("Access control lists", .serialized)
struct AccessListTests {
  /// tag, permissions, identity
  private func list(_ entries: [(UInt8, UInt8, UInt8)]) -> [UInt8] {
    var value: [UInt8] = [2, 0, 0, 0]
    for (tag, permissions, identity) in entries {
      let isNamed = tag == 2 || tag == 8
      value += [tag, 0, permissions, 0] + (isNamed ? [identity, 0, 0, 0] : [255, 255, 255, 255])
    }
    return value
  }

  @Test("What is written is read; what is out of order, incomplete or without a mask is refused")
  func parsing() {
    let whole = list([(1, 6, 0), (2, 4, 9), (2, 7, 10), (4, 0, 0), (8, 6, 7), (16, 5, 0), (32, 1, 0)])
    #expect(AccessList(whole)?.value == whole)
    #expect(AccessList(whole)?.mode == 0o651)
    #expect(AccessList(list([(1, 7, 0), (4, 5, 0), (32, 0, 0)]))?.isMinimal == true)
    for entries in [
      [(4, 5, 0), (1, 7, 0), (32, 0, 0)], [(1, 7, 0), (4, 5, 0)],
      [(1, 7, 0), (2, 7, 3), (4, 5, 0), (32, 0, 0)],
      [(1, 7, 0), (1, 7, 0), (4, 5, 0), (32, 0, 0)], [(1, 8, 0), (4, 5, 0), (32, 0, 0)],
      [(1, 7, 0), (4, 5, 0), (32, 0, 0), (64, 1, 0)], [(1, 7, 0), (3, 5, 0), (4, 5, 0), (32, 0, 0)],
    ] as [[(UInt8, UInt8, UInt8)]] {
      #expect(AccessList(list(entries)) == nil)
    }
    for length in 0..<whole.count where length % 8 != 4 {
      #expect(AccessList(Array(whole[..<length])) == nil)
    }
  }

  @Test("Named users and groups get what entry and mask allow; chmod moves the mask")
  func checks() throws {
    try IPCFakeHost.run { _ in
      let root = TemporaryFileSystem.makeRoot()
      let file = try root.create([0x66], mode: 0o100640, user: 1, group: 2, device: 0, target: [])
      func may(_ user: UInt32, _ groups: [UInt32], _ wanted: UInt32) -> Bool {
        let who = Credentials(user: user, group: groups[0], groups: Array(groups.dropFirst()))
        return (try? who.check(file, wanted)) != nil
      }
      #expect(!may(9, [9], 4) && may(9, [2], 4))
      try file.setAccessList(
        AccessList(list([(1, 6, 0), (2, 7, 9), (4, 0, 0), (8, 6, 7), (8, 1, 8), (16, 6, 0), (32, 4, 0)])))
      #expect(file.status.mode == 0o100664)
      #expect(may(9, [9], 6) && !may(9, [9], 1))
      #expect(may(5, [7], 6) && may(5, [6, 7], 6))
      // In a group that is named, but gives nothing: others' rights are not for it.
      #expect(!may(5, [8], 4) && !may(5, [2], 4))
      #expect(may(5, [5], 4) && !may(5, [5], 2))
      #expect(may(1, [5], 6))
      let context = FileSystemContext(
        root: Path(inode: root, name: [], parent: nil),
        credentials: Credentials(user: 0, group: 0, groups: []))
      try context.changeMode(try context.resolve([0x66]), 0o640)
      #expect(may(9, [9], 4) && !may(9, [9], 2) && !may(5, [5], 4))
      try file.setAccessList(nil)
      #expect(!may(9, [9], 4) && may(5, [2], 4))
    }
  }

  @Test(
    "New files get the directory's default list, limited by what their maker asked for, whatever the umask")
  func inheritance() throws {
    try IPCFakeHost.run { _ in
      let root = TemporaryFileSystem.makeRoot()
      let value = list([(1, 7, 0), (2, 6, 9), (4, 5, 0), (16, 7, 0), (32, 0, 0)])
      try root.setExtendedAttribute(AccessList.defaultName, value, flags: 0)
      let context = FileSystemContext(
        root: Path(inode: root, name: [], parent: nil),
        credentials: Credentials(user: 0, group: 0, groups: []))
      context.mask = 0o077
      let file = try context.open([0x66], flags: 0o102, mode: 0o666).inode
      #expect(file.status.mode == 0o100660)
      #expect(file.accessList()?.mode == 0o660 && file.accessList(isDefault: true) == nil)
      try context.makeDirectory([0x64], mode: 0o777)
      let directory = try root.lookup([0x64])
      #expect(directory.status.mode == 0o040770 && directory.accessList(isDefault: true)?.value == value)
      try context.makeSymlink([0x66], [0x6c])
      #expect(try root.lookup([0x6c]).accessList() == nil)
    }
  }
}
