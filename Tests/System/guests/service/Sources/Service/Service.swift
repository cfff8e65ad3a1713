import Foundation
import Hummingbird

/// A small web service: text, JSON, the body sent back, and work spread over tasks.
@main
struct Service {
  struct Sum: ResponseEncodable {
    let total: Int
    let process: Int32
  }

  static func main() async throws {
    let router = Router()
    router.get("/") { _, _ in "hello from hummingbird\n" }
    router.post("/echo") { request, _ in Response(status: .ok, body: .init(asyncSequence: request.body)) }
    router.get("/sum/:count") { _, context in
      let count = try context.parameters.require("count", as: Int.self)
      let total = await withTaskGroup(of: Int.self) { group in
        for part in 0..<8 {
          group.addTask { stride(from: part, to: count, by: 8).reduce(0, +) }
        }
        return await group.reduce(0, +)
      }
      return Sum(total: total, process: ProcessInfo.processInfo.processIdentifier)
    }
    let application = Application(
      router: router, configuration: .init(address: .hostname("0.0.0.0", port: 8080)))
    try await application.runService()
  }
}
