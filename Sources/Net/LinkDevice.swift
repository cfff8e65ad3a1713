/// What the link does for the stack, so that the stack need not.
public struct LinkOffloads {
  /// The link completes partial TCP and UDP checksums of transmitted frames.
  public var checksum: Bool
  /// The link cuts TCP frames of up to 64 KB into segments (implies `checksum`).
  public var segmentation: Bool

  public init(checksum: Bool, segmentation: Bool) {
    self.checksum = checksum || segmentation
    self.segmentation = segmentation
  }
}

/// Work left to the link for one transmitted frame: the fields of `virtio_net_hdr` (virtio 1.2, 5.1.6).
public struct TransmitOffload: Equatable {
  /// Bytes of payload per segment, or 0 when the frame is not to be cut.
  public var segmentSize: UInt16 = 0
  /// Bytes of Ethernet, IP and TCP headers; meaningful with `segmentSize`.
  public var headerLength: UInt16 = 0
  /// The frame is IPv6: the kind of segmentation differs.
  public var isIPv6 = false
  /// Where in the frame the checksum begins to count.
  public var checksumStart: UInt16 = 0
  /// Where the checksum is stored, counted from `checksumStart`.
  public var checksumOffset: UInt16 = 0
  /// The checksum field holds only the pseudo-header sum; the link adds the rest.
  public var needsChecksum: Bool = false

  public init() {}
}

/// One Ethernet link.
public protocol LinkDevice: AnyObject {
  /// The largest IP packet the link carries, in bytes, without the Ethernet header.
  var mtu: Int { get }
  var offloads: LinkOffloads { get }
  /// Sends one Ethernet frame. The bytes are valid during the call only. A link without room drops the frame.
  func transmit(_ offload: TransmitOffload, _ frame: UnsafeRawBufferPointer)
}

/// Told when the readiness of a socket may have changed.
public protocol SocketObserver: AnyObject {
  /// Called from inside the stack: note the change, wake waiters, and do not call the stack from here.
  func socketDidChange()
}
