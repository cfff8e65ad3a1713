import ABI
import Processes
import Tasks
import VFS

/// /proc/sys (proc(5), sysctl(8)). Settings that change nothing here keep what is written to them.
enum KernelSettings {
  static func make() -> Inode {
    let root = FixedDirectory(device: PseudoFileSystem.processDevice)
    fillKernel(root.directory("kernel"))
    fillMemory(root.directory("vm"))
    fillFiles(root.directory("fs"))
    fillNetwork(root.directory("net"))
    _ = root.directory("user")
    _ = root.directory("dev")
    return root
  }

  /// A line that only root may change, and that nothing looks at.
  private final class Setting {
    var text: [UInt8]
    init(_ text: [UInt8]) { self.text = text }
  }

  private static func setting(_ directory: FixedDirectory, _ name: StaticString, _ value: StaticString) {
    let setting = Setting(line(value))
    directory.add(
      name, mode: 0o644,
      store: { (text: [UInt8]) throws(Errno) in
        guard !text.isEmpty else { return }
        setting.text = text.last == 0x0a ? text : text + [0x0a]
      }
    ) { () throws(Errno) -> [UInt8] in setting.text }
  }

  /// A number that the libOS looks at.
  private static func limit(
    _ directory: FixedDirectory, _ name: StaticString, _ value: @escaping () -> Int,
    _ store: @escaping (Int) -> Void
  ) {
    directory.add(
      name, mode: 0o644,
      store: { (text: [UInt8]) throws(Errno) in
        guard let wanted = number(text), wanted <= 1 << 31 else { throw .invalid }
        store(Int(wanted))
      }
    ) { () throws(Errno) -> [UInt8] in line(UInt64(value())) }
  }

  /// The id that the next System V object gets; -1 for any.
  private static func nextIdentifier(
    _ directory: FixedDirectory, _ name: StaticString, _ value: @escaping () -> Int32,
    _ store: @escaping (Int32) -> Void
  ) {
    directory.add(
      name, mode: 0o644,
      store: { (text: [UInt8]) throws(Errno) in
        if text.first == 0x2d { return store(-1) }
        guard let wanted = number(text), wanted <= Int(Int32.max) else { throw .invalid }
        store(Int32(wanted))
      }
    ) { () throws(Errno) -> [UInt8] in
      value() < 0 ? line("-1") : line(UInt64(value()))
    }
  }

  private static func fillKernel(_ kernel: FixedDirectory) {
    kernel.add(
      "hostname", mode: 0o644,
      store: { (text: [UInt8]) throws(Errno) in
        SystemIdentity.configuredHostName = Array(text.prefix { $0 != 0x0a && $0 != 0 }.prefix(64))
      }
    ) { () throws(Errno) -> [UInt8] in SystemIdentity.hostName + [0x0a] }
    kernel.add("domainname") { () throws(Errno) -> [UInt8] in SystemIdentity.domainName + [0x0a] }
    kernel.add("osrelease") { () throws(Errno) -> [UInt8] in SystemIdentity.release + [0x0a] }
    kernel.add("version") { () throws(Errno) -> [UInt8] in SystemIdentity.version + [0x0a] }
    kernel.add("ostype", line: "Linux")
    kernel.add(
      "pid_max", mode: 0o644,
      store: { (text: [UInt8]) throws(Errno) in
        guard let value = number(text), value > 300, value <= 4_194_304 else { throw .invalid }
        ProcessTable.maximumIdentifier = Int32(value)
      }
    ) { () throws(Errno) -> [UInt8] in line(UInt64(ProcessTable.maximumIdentifier)) }
    kernel.add("threads-max") { () throws(Errno) -> [UInt8] in line(UInt64(ProcessTable.maximumThreads)) }
    kernel.add("ngroups_max", line: "65536")
    kernel.add("cap_last_cap", line: "40")
    for (name, value) in [
      ("shmmax", "18446744073692774399"), ("shmall", "18446744073692774399"),
      ("sem", "32000\t1024000000\t500\t32000"), ("msgmax", "8192"), ("msgmnb", "16384"),
      ("overflowuid", "65534"), ("overflowgid", "65534"), ("randomize_va_space", "2"),
      ("core_pattern", "core"),
      ("core_uses_pid", "0"), ("core_pipe_limit", "0"), ("panic", "0"), ("panic_on_oops", "0"),
      ("printk", "4\t4\t1\t7"), ("perf_event_paranoid", "2"), ("kptr_restrict", "0"), ("dmesg_restrict", "0"),
      ("sched_rt_period_us", "1000000"), ("sched_rt_runtime_us", "950000"), ("sched_autogroup_enabled", "0"),
      ("sched_child_runs_first", "0"), ("sched_rr_timeslice_ms", "100"), ("numa_balancing", "0"),
      ("unprivileged_userns_clone", "0"), ("unprivileged_bpf_disabled", "2"), ("sysrq", "0"),
      ("tainted", "0"),
      ("watchdog", "0"), ("hung_task_timeout_secs", "120"),
    ] as [(StaticString, StaticString)] { setting(kernel, name, value) }
    limit(kernel, "msgmni", { SystemVListing.maximumQueues }, { SystemVListing.maximumQueues = $0 })
    limit(kernel, "shmmni", { SystemVListing.maximumSegments }, { SystemVListing.maximumSegments = $0 })
    nextIdentifier(kernel, "msg_next_id", { SystemVListing.nextMessage }, { SystemVListing.nextMessage = $0 })
    nextIdentifier(
      kernel, "sem_next_id", { SystemVListing.nextSemaphore }, { SystemVListing.nextSemaphore = $0 })
    nextIdentifier(kernel, "shm_next_id", { SystemVListing.nextSegment }, { SystemVListing.nextSegment = $0 })
    let keys = kernel.directory("keys")
    for (name, value) in [
      ("maxkeys", "200"), ("maxbytes", "20000"), ("root_maxkeys", "1000000"), ("root_maxbytes", "25000000"),
      ("gc_delay", "300"),
    ] as [(StaticString, StaticString)] { setting(keys, name, value) }
    kernel.directory("pty").add("max", line: "4096")
    setting(kernel.directory("yama"), "ptrace_scope", "0")
    fillRandom(kernel.directory("random"))
  }

