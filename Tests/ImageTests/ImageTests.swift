import Testing

@Suite("Image") struct ImageTests {}
