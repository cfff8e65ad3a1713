import ABI
import Processes
import Tasks
import VFS

/// The files of /proc that tell of the system as a whole (proc(5)).
enum SystemInformation {
  static func fill(_ root: FixedDirectory) {
    root.add("uptime", uptime)
    root.add("loadavg", loadAverage)
    root.add("meminfo", memory)
    root.add("stat", statistics)
    root.add("vmstat", memoryStatistics)
    root.add("version", version)
    root.add("cmdline") { () throws(Errno) -> [UInt8] in
      bytes("isolation=") + bytes(SystemIdentity.isolation) + [0x0a]
    }
    root.add(
      "filesystems",
      line: "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\nnodev\tsockfs\nnodev\tdevpts")
    root.add(
      "devices",
      line:
        "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:"
    )
    root.add("partitions", line: "major minor  #blocks  name\n")
    root.add("diskstats", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add("modules", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add("swaps", line: "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
    root.add("cgroups", line: "#subsys_name\thierarchy\tnum_cgroups\tenabled")
    root.add("interrupts") { () throws(Errno) -> [UInt8] in ProcessorInformation.interrupts() }
    root.add("softirqs") { () throws(Errno) -> [UInt8] in ProcessorInformation.interrupts() }
    root.add("misc", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add("buddyinfo", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add("locks", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add("zoneinfo", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    let tables = root.directory("sysvipc")
    tables.add("msg") { () throws(Errno) -> [UInt8] in SystemVListing.messages() }
    tables.add("sem") { () throws(Errno) -> [UInt8] in SystemVListing.semaphores() }
    tables.add("shm") { () throws(Errno) -> [UInt8] in SystemVListing.segments() }
    let pressure = root.directory("pressure")
    for name in ["cpu", "io"] as [StaticString] {
      pressure.add(
        name,
        line:
          "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0")
    }
    pressure.add(bytes("memory"), PressureFile(device: pressure.status.device))
  }

  /// Processor time of all processes, ended ones too.
  static var used: UInt64 {
    var sum = ProcessTable.endedProcessorNanoseconds
    for process in ProcessTable.processes.values where !process.isZombie {
      sum &+= process.processorNanoseconds
    }
    return sum
  }

  /// Nanoseconds of the processors that nobody used.
  static func idle(_ busy: UInt64) -> UInt64 {
    let all = host.monotonicNanoseconds &* UInt64(host.processorCount)
    return all > busy ? all - busy : 0
  }

  /// Time counts from the same start as CLOCK_MONOTONIC and processes' start times.
  private static func uptime() throws(Errno) -> [UInt8] {
    var text = Text()
    text.add(hundredths: host.monotonicNanoseconds / StatusFiles.tick)
    text.add(" ")
    text.add(hundredths: idle(used) / StatusFiles.tick)
    text.endLine()
    return text.bytes
  }

  private static var threads: (running: Int, total: Int) {
    var running = 0
    for thread in ProcessTable.threads.values where !thread.isParked && !thread.process.isStopped {
      running += 1
    }
    return (max(running, 1), ProcessTable.threads.count)
  }

  /// Nobody samples the load: the averages are 0.
  private static func loadAverage() throws(Errno) -> [UInt8] {
    var text = Text()
    let (running, total) = threads
    text.add("0.00 0.00 0.00 ")
    text.add(running)
    text.add("/")
    text.add(total)
    text.add(" ")
    text.add(ProcessTable.lastIdentifierGiven)
    text.endLine()
    return text.bytes
  }

  private static func memory() throws(Errno) -> [UInt8] {
    let total = UInt64(MemoryLimit.total) << 12
    let free = UInt64(MemoryLimit.unused) << 12
    let cache = Volume.cache
    let cached = min(UInt64(cache.pages) << 12, total - free)
    var text = Text()
    func add(_ name: StaticString, _ bytes: UInt64) { text.addKibibytes(name, bytes, width: 24) }
    add("MemTotal:", total)
    add("MemFree:", free)
    add("MemAvailable:", min(total, free + UInt64(cache.clean) << 12))
    add("Buffers:", 0)
    add("Cached:", cached)
    for name in [
      "SwapCached:", "Active:", "Inactive:", "Active(anon):", "Inactive(anon):",
      "Active(file):", "Inactive(file):", "Unevictable:", "Mlocked:", "SwapTotal:", "SwapFree:",
    ] as [StaticString] { add(name, 0) }
    add("Dirty:", Volume.dirtyBytes)
    add("Writeback:", 0)
    add("AnonPages:", total - free - cached)
    for name in [
      "Mapped:", "Shmem:", "KReclaimable:", "Slab:", "SReclaimable:", "SUnreclaim:", "KernelStack:",
      "PageTables:", "NFS_Unstable:", "Bounce:", "WritebackTmp:",
    ] as [StaticString] { add(name, 0) }
    add("CommitLimit:", total)
    add("Committed_AS:", total - free)
    text.add("VmallocTotal:   34359738367 kB\n")
    add("VmallocUsed:", 0)
    add("VmallocChunk:", 0)
    text.add("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n")
    text.add("HugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n")
    add("DirectMap4k:", total)
    add("DirectMap2M:", 0)
    return text.bytes
  }

  private static func statistics() throws(Errno) -> [UInt8] {
    var text = Text()
    let used = used
    let idle = idle(used)
    let count = UInt64(host.processorCount)
    func add(_ share: UInt64) {
      for value in [used, 0, 0, idle, 0, 0, 0, 0, 0, 0] {
        text.add(" ")
        text.add(value / share / StatusFiles.tick)
      }
      text.endLine()
    }
    text.add("cpu ")
    add(1)
    for index in 0..<count {
      text.add("cpu")
      text.add(index)
      add(count)
    }
    text.add("intr 0\nctxt 0\nbtime ")
    text.add(startSeconds)
    text.add("\nprocesses ")
    text.add(ProcessTable.created)
    text.add("\nprocs_running ")
    text.add(threads.running)
    text.add("\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n")
    return text.bytes
  }

  /// When CLOCK_MONOTONIC was 0, in seconds since the epoch.
  private static var startSeconds: UInt64 {
    let (now, passed) = (host.realtimeNanoseconds, host.monotonicNanoseconds)
    return now > passed ? (now - passed) / 1_000_000_000 : 0
  }

  private static func memoryStatistics() throws(Errno) -> [UInt8] {
    var text = Text()
    text.add("nr_free_pages ")
    text.add(frames.freeFrames)
    for name in [
      "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_mlock", "nr_anon_pages",
      "nr_mapped", "nr_file_pages", "nr_dirty", "nr_writeback", "nr_shmem", "pgpgin", "pgpgout", "pswpin",
      "pswpout", "pgfault", "pgmajfault", "oom_kill",
    ] as [StaticString] {
      text.add("\n")
      text.add(name)
      text.add(" 0")
    }
    text.endLine()
    return text.bytes
  }

  private static func version() throws(Errno) -> [UInt8] {
    bytes("Linux version ") + SystemIdentity.release + bytes(" (swiftlet) (swiftc 6.3) ")
      + SystemIdentity.version + [0x0a]
  }
}