  private static func fillRandom(_ random: FixedDirectory) {
    let start = identifier()
    random.add("boot_id") { () throws(Errno) -> [UInt8] in start }
    random.add("uuid") { () throws(Errno) -> [UInt8] in identifier() }
    random.add("entropy_avail", line: "256")
    random.add("poolsize", line: "256")
    setting(random, "write_wakeup_threshold", "256")
    setting(random, "urandom_min_reseed_secs", "60")
  }

  /// A random UUID (RFC 9562 section 5.4) and a line's end.
  private static func identifier() -> [UInt8] {
    var raw = [UInt8](repeating: 0, count: 16)
    raw.withUnsafeMutableBytes { host.fillRandom($0) }
    raw[6] = raw[6] & 0x0f | 0x40
    raw[8] = raw[8] & 0x3f | 0x80
    var text = Text()
    for (index, byte) in raw.enumerated() {
      if index == 4 || index == 6 || index == 8 || index == 10 { text.add("-") }
      text.addHexadecimal(UInt64(byte), width: 2)
    }
    text.endLine()
    return text.bytes
  }

  private static func fillMemory(_ memory: FixedDirectory) {
    for (name, value) in [
      ("overcommit_memory", "0"), ("overcommit_ratio", "50"), ("overcommit_kbytes", "0"),
      ("max_map_count", "65530"), ("swappiness", "60"), ("mmap_min_addr", "65536"), ("nr_hugepages", "0"),
      ("nr_overcommit_hugepages", "0"), ("dirty_ratio", "20"), ("dirty_background_ratio", "10"),
      ("dirty_bytes", "0"), ("dirty_background_bytes", "0"), ("dirty_expire_centisecs", "3000"),
      ("dirty_writeback_centisecs", "500"), ("vfs_cache_pressure", "100"), ("min_free_kbytes", "4096"),
      ("zone_reclaim_mode", "0"), ("panic_on_oom", "0"), ("oom_kill_allocating_task", "0"),
      ("drop_caches", "0"),
      ("hugetlb_shm_group", "0"), ("legacy_va_layout", "0"), ("page-cluster", "3"),
    ] as [(StaticString, StaticString)] { setting(memory, name, value) }
  }

