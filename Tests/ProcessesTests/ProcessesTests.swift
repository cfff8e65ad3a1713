import Testing

@Suite("Processes") struct ProcessesTests {}
