/// Reads big-endian fields of a body; every read is checked.
package struct BodyReader {
    private let bytes: UnsafeRawBufferPointer
    private let type: FrameType
    package private(set) var offset = 0

    package init(_ bytes: UnsafeRawBufferPointer, type: FrameType) {
        self.bytes = bytes
        self.type = type
    }

    package mutating func integer<T: FixedWidthInteger>(_: T.Type = T.self) throws(WireFault) -> T {
        let width = MemoryLayout<T>.size
        guard bytes.count - offset >= width else { throw .badBody(type: type, offset: offset) }
        var value: T = 0
        for i in 0..<width { value = (width == 1 ? 0 : value << 8) | T(truncatingIfNeeded: bytes[offset + i]) }
        offset += width
        return value
    }

    /// A string with a length byte in front; invalid UTF-8 is an error.
    package mutating func shortString() throws(WireFault) -> String {
        let count = Int(try integer(UInt8.self))
        guard bytes.count - offset >= count else { throw .badBody(type: type, offset: offset) }
        let slice = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
        guard let text = String(validating: slice, as: UTF8.self) else { throw .badBody(type: type, offset: offset) }
        offset += count
        return text
    }

    package func end() throws(WireFault) {
        guard offset == bytes.count else { throw .badBody(type: type, offset: offset) }
    }
}

extension [UInt8] {
    package mutating func appendBigEndian<T: FixedWidthInteger>(_ value: T) {
        for i in 0..<MemoryLayout<T>.size { append(UInt8(truncatingIfNeeded: value >> T(8 * (MemoryLayout<T>.size - 1 - i)))) }
    }

    /// Cut to 255 bytes at a character.
    package mutating func appendShortString(_ text: String) {
        var bytes = Array(text.utf8)
        var kept = Substring(text)
        while bytes.count > 255 {
            kept = kept.dropLast()
            bytes = Array(kept.utf8)
        }
        append(UInt8(bytes.count))
        append(contentsOf: bytes)
    }

    package mutating func appendFrame(_ header: Header, body: [UInt8] = []) {
        var header = header
        header.length = Header.lengthOfEmptyBody + UInt32(body.count)
        let start = count
        append(contentsOf: repeatElement(0, count: Header.size))
        withUnsafeMutableBytes { header.write(to: $0.baseAddress! + start) }
        append(contentsOf: body)
    }
}

/// HELLO's body.
package struct Hello: Equatable, Sendable {
    package var lowestVersion: UInt16
    package var highestVersion: UInt16
    package var features: UInt32
    package var name: String

    package init(lowestVersion: UInt16 = 1, highestVersion: UInt16 = 1, features: UInt32 = 0, name: String) {
        self.lowestVersion = lowestVersion
        self.highestVersion = highestVersion
        self.features = features
        self.name = name
    }

    package init(reading bytes: UnsafeRawBufferPointer) throws(WireFault) {
        var reader = BodyReader(bytes, type: .hello)
        lowestVersion = try reader.integer()
        highestVersion = try reader.integer()
        features = try reader.integer()
        name = try reader.shortString()
        try reader.end()
        guard lowestVersion <= highestVersion else { throw .badBody(type: .hello, offset: 0) }
    }

    package var encoded: [UInt8] {
        var body: [UInt8] = []
        body.appendBigEndian(lowestVersion)
        body.appendBigEndian(highestVersion)
        body.appendBigEndian(features)
        body.appendShortString(name)
        return body
    }
}

/// One line of a method list.
package struct MethodEntry: Equatable, Sendable {
    package static let withdrawn: UInt8 = 1
    package static let idempotent: UInt8 = 2
    package var number: UInt16
    package var codec: Codec
    package var flags: UInt8
    package var name: String

    package init(number: UInt16, codec: Codec, flags: UInt8 = 0, name: String) {
        self.number = number
        self.codec = codec
        self.flags = flags
        self.name = name
    }

    package static func readList(_ reader: inout BodyReader, type: FrameType) throws(WireFault) -> [MethodEntry] {
        let count = try reader.integer(UInt16.self)
        var list: [MethodEntry] = []
        for _ in 0..<count {
            let offset = reader.offset
            let number = try reader.integer(UInt16.self)
            let codec = try reader.integer(UInt8.self)
            let flags = try reader.integer(UInt8.self)
            let name = try reader.shortString()
            guard let codec = Codec(rawValue: codec), number > 0, flags & ~3 == 0, !name.isEmpty else { throw .badBody(type: type, offset: offset) }
            list.append(MethodEntry(number: number, codec: codec, flags: flags, name: name))
        }
        return list
    }

    package static func readList(_ bytes: UnsafeRawBufferPointer) throws(WireFault) -> [MethodEntry] {
        var reader = BodyReader(bytes, type: .methods)
        let list = try readList(&reader, type: .methods)
        try reader.end()
        return list
    }

    package static func encoded(_ list: [MethodEntry]) -> [UInt8] {
        var body: [UInt8] = []
        body.appendBigEndian(UInt16(list.count))
        for entry in list {
            body.appendBigEndian(entry.number)
            body.append(entry.codec.rawValue)
            body.append(entry.flags)
            body.appendShortString(entry.name)
        }
        return body
    }
}

/// WELCOME's body.
package struct Welcome: Equatable, Sendable {
    package var version: UInt16 = 1
    /// Calls that may be in flight on this connection.
    package var calls: UInt16
    package var features: UInt32 = 0
    /// Largest body in bytes.
    package var largestBody: UInt32
    package var methods: [MethodEntry]

    package init(calls: UInt16, largestBody: UInt32, methods: [MethodEntry]) {
        self.calls = calls
        self.largestBody = largestBody
        self.methods = methods
    }

    package init(reading bytes: UnsafeRawBufferPointer) throws(WireFault) {
        var reader = BodyReader(bytes, type: .welcome)
        version = try reader.integer()
        calls = try reader.integer()
        features = try reader.integer()
        largestBody = try reader.integer()
        guard try reader.integer(UInt32.self) == 0 else { throw .badBody(type: .welcome, offset: 12) }
        methods = try MethodEntry.readList(&reader, type: .welcome)
        try reader.end()
    }

    package var encoded: [UInt8] {
        var body: [UInt8] = []
        body.appendBigEndian(version)
        body.appendBigEndian(calls)
        body.appendBigEndian(features)
        body.appendBigEndian(largestBody)
        body.appendBigEndian(UInt32(0))
        return body + MethodEntry.encoded(methods)
    }
}

/// Where the parts of a CALL's body lie, in bytes from its start.
package struct CallLayout: Equatable, Sendable {
    /// META with its length field, or empty.
    package var meta: Range<Int>
    /// The name without its length byte, or empty.
    package var name: Range<Int>
    package var payload: Range<Int>

    @inlinable package init(flags: UInt8, body: UnsafeRawBufferPointer) throws(WireFault) {
        var at = 0
        meta = 0..<0
        name = 0..<0
        if flags & FrameFlags.meta != 0 {
            guard body.count >= 4 else { throw .badBody(type: .call, offset: 0) }
            let length = Int(UInt32(bigEndian: body.loadUnaligned(as: UInt32.self)))
            guard length <= body.count - 4 else { throw .badBody(type: .call, offset: 0) }
            at = 4 + length
            meta = 0..<at
        }
        if flags & FrameFlags.named != 0 {
            guard body.count > at, body.count - at - 1 >= Int(body[at]) else { throw .badBody(type: .call, offset: at) }
            name = (at + 1)..<(at + 1 + Int(body[at]))
            at = name.upperBound
        }
        payload = at..<body.count
    }
}
