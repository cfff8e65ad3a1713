// swift-tools-version: 6.1
import PackageDescription

let package = Package(
  name: "Service",
  platforms: [.macOS(.v14)],
  dependencies: [.package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.0.0")],
  targets: [
    .executableTarget(name: "Service", dependencies: [.product(name: "Hummingbird", package: "hummingbird")])
  ]
)
