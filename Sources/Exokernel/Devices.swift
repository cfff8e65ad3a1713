import CExokernel

/// Devices belong to the libOS: it sees their registers at a fixed place and sleeps on a word that their interrupts
/// count up. Exokernel lock held.
enum Devices {
  /// Physical address of the information page.
  nonisolated(unsafe) static var information: UInt64 = 0
  static var page: UnsafeMutablePointer<exokernel_information> {
    PhysicalMemory.pointer(information).assumingMemoryBound(to: exokernel_information.self)
  }

  /// A device interrupted.
  static func signal() {
    guard let word = LibOS.word(LibOS.entries.device_word) else { return }
    _ = machine_add(word, 1)
    _ = Parking.unpark(LibOS.entries.device_word, most: .max)
  }
}
