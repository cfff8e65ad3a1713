/// What is wrong with an image, a manifest or a launch record. Every case has a fixed one-line description,
/// so that the libOS, which has no string formatting, can print it.
public enum ImageError: Error, Equatable {
  case tooShort, notAnImage, unsupportedVersion, unknownFlags, misalignedSection, sectionOutOfBounds
  case wrongChecksum
  case notAnArchive, indexOutOfBounds, tooManyEntries
  case pathOutOfBounds, invalidPath, duplicatePath, missingRoot, missingParent
  case invalidFileType, dataOutOfBounds, misalignedData, unexpectedData, emptySymbolicLink, invalidTimestamp
  case invalidHardLink
  case unknownKey, missingValue, invalidEncoding, invalidNumber, invalidAddress, duplicateKey, missingProgram

  /// One line, without a full stop, that names the fault.
  public var description: StaticString {
    switch self {
    case .tooShort: "the file is too short to be an image"
    case .notAnImage: "the file is not a Swiftlet image, or it was truncated"
    case .unsupportedVersion: "the image has an unsupported format version"
    case .unknownFlags: "the image trailer has unknown flags or reserved bytes"
    case .misalignedSection: "the archive does not start at a page boundary"
    case .sectionOutOfBounds: "the archive or the manifest lies outside the file"
    case .wrongChecksum: "the checksum of the image does not match"
    case .notAnArchive: "the archive header is damaged"
    case .indexOutOfBounds: "the archive index lies outside the archive"
    case .tooManyEntries: "the archive has too many entries"
    case .pathOutOfBounds: "a path lies outside the path pool"
    case .invalidPath: "a path is absolute, too long, or has an empty, . or .. component"
    case .duplicatePath: "a path occurs twice"
    case .missingRoot: "the first archive entry is not the root directory"
    case .missingParent: "an entry stands before its parent directory"
    case .invalidFileType: "an entry has an invalid file type"
    case .dataOutOfBounds: "the data of a file lies outside the archive"
    case .misalignedData: "the data of a file does not start at a page boundary"
    case .unexpectedData: "an entry that is neither a file nor a symbolic link has data"
    case .emptySymbolicLink: "the target of a symbolic link is empty, too long or has a zero byte"
    case .invalidTimestamp: "the modification time of an entry is out of range"
    case .invalidHardLink: "a hard link does not refer to an earlier file"
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
