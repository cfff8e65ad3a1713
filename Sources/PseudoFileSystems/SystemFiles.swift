import ABI
import Net
import Sockets
import Tasks
import VFS

/// /sys (sysfs(5)), as far as programs look at it to learn of the machine.
enum SystemFiles {
  static func make() -> Inode {
    let root = FixedDirectory(device: PseudoFileSystem.systemDevice)
    let devices = root.directory("devices").directory("system")
    fillProcessors(devices.directory("cpu"))
    fillNodes(devices.directory("node"))
    devices.directory("clocksource").directory("clocksource0").add("current_clocksource", line: "tsc")
    let kinds = root.directory("class")
    kinds.add(bytes("net"), InterfaceDirectory())
    for name in ["block", "tty", "thermal", "powercap", "dmi", "hwmon"] as [StaticString] {
      _ = kinds.directory(name)
    }
    fillKernel(root.directory("kernel"))
    _ = root.directory("fs").directory("cgroup")
    _ = root.directory("block")
    let numbers = root.directory("dev")
    _ = numbers.directory("block")
    _ = numbers.directory("char")
    _ = root.directory("bus")
    _ = root.directory("module")
    _ = root.directory("firmware")
    _ = root.directory("power")
    return root
  }

  private static func fillProcessors(_ processors: FixedDirectory) {
    for name in ["online", "possible", "present"] as [StaticString] {
      processors.add(name) { () throws(Errno) -> [UInt8] in ProcessorInformation.range() + [0x0a] }
    }
    processors.add("offline", line: "")
    processors.add("isolated", line: "")
    processors.add("kernel_max") { () throws(Errno) -> [UInt8] in line(UInt64(host.processorCount - 1)) }
    let line64 = line(UInt64(ProcessorIdentity().cacheLine))
    for index in 0..<host.processorCount {
      let processor = processors.directory(bytes("cpu") + decimal(UInt64(index)))
      let topology = processor.directory("topology")
      let own = line(UInt64(index))
      topology.add("core_id") { () throws(Errno) -> [UInt8] in own }
      topology.add("physical_package_id", line: "0")
      topology.add("thread_siblings_list") { () throws(Errno) -> [UInt8] in own }
      topology.add("core_cpus_list") { () throws(Errno) -> [UInt8] in own }
      topology.add("thread_siblings") { () throws(Errno) -> [UInt8] in mask(index) }
      topology.add("core_cpus") { () throws(Errno) -> [UInt8] in mask(index) }
      for name in ["core_siblings_list", "package_cpus_list"] as [StaticString] {
        topology.add(name) { () throws(Errno) -> [UInt8] in ProcessorInformation.range() + [0x0a] }
      }
      for name in ["core_siblings", "package_cpus"] as [StaticString] {
        topology.add(name) { () throws(Errno) -> [UInt8] in ProcessorInformation.mask() + [0x0a] }
      }
      fillCaches(processor.directory("cache"), line64, own)
      processor.add("online", line: "1", mode: 0o644)
    }
  }

  /// One bit, in groups of 32.
  private static func mask(_ index: Int) -> [UInt8] {
    var text = Text()
    text.addHexadecimal(1 << UInt64(index % 32))
    for _ in 0..<index / 32 { text.add(",00000000") }
    text.endLine()
    return text.bytes
  }

  /// Deterministic cache parameters: leaf 4 of Intel's CPUID, 0x8000001d of AMD's.
  private static func fillCaches(_ caches: FixedDirectory, _ lineSize: [UInt8], _ own: [UInt8]) {
    let isAMD = ProcessorIdentity().vendor.first == 0x41
    var index: UInt32 = 0
    while index < 8 {
      let answer = ProcessorIdentity.leaf(isAMD ? 0x8000_001d : 4, index)
      let kind = answer[0] & 31
      guard kind > 0, kind < 4 else { return }
      let ways = UInt64(answer[1] >> 22) + 1
      let partitions = UInt64(answer[1] >> 12 & 0x3ff) + 1
      let size = UInt64(answer[1] & 0xfff) + 1
      let sets = UInt64(answer[2]) + 1
      let cache = caches.directory(bytes("index") + decimal(UInt64(index)))
      let level = line(UInt64(answer[0] >> 5 & 7))
      let total = decimal(ways * partitions * size * sets >> 10) + line("K")
      let lineText = line(size)
      let (waysText, setsText) = (line(ways), line(sets))
      cache.add("level") { () throws(Errno) -> [UInt8] in level }
      cache.add("size") { () throws(Errno) -> [UInt8] in total }
      cache.add("coherency_line_size") { () throws(Errno) -> [UInt8] in lineText }
      cache.add("ways_of_associativity") { () throws(Errno) -> [UInt8] in waysText }
      cache.add("number_of_sets") { () throws(Errno) -> [UInt8] in setsText }
      cache.add("type", line: kind == 1 ? "Data" : kind == 2 ? "Instruction" : "Unified")
      cache.add("shared_cpu_list") { () throws(Errno) -> [UInt8] in own }
      index += 1
    }
  }

