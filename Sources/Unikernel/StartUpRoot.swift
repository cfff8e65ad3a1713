import ABI
import Ext4
import Image
import Processes
import Tasks
import VFS

extension StartUp {
  /// Mounts the image's file system in place, under a layer for what the run changes: in memory, or in the file of
  /// `--persist`.
  func mountRoot() -> Volume {
    do throws(MountError) {
      if let layer = options.layerDescriptor { return try mountKept(Int(layer)) }
      // Room for everything that memory holds, and, because each group of blocks brings inodes, for many small files.
      let room = max(UInt64(frames.totalFrames) << 12, 4 << 30)
      return try Volume(root: disk(MemoryLayer(), UInt64(reader.root.count) + room))
    } catch { fail("the image's root cannot be mounted because of:\n", error.reason) }
  }

  private func disk(_ layer: BlockLayer, _ size: UInt64) -> LayeredDisk {
    LayeredDisk(base: reader.root, imageOffset: UInt(reader.rootOffset), layer: layer, size: size)
  }

  /// The layer is the disk after those of the volumes.
  private func mountKept(_ descriptor: Int) throws(MountError) -> Volume {
    let number = options.volumes.count
    var bytes = [UInt8](repeating: 0, count: LayerHeader.length)
    do throws(Errno) {
      try readDisk(number, &bytes)
      var header = try parse(bytes, host.diskSize(number))
      let identity = Array(reader.root[(1024 + 104)..<(1024 + 120)])
      guard header.identity == identity, header.lowerBlocks == UInt64(reader.root.count >> 12) else {
        host.fail("the file of --persist belongs to another image", status: 125)
      }
      let layer = try FileLayer(
        disk: number, lower: reader.root.count >> 12, bitmapOffset: header.bitmapOffset,
        dataOffset: header.dataOffset, isNew: !header.isReady)
      let disk = disk(layer, header.blocks << 12)
      if !header.isReady {
        do throws(MountError) { try Volume.prepare(root: disk) } catch {
          fail("the file of --persist cannot be made ready because of:\n", error.reason)
        }
        header.isReady = true
        try writeDisk(number, header.serialise())
      }
      return try mount(disk)
    } catch { host.fail("the file of --persist cannot be read or written", status: 125) }
  }

  private func mount(_ disk: LayeredDisk) -> Volume {
    do throws(MountError) { return try Volume(root: disk) } catch {
      fail("the file of --persist cannot be mounted because of:\n", error.reason)
    }
  }

  private func parse(_ bytes: [UInt8], _ length: UInt64) throws(Errno) -> LayerHeader {
    let result: Result<LayerHeader, ImageError> = bytes.withUnsafeBytes { bytes in
      do throws(ImageError) { return .success(try LayerHeader(parsing: bytes, fileLength: length)) } catch {
        return .failure(error)
      }
    }
    switch result {
    case .success(let header): return header
    case .failure(let error): host.fail(error.description, status: 125)
    }
  }

  private func readDisk(_ number: Int, _ bytes: inout [UInt8]) throws(Errno) {
    let failure: Errno? = bytes.withUnsafeMutableBytes { bytes in
      do throws(Errno) {
        try host.readDisk(number, at: 0, bytes)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
  }

  private func writeDisk(_ number: Int, _ bytes: [UInt8]) throws(Errno) {
    let failure: Errno? = bytes.withUnsafeBytes { bytes in
      do throws(Errno) {
        try host.writeDisk(number, at: 0, bytes)
        try host.flushDisk(number, unlocked: false)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
  }

  /// Ends with two lines: what failed, and why.
  func fail(_ text: StaticString, _ reason: StaticString) -> Never {
    let name: StaticString = "swiftlet: "
    for part in [name, text] {
      part.withUTF8Buffer { _ = try? host.writeConsole(2, UnsafeRawBufferPointer($0)) }
    }
    host.fail(reason, status: 125)
  }
}
