import BootParameters
import Testing

@Suite("The kernel command line's virtio-mmio devices")
struct BootParametersTests {
  private func devices(_ text: String) -> [DeviceParameter] {
    Array(text.utf8).withUnsafeBytes {
      var parameters = DeviceParameters($0)
      var found: [DeviceParameter] = []
      while let device = parameters.next() { found.append(device) }
      return found
    }
  }

  @Test("as Firecracker writes them")
  func firecracker() {
    #expect(
      devices("console=ttyS0 reboot=k panic=1 pci=off virtio_mmio.device=4K@0xd0000000:5 root=/dev/vda rw")
        == [DeviceParameter(size: 4096, base: 0xd000_0000, interrupt: 5)])
  }

  @Test("as QEMU's microvm writes them, several of them")
  func microvm() {
    #expect(
      devices(" virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11")
        == [
          DeviceParameter(size: 512, base: 0xfeb0_0e00, interrupt: 12),
          DeviceParameter(size: 512, base: 0xfeb0_0c00, interrupt: 11),
        ])
  }

  @Test("with an identifier, dashes and octal numbers")
  func variants() {
    #expect(
      devices("virtio-mmio.device=0x1000@010:7:3") == [DeviceParameter(size: 4096, base: 8, interrupt: 7)])
  }

  @Test(
    "what is malformed is passed over",
    arguments: [
      "", "virtio_mmio.device", "virtio_mmio.device=", "virtio_mmio.device=4K", "virtio_mmio.device=4K@",
      "virtio_mmio.device=4K@0xd0000000", "virtio_mmio.device=4K@0xd0000000:", "virtio_mmio.device=@1:2",
      "virtio_mmio.device=4Q@1:2", "virtio_mmio.device=4K@0x:2", "xvirtio_mmio.device=4K@1:2",
      "virtio_mmio.device=4K@99999999999999999999:2", "virtio_mmio.device=17179869184G@1:2",
      "virtio_mmio.device=4K@1:2x", "-- virtio_mmio.device=4K@1:2",
    ])
  func malformed(_ text: String) { #expect(devices(text).isEmpty) }
}
