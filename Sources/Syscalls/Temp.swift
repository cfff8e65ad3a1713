import ABI
extension SystemCall {
  func dispatchSocket() throws(Errno) -> Int? { nil }
}
