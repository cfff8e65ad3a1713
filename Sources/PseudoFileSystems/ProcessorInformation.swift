import ABI
import Tasks
import VFS

/// What /proc and /sys tell of the processors.
enum ProcessorInformation {
  static func fill(_ root: FixedDirectory) {
    root.add("cpuinfo") { () throws(Errno) -> [UInt8] in describe() }
  }

  /// `0-3`, or `0`.
  static func range() -> [UInt8] {
    host.processorCount == 1 ? bytes("0") : bytes("0-") + decimal(UInt64(host.processorCount - 1))
  }

  /// A hexadecimal mask in groups of 32 bits, the highest first.
  static func mask() -> [UInt8] {
    var text = Text()
    var group = (host.processorCount - 1) / 32
    while group >= 0 {
      let bits = min(host.processorCount - 32 * group, 32)
      let value: UInt64 = 1 << UInt64(bits) - 1
      if text.bytes.isEmpty { text.addHexadecimal(value) } else { text.addHexadecimal(value, width: 8) }
      if group > 0 { text.add(",") }
      group -= 1
    }
    return text.bytes
  }

  static func interrupts() -> [UInt8] {
    var text = Text()
    text.pad(11)
    for index in 0..<host.processorCount {
      text.add("CPU")
      text.add(index)
      text.pad(7)
    }
    text.endLine()
    return text.bytes
  }

  private static func describe() -> [UInt8] {
    let identity = ProcessorIdentity()
    var text = Text()
    let count = UInt64(host.processorCount)
    for index in 0..<count {
      func add(_ name: StaticString, _ value: UInt64) {
        text.add(name)
        text.add(value)
        text.endLine()
      }
      func add(_ name: StaticString, _ value: [UInt8]) {
        text.add(name)
        text.add(value)
        text.endLine()
      }
      add("processor\t: ", index)
      add("vendor_id\t: ", identity.vendor)
      add("cpu family\t: ", UInt64(identity.family))
      add("model\t\t: ", UInt64(identity.modelNumber))
      add("model name\t: ", identity.model)
      add("stepping\t: ", UInt64(identity.stepping))
      if identity.megahertz > 0 { add("cpu MHz\t\t: ", decimal(identity.megahertz) + bytes(".000")) }
      add("physical id\t: ", 0)
      add("siblings\t: ", count)
      add("core id\t\t: ", index)
      add("cpu cores\t: ", count)
      add("apicid\t\t: ", index)
      add("initial apicid\t: ", index)
      text.add("fpu\t\t: yes\nfpu_exception\t: yes\n")
      add("cpuid level\t: ", UInt64(identity.highestLeaf))
      text.add("wp\t\t: yes\n")
      add("flags\t\t: ", identity.flags)
      text.add("bugs\t\t: \n")
      if identity.megahertz > 0 { add("bogomips\t: ", decimal(identity.megahertz * 2) + bytes(".00")) }
      add("clflush size\t: ", UInt64(identity.cacheLine))
      add("cache_alignment\t: ", UInt64(identity.cacheLine))
      text.add("address sizes\t: ")
      text.add(identity.physicalBits)
      text.add(" bits physical, ")
      text.add(identity.virtualBits)
      text.add(" bits virtual\npower management:\n\n")
    }
    return text.bytes
  }
}
