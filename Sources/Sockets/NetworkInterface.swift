import ABI
import CMachine
public import Net
public import Tasks

/// How frames cross the host's network descriptor.
public enum LinkKind: Sendable {
  /// One frame a read, each behind a `virtio_net_hdr` of ten bytes (a tap device with IFF_VNET_HDR).
  case tap
  /// A byte stream of frames, each behind its length in four bytes, big-endian (passt, QEMU's `-netdev stream`).
  case stream
}

/// The link to the outside over the host's network descriptor. Kernel lock held for every call.
public final class NetworkInterface: LinkDevice, DeviceDriver {
  public let kind: LinkKind
  public let mtu: Int
  public let offloads: LinkOffloads

  /// virtio 1.2, 5.1.6: without `num_buffers`, as tap devices have it.
  private static let tapHeader = 10
  private static let streamHeader = 4
  /// Ethernet header, the largest IP packet, and one of the headers above.
  private static let largestFrame = 14 + 40 + 65535
  private static let inputCapacity = 256 << 10
  /// Frames that the host has not taken yet; beyond this they are dropped, as a full link does.
  private static let outputLimit = 1 << 20
  /// Error numbers of the host's calls: nothing there (or no room) now, and interrupted.
  private static let again = -11
  private static let interrupted = -4

  /// Frames and their bytes that came, and that went.
  public private(set) var received: (frames: UInt64, bytes: UInt64) = (0, 0)
  public private(set) var sent: (frames: UInt64, bytes: UInt64) = (0, 0)

  private let input: UnsafeMutableRawBufferPointer
  /// Stream: bytes in `input` that are not a whole frame yet.
  private var inputCount = 0
  /// The host's end is gone, or sent what is no frame: nothing comes or goes any more.
  private(set) var isDown = false
  /// Stream: what is left of frames that were written in part, and the frames behind them.
  private var output: [UInt8] = []
  private var outputStart = 0

  /// `mtu`: 0 for the usual one of the kind (1500 bytes; passt's default of 65520 for streams). `offloads`: a tap
  /// device cuts segments and completes checksums (TUNSETOFFLOAD, or nothing behind it that minds).
  public init(kind: LinkKind, mtu: Int = 0, offloads hasOffloads: Bool = true) {
    self.kind = kind
    switch kind {
    case .tap:
      self.mtu = mtu > 0 ? mtu : 1500
      offloads = LinkOffloads(checksum: hasOffloads, segmentation: hasOffloads)
    case .stream:
      self.mtu = mtu > 0 ? mtu : 65520
      offloads = LinkOffloads(checksum: false, segmentation: false)
    }
    input = UnsafeMutableRawBufferPointer.allocate(byteCount: NetworkInterface.inputCapacity, alignment: 16)
    expectInput()
  }

  deinit { input.deallocate() }

  // MARK: Receiving

  public func handleInput() {
    guard !isDown else { return }
    flushOutput()
    let now = host.monotonicNanoseconds
    IncomingFrames.handOver { bytes, result in
      guard result > 0 else { return judge(result) }
      switch kind {
      case .tap: receiveFrame(bytes, now)
      case .stream:
        inputCount += bytes.count
        parseStream(now)
      }
    }
    expectInput()
    Network.settle()
  }

  /// A stream's bytes go behind those of the frame that is not whole yet.
  private func expectInput() {
    switch kind {
    case .tap:
      IncomingFrames.expect(in: input, largest: NetworkInterface.tapHeader + NetworkInterface.largestFrame)
    case .stream:
      let space = UnsafeMutableRawBufferPointer(rebasing: input[inputCount...])
      IncomingFrames.expect(in: space, largest: space.count)
    }
  }

  /// Takes the link down for good: a descriptor that is always ready must not keep the poller running.
  private func goDown(_ message: StaticString) {
    guard !isDown else { return }
    isDown = true
    inputCount = 0
    output.removeAll()
    outputStart = 0
    Devices.wantsNetworkOutput = false
    if Devices.network === self { Devices.network = nil }
    do throws(Errno) {
      _ = try host.writeConsole(
        2, UnsafeRawBufferPointer(start: message.utf8Start, count: message.utf8CodeUnitCount))
    } catch {}
  }

  /// What a read that gave no bytes means: nothing for now, or the end.
  private func judge(_ result: Int) {
    if result == NetworkInterface.again || result == NetworkInterface.interrupted { return }
    switch kind {
    case .tap: goDown("swiftlet: the tap device is gone; the network is down\n")
    case .stream: goDown("swiftlet: passt has ended; the network is down\n")
    }
  }

