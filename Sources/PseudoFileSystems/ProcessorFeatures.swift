import CMachine

/// The processor as CPUID describes it: Intel SDM volume 2A, "CPUID"; AMD APM volume 3, appendix E.
struct ProcessorIdentity {
  private(set) var vendor: [UInt8] = []
  private(set) var model: [UInt8] = []
  private(set) var family: UInt32 = 0
  private(set) var modelNumber: UInt32 = 0
  private(set) var stepping: UInt32 = 0
  /// Of the base frequency; 0 if nothing tells.
  private(set) var megahertz: UInt64 = 0
  private(set) var cacheLine: UInt32 = 64
  private(set) var physicalBits: UInt32 = 40
  private(set) var virtualBits: UInt32 = 48
  private(set) var flags: [UInt8] = []
  private(set) var highestLeaf: UInt32 = 0

  static func leaf(_ number: UInt32, _ part: UInt32 = 0) -> [4 of UInt32] {
    var answer: [4 of UInt32] = .init(repeating: 0)
    withUnsafeMutableBytes(of: &answer) { bytes in
      if let base = bytes.baseAddress {
        machine_cpuid(number, part, base.assumingMemoryBound(to: UInt32.self))
      }
    }
    return answer
  }

  private static func append(_ word: UInt32, to text: inout [UInt8]) {
    for shift in [0, 8, 16, 24] as [UInt32] { text.append(UInt8(truncatingIfNeeded: word >> shift)) }
  }

  init() {
    let first = ProcessorIdentity.leaf(0)
    highestLeaf = first[0]
    for index in [1, 3, 2] { ProcessorIdentity.append(first[index], to: &vendor) }
    let version = ProcessorIdentity.leaf(1)
    family = version[0] >> 8 & 15
    modelNumber = version[0] >> 4 & 15
    stepping = version[0] & 15
    if family == 6 || family == 15 { modelNumber |= version[0] >> 12 & 0xf0 }
    if family == 15 { family += version[0] >> 20 & 0xff }
    cacheLine = max(version[1] >> 8 & 0xff, 4) * 8
    let extended = ProcessorIdentity.leaf(0x8000_0000)[0]
    readModel(extended)
    if extended >= 0x8000_0008 {
      let sizes = ProcessorIdentity.leaf(0x8000_0008)[0]
      physicalBits = sizes & 0xff
      virtualBits = sizes >> 8 & 0xff
    }
    if highestLeaf >= 0x16 { megahertz = UInt64(ProcessorIdentity.leaf(0x16)[0] & 0xffff) }
    if megahertz == 0 { megahertz = ProcessorIdentity.frequency(in: model) }
    flags = ProcessorFeatures.names(highest: highestLeaf, extended: extended)
  }

  private mutating func readModel(_ extended: UInt32) {
    guard extended >= 0x8000_0004 else { return }
    for number in 0x8000_0002...0x8000_0004 as ClosedRange<UInt32> {
      let words = ProcessorIdentity.leaf(number)
      for index in 0..<4 { ProcessorIdentity.append(words[index], to: &model) }
    }
    if let end = model.firstIndex(of: 0) { model.removeSubrange(end...) }
    while model.last == 0x20 { model.removeLast() }
    while model.first == 0x20 { model.removeFirst() }
  }

  /// Model names may end in `@ 2.10GHz`.
  private static func frequency(in model: [UInt8]) -> UInt64 {
    guard let at = model.lastIndex(of: 0x40) else { return 0 }
    var value: UInt64 = 0
    var decimals = -1
    for byte in model[(at + 1)...] {
      if byte == 0x2e { decimals = 0 }
      guard byte >= 0x30, byte <= 0x39, decimals < 3 else { continue }
      value = value * 10 + UInt64(byte - 0x30)
      if decimals >= 0 { decimals += 1 }
    }
    while decimals < 3 {
      value *= 10
      decimals = max(decimals, 0) + 1
    }
    return min(value, 99_999)
  }
}

/// Features by the names that Linux gives them, by the bits of one register of CPUID; a dash is one without a name.
enum ProcessorFeatures {
  static func names(highest: UInt32, extended: UInt32) -> [UInt8] {
    var text: [UInt8] = []
    let basic = ProcessorIdentity.leaf(1)
    add(
      "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
      basic[3], &text)
    if extended >= 0x8000_0001 {
      let more = ProcessorIdentity.leaf(0x8000_0001)
      add(
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
        more[3], &text)
      add(
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx - -",
        more[2], &text)
    }
    add(
      "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor",
      basic[2], &text)
    guard highest >= 7 else { return text }
    let structured = ProcessorIdentity.leaf(7)
    add(
      "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
      structured[1], &text)
    add(
      "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd - -",
      structured[2], &text)
    add(
      "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - pconfig arch_lbr - - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities - -",
      structured[3], &text)
    return text
  }

  private static func add(_ names: StaticString, _ bits: UInt32, _ text: inout [UInt8]) {
    var bit: UInt32 = 0
    var start = 0
    let count = names.utf8CodeUnitCount
    while start < count, bit < 32 {
      var end = start
      while end < count, names.utf8Start[end] != 0x20 { end += 1 }
      if bits >> bit & 1 != 0, names.utf8Start[start] != 0x2d {
        if !text.isEmpty { text.append(0x20) }
        for index in start..<end { text.append(names.utf8Start[index]) }
      }
      bit += 1
      start = end + 1
    }
  }
}
