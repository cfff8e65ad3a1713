/// What is wrong with an image, a manifest or a launch record. Every case has a fixed one-line description,
/// so that the libOS, which has no string formatting, can print it.
public enum ImageError: Error, Equatable {
  case tooShort, notAnImage, unsupportedVersion, unknownFlags, misalignedSection, sectionOutOfBounds
  case wrongChecksum, missingRoot, invalidPath, notALayer
  case unknownKey, missingValue, invalidEncoding, invalidNumber, invalidAddress, duplicateKey, missingProgram

  /// One line, without a full stop, that names the fault.
  public var description: StaticString {
    switch self {
    case .tooShort: "the file is too short to be an image"
    case .notAnImage: "the file is not a Swiftlet image, or it was truncated"
    case .unsupportedVersion: "the image has an unsupported format version"
    case .unknownFlags: "the image trailer has unknown flags or reserved bytes"
    case .misalignedSection: "the root file system does not start or end at a page boundary"
    case .sectionOutOfBounds: "a part of the file lies outside it: it was cut"
    case .wrongChecksum: "the checksum of the image does not match"
    case .invalidPath: "a path is not absolute or too long"
    case .missingRoot: "the image has no root file system"
    case .notALayer: "the file to keep changes in is not one of swiftlet's"
    case .unknownKey: "a line of the record has an unknown key"
    case .missingValue: "a line of the record has no value"
    case .invalidEncoding: "a value of the record is not percent-encoded correctly"
    case .invalidNumber: "a number of the record is malformed or out of range"
    case .invalidAddress: "a network address of the record is malformed"
    case .duplicateKey: "a key that may occur once occurs twice"
    case .missingProgram: "the manifest names no program or has no arguments"
    }
  }
}
