import Testing

@Suite("VFS") struct VFSTests {}