  private func receiveFrame(_ bytes: UnsafeMutableRawBufferPointer, _ now: UInt64) {
    guard bytes.count > NetworkInterface.tapHeader else { return }
    // VIRTIO_NET_HDR_F_NEEDS_CSUM or _DATA_VALID: nobody has to look at the checksum.
    let isValidated = bytes[0] & 3 != 0
    let frame = UnsafeRawBufferPointer(rebasing: bytes[NetworkInterface.tapHeader...])
    received = (received.frames &+ 1, received.bytes &+ UInt64(frame.count))
    Network.stack.receive(frame: frame, checksumValidated: isValidated, now: now)
  }

  private func parseStream(_ now: UInt64) {
    let header = NetworkInterface.streamHeader
    var start = 0
    while inputCount - start >= header {
      let length =
        Int(input[start]) << 24 | Int(input[start + 1]) << 16 | Int(input[start + 2]) << 8
        | Int(input[start + 3])
      guard length <= NetworkInterface.largestFrame else {
        // There is no way to find the next frame.
        return goDown("swiftlet: passt sent what is no frame; the network is down\n")
      }
      guard inputCount - start >= header + length else { break }
      let frame = UnsafeRawBufferPointer(rebasing: input[start + header..<start + header + length])
      // A local stream loses and changes nothing: no need to add the checksums up again.
      received = (received.frames &+ 1, received.bytes &+ UInt64(frame.count))
      Network.stack.receive(frame: frame, checksumValidated: true, now: now)
      start += header + length
    }
    if start > 0, start < inputCount, let base = input.baseAddress {
      base.copyMemory(from: base + start, byteCount: inputCount - start)
    }
    inputCount -= start
  }

  // MARK: Sending

  public func transmit(_ offload: TransmitOffload, _ frame: UnsafeRawBufferPointer) {
    guard !isDown else { return }
    sent = (sent.frames &+ 1, sent.bytes &+ UInt64(frame.count))
    switch kind {
    case .tap:
      var header: [10 of UInt8] = .init(repeating: 0)
      header[0] = offload.needsChecksum ? 1 : 0
      // VIRTIO_NET_HDR_GSO_TCPV6, _TCPV4 or _NONE
      header[1] = offload.segmentSize == 0 ? 0 : offload.isIPv6 ? 4 : 1
      put(offload.headerLength, 2, &header)
      put(offload.segmentSize, 4, &header)
      put(offload.checksumStart, 6, &header)
      put(offload.checksumOffset, 8, &header)
      withUnsafeBytes(of: &header) {
        if !OutgoingFrames.append(header: $0, frame) { _ = host.writeFrame(header: $0, frame) }
      }
    case .stream:
      var header = UInt32(truncatingIfNeeded: frame.count).bigEndian
      withUnsafeBytes(of: &header) { transmitStream($0, frame) }
    }
  }

  /// virtio fields are little-endian.
  private func put(_ value: UInt16, _ offset: Int, _ header: inout [10 of UInt8]) {
    header[offset] = UInt8(truncatingIfNeeded: value)
    header[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
  }

  private func transmitStream(_ header: UnsafeRawBufferPointer, _ frame: UnsafeRawBufferPointer) {
    let total = header.count + frame.count
    var written = 0
    if !hasOutput {
      written = host.writeFrame(header: header, frame)
      // Any other error: the frame is lost, and the next read tells of the end.
      if written == NetworkInterface.again || written == NetworkInterface.interrupted { written = 0 }
      guard written >= 0, written < total else { return }
    }
    guard written > 0 || output.count - outputStart + total <= NetworkInterface.outputLimit else { return }
    if written < header.count { output.append(contentsOf: header[written...]) }
    output.append(contentsOf: frame[max(0, written - header.count)...])
    awaitOutput()
  }

  /// Has the poller watch for room.
  private func awaitOutput() {
    guard !Devices.wantsNetworkOutput else { return }
    Devices.wantsNetworkOutput = true
    Devices.devicesChanged()
  }

  var hasOutput: Bool { outputStart < output.count }

  /// Writes what the host did not take before.
  func flushOutput() {
    guard hasOutput else { return }
    let start = outputStart
    let none = UnsafeRawBufferPointer(start: nil, count: 0)
    let written = output.withUnsafeBytes {
      host.writeFrame(header: none, UnsafeRawBufferPointer(rebasing: $0[start...]))
    }
    if written > 0 {
      outputStart += written
    } else if written != NetworkInterface.again, written != NetworkInterface.interrupted {
      outputStart = output.count
    }
    if !hasOutput {
      Devices.wantsNetworkOutput = false
      output.removeAll(keepingCapacity: true)
      outputStart = 0
    } else if outputStart > NetworkInterface.outputLimit {
      output.removeSubrange(..<outputStart)
      outputStart = 0
    }
  }
}
