/// libFuzzer's entry: every decoder of PoolWire on bytes from anywhere. Compiled into one module with PoolWire by `Tests/Fuzz/run`.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzWire(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    let bytes = UnsafeRawBufferPointer(start: start, count: count)
    let limit = 1 << 16

    // The scanner, as the loop uses it.
    var at = 0
    var scanned: [Header] = []
    scan: while at < count {
        switch FrameScanner.next(bytes.baseAddress! + at, count: count - at, limit: limit) {
        case .frame(let header):
            guard header.bodyLength >= 0, header.bodyLength <= limit, at + header.frameLength <= count else { fatalError("a frame beyond its bounds") }
            scanned.append(header)
            at += header.frameLength
        case .needMore(let total):
            guard total == 0 || total > count - at else { fatalError("asks for what is there") }
            break scan
        case .fault: break scan
        }
    }

    // The decoder, in pieces whose sizes the input chooses: it must find the same frames.
    var decoder = FrameDecoder(limit: limit)
    var decoded = 0
    var fed = 0
    decode: while fed < count {
        let piece = min(count - fed, 1 + Int(bytes[fed] & 31))
        decoder.append(bytes[fed..<(fed + piece)])
        fed += piece
        while true {
            do throws(WireFault) {
                guard let frame = try decoder.next() else { break }
                guard decoded < scanned.count, frame.header == scanned[decoded] else { fatalError("decoder and scanner differ") }
                decoded += 1
            } catch { break decode }
        }
    }
    guard decoded == scanned.count else { fatalError("the decoder missed a frame") }

    // Bodies. What reads back must encode to the same bytes.
    if let hello = try? Hello(reading: bytes), hello.encoded != Array(bytes) { fatalError("HELLO does not round-trip") }
    if let welcome = try? Welcome(reading: bytes), welcome.features == 0, welcome.version == 1, welcome.encoded != Array(bytes) {
        fatalError("WELCOME does not round-trip")
    }
    if let list = try? MethodEntry.readList(bytes), MethodEntry.encoded(list) != Array(bytes) { fatalError("METHODS does not round-trip") }
    for flags in [FrameFlags.meta, FrameFlags.named, FrameFlags.meta | FrameFlags.named] {
        guard let layout = try? CallLayout(flags: flags, body: bytes) else { continue }
        guard layout.payload.upperBound == count, layout.payload.lowerBound <= count else { fatalError("a payload beyond the body") }
    }
    return 0
}
