// swift-tools-version: 6.2
//
// One manifest for both worlds. Nothing here mentions Embedded Swift: a toolset file (Toolsets/*.json) plus
// --triple turns the libOS targets into an image; the default build turns the same targets into ordinary
// hosted modules for the command and the tests.

import PackageDescription

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

// Modules that must also build embedded: the hosted build already refuses what Embedded Swift lacks.
let shared = strict + [.treatWarning("EmbeddedRestrictions", as: .error)]

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: shared)
}

let package = Package(
  name: "swiftlet",
  products: [
    .executable(name: "swiftlet", targets: ["swiftlet"]),
    // A static library, so that a hosted build never tries to link it: `make` links it with its own script.
    .library(name: "Unikernel", type: .static, targets: ["Unikernel"]),
    .library(name: "Exokernel", type: .static, targets: ["Exokernel"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")
  ],
  targets: [
    // The bare host: ring 0, linked on its own (Toolsets/exokernel.json), and the libOS's side of it.
    .target(name: "CExokernel"),
    library("BootParameters"),
    library("Exokernel", ["BootParameters", "CExokernel"]),
    .target(name: "CBareHost"),
    library("ChaCha"),
    library("Virtio", ["ABI", "CMachine", "Tasks"]),
    library("BareHost", ["ABI", "ChaCha", "CMachine", "CBareHost", "HostCore", "Tasks", "Virtio"]),

    // The libOS, lowest first. Each imports only what stands above it in this list.
    .target(name: "CMachine"),
    library("ABI"),
    library("Net"),
    library("Image"),
    library("Ext4", ["ABI"]),
    library("Tasks", ["ABI", "CMachine"]),
    library("VFS", ["ABI", "CMachine", "Ext4", "Tasks"]),
    library("Processes", ["ABI", "CMachine", "Tasks", "VFS", "Image"]),
    library("Sockets", ["ABI", "CMachine", "Tasks", "VFS", "Net"]),
    library(
      "PseudoFileSystems", ["ABI", "CMachine", "Tasks", "VFS", "Processes", "Net", "Sockets"]),
    library("Syscalls", ["ABI", "CMachine", "Tasks", "VFS", "Processes", "Sockets"]),

    // The Linux host. A hosted build compiles it but never links it.
    .target(name: "CEmbeddedRuntime"),
    .target(name: "CHostCore"),
    library("HostCore", ["ABI", "CMachine", "CHostCore", "Tasks"]),
    .target(name: "CLinuxHost"),
    library("LinuxHost", ["ABI", "CHostCore", "CMachine", "CLinuxHost", "HostCore", "Image", "Tasks"]),
    library(
      "Unikernel",
      [
        "ABI", "BareHost", "CBareHost", "CHostCore", "CMachine", "CLinuxHost", "CEmbeddedRuntime", "Ext4",
        "HostCore", "Image", "LinuxHost", "Net", "Processes", "PseudoFileSystems",
        "Sockets", "Syscalls", "Tasks", "VFS",
      ]),

    // Hosted only: the command.
    .target(name: "CHostCommand"),
    .target(
      name: "ImageBuilder", dependencies: ["ABI", "CHostCommand", "Ext4", "Image"], swiftSettings: strict),
    .executableTarget(
      name: "swiftlet",
      dependencies: [
        "ABI", "CHostCommand", "Ext4", "Image", "ImageBuilder",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),

    .testTarget(
      name: "VirtioTests", dependencies: ["ABI", "BootParameters", "ChaCha", "CMachine", "Tasks", "Virtio"]),
    .testTarget(name: "NetTests", dependencies: ["Net"]),
    .testTarget(name: "Ext4Tests", dependencies: ["Ext4", "ABI"]),
    .testTarget(name: "ImageTests", dependencies: ["ABI", "Ext4", "Image", "ImageBuilder", "swiftlet"]),
    .testTarget(name: "VFSTests", dependencies: ["VFS", "Sockets", "Tasks", "ABI", "CMachine", "Ext4"]),
    .testTarget(
      name: "PseudoFileSystemsTests",
      dependencies: ["PseudoFileSystems", "Processes", "VFS", "Tasks", "ABI", "CMachine"]),
    .testTarget(name: "ProcessesTests", dependencies: ["Processes", "VFS", "Tasks", "ABI", "CMachine"]),
  ])
