import Testing

@Suite("Net") struct NetTests {}