  private static func fillFiles(_ files: FixedDirectory) {
    for (name, value) in [
      ("file-max", "9223372036854775807"), ("nr_open", "1048576"), ("pipe-max-size", "1048576"),
      ("pipe-user-pages-soft", "16384"), ("pipe-user-pages-hard", "0"), ("aio-max-nr", "65536"),
      ("lease-break-time", "45"), ("leases-enable", "1"), ("protected_hardlinks", "0"),
      ("protected_symlinks", "0"), ("suid_dumpable", "0"), ("mount-max", "100000"),
    ] as [(StaticString, StaticString)] { setting(files, name, value) }
    files.add("aio-nr", line: "0")
    files.add("file-nr") { () throws(Errno) -> [UInt8] in
      var count: UInt64 = 0
      for process in ProcessTable.processes.values where !process.isZombie {
        count += UInt64(process.descriptors.open.count)
      }
      return decimal(count) + line("\t0\t9223372036854775807")
    }
    files.add("inode-nr", line: "0\t0")
    let inotify = files.directory("inotify")
    limit(inotify, "max_queued_events", { Inotify.maximumQueued }, { Inotify.maximumQueued = $0 })
    limit(inotify, "max_user_instances", { Inotify.maximumInstances }, { Inotify.maximumInstances = $0 })
    limit(inotify, "max_user_watches", { Inotify.maximumWatches }, { Inotify.maximumWatches = $0 })
    setting(files.directory("epoll"), "max_user_watches", "1048576")
    let queues = files.directory("mqueue")
    limit(queues, "msg_max", { PosixQueues.maximumMessages }, { PosixQueues.maximumMessages = $0 })
    limit(queues, "msgsize_max", { PosixQueues.maximumMessageSize }, { PosixQueues.maximumMessageSize = $0 })
    limit(queues, "queues_max", { PosixQueues.maximumQueues }, { PosixQueues.maximumQueues = $0 })
    limit(queues, "msg_default", { PosixQueues.defaultMessages }, { PosixQueues.defaultMessages = $0 })
    limit(
      queues, "msgsize_default", { PosixQueues.defaultMessageSize }, { PosixQueues.defaultMessageSize = $0 })
    _ = files.directory("binfmt_misc")
  }

  private static func fillNetwork(_ network: FixedDirectory) {
    let core = network.directory("core")
    for (name, value) in [
      ("somaxconn", "4096"), ("rmem_max", "4194304"), ("wmem_max", "4194304"), ("rmem_default", "212992"),
      ("wmem_default", "212992"), ("optmem_max", "20480"), ("netdev_max_backlog", "1000"),
      ("default_qdisc", "pfifo_fast"), ("busy_poll", "0"), ("busy_read", "0"),
    ] as [(StaticString, StaticString)] { setting(core, name, value) }
    let version4 = network.directory("ipv4")
    for (name, value) in [
      ("ip_local_port_range", "32768\t60999"), ("ip_forward", "0"), ("ip_default_ttl", "64"),
      ("ip_nonlocal_bind", "0"), ("ip_unprivileged_port_start", "1024"), ("ip_local_reserved_ports", ""),
      ("tcp_syncookies", "0"), ("tcp_sack", "1"), ("tcp_timestamps", "1"), ("tcp_window_scaling", "1"),
      ("tcp_rmem", "4096\t131072\t4194304"), ("tcp_wmem", "4096\t262144\t4194304"),
      ("tcp_mem", "8192\t16384\t32768"), ("udp_mem", "8192\t16384\t32768"), ("tcp_max_syn_backlog", "4096"),
      ("tcp_fin_timeout", "60"), ("tcp_keepalive_time", "7200"), ("tcp_keepalive_intvl", "75"),
      ("tcp_keepalive_probes", "9"), ("tcp_tw_reuse", "2"), ("tcp_max_tw_buckets", "16384"),
      ("tcp_max_orphans", "1024"), ("tcp_fastopen", "0"), ("tcp_congestion_control", "reno"),
      ("tcp_available_congestion_control", "reno"), ("tcp_allowed_congestion_control", "reno"),
      ("tcp_no_metrics_save", "1"), ("tcp_slow_start_after_idle", "1"), ("tcp_retries1", "3"),
      ("tcp_retries2", "15"), ("tcp_syn_retries", "6"), ("tcp_synack_retries", "5"), ("tcp_ecn", "0"),
      ("tcp_abort_on_overflow", "0"), ("tcp_mtu_probing", "0"), ("ping_group_range", "1\t0"),
    ] as [(StaticString, StaticString)] { setting(version4, name, value) }
    let version6 = network.directory("ipv6").directory("conf")
    for name in ["all", "default", "lo"] as [StaticString] {
      setting(version6.directory(name), "disable_ipv6", "1")
    }
    setting(network.directory("unix"), "max_dgram_qlen", "256")
  }
}