  private static func fillNodes(_ nodes: FixedDirectory) {
    for name in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] as [StaticString] {
      nodes.add(name, line: "0")
    }
    let node = nodes.directory("node0")
    node.add("cpulist") { () throws(Errno) -> [UInt8] in ProcessorInformation.range() + [0x0a] }
    node.add("cpumap") { () throws(Errno) -> [UInt8] in ProcessorInformation.mask() + [0x0a] }
    node.add("distance", line: "10")
    node.add("meminfo") { () throws(Errno) -> [UInt8] in
      let (total, free) = (UInt64(MemoryLimit.total) << 12, UInt64(MemoryLimit.unused) << 12)
      var text = Text()
      text.addKibibytes("Node 0 MemTotal:", total, width: 31)
      text.addKibibytes("Node 0 MemFree:", free, width: 31)
      text.addKibibytes("Node 0 MemUsed:", total - min(free, total), width: 31)
      return text.bytes
    }
    _ = node.directory("hugepages")
  }

  private static func fillKernel(_ kernel: FixedDirectory) {
    let memory = kernel.directory("mm")
    let huge = memory.directory("transparent_hugepage")
    huge.add("enabled", line: "always [madvise] never")
    huge.add("defrag", line: "always defer defer+madvise [madvise] never")
    huge.add("shmem_enabled", line: "always within_size advise [never] deny force")
    huge.add("hpage_pmd_size", line: "2097152")
    huge.add("use_zero_page", line: "1")
    _ = memory.directory("hugepages")
    let samePages = memory.directory("ksm")
    samePages.add("run", line: "0")
    _ = kernel.directory("security")
    _ = kernel.directory("debug")
    _ = kernel.directory("tracing")
  }
}

/// /sys/class/net: the interfaces that there are.
final class InterfaceDirectory: PseudoDirectory {
  private let loopback: Inode
  private let link: Inode

  init() {
    let device = PseudoFileSystem.systemDevice
    loopback = InterfaceDirectory.make(isLink: false)
    link = InterfaceDirectory.make(isLink: true)
    super.init(status: PseudoFileSystem.status(mode: 0o040555, device: device))
    status.links = 2
  }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    if name == bytes("lo") { return loopback }
    guard name == bytes("eth0"), Network.interface != nil else { throw .noSuchFile }
    return link
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    var list: [Entry] = []
    if cookie < 3 {
      list.append(
        Entry(name: bytes("lo"), inode: loopback.status.inode, mode: loopback.status.mode, cookie: 3))
    }
    if cookie < 4, Network.interface != nil {
      list.append(Entry(name: bytes("eth0"), inode: link.status.inode, mode: link.status.mode, cookie: 4))
    }
    return list
  }

  private static func make(isLink: Bool) -> Inode {
    let directory = FixedDirectory(device: PseudoFileSystem.systemDevice)
    directory.add("address") { () throws(Errno) -> [UInt8] in
      NetworkFiles.hardwareAddress(isLink ? Network.stack.macAddress.rawValue : 0) + [0x0a]
    }
    directory.add("broadcast", line: isLink ? "ff:ff:ff:ff:ff:ff" : "00:00:00:00:00:00")
    directory.add("mtu") { () throws(Errno) -> [UInt8] in
      line(UInt64(isLink ? Network.interface?.mtu ?? 1500 : 65536))
    }
    directory.add("operstate", line: isLink ? "up" : "unknown")
    directory.add("carrier", line: "1")
    directory.add("flags", line: isLink ? "0x1003" : "0x9")
    directory.add("ifindex", line: isLink ? "2" : "1")
    directory.add("iflink", line: isLink ? "2" : "1")
    directory.add("type", line: isLink ? "1" : "772")
    directory.add("addr_len", line: "6")
    directory.add("tx_queue_len", line: "1000")
    if isLink {
      directory.add("speed", line: "10000")
      directory.add("duplex", line: "full")
    }
    let statistics = directory.directory("statistics")
    for (name, field) in [("rx_packets", 0), ("rx_bytes", 1), ("tx_packets", 2), ("tx_bytes", 3)]
      as [(StaticString, Int)]
    {
      statistics.add(name) { () throws(Errno) -> [UInt8] in
        line(isLink ? NetworkFiles.counters()[field] : 0)
      }
    }
    for name in ["rx_errors", "rx_dropped", "tx_errors", "tx_dropped", "collisions", "multicast"]
      as [StaticString]
    {
      statistics.add(name, line: "0")
    }
    return directory
  }
}
