/// The 32 bytes in front of every body, in host byte order.
package struct Header: BitwiseCopyable, Sendable, Equatable {
    package static let size = 32
    /// `length` counts what follows it: the rest of the header, then the body.
    package static let lengthOfEmptyBody: UInt32 = 28

    package var length: UInt32
    package var type: UInt8
    package var flags: UInt8
    package var code: UInt16
    package var id: UInt64
    package var session: UInt64
    /// Nanoseconds; what it means depends on the type.
    package var time: UInt64

    @inlinable package init(
        _ type: FrameType, flags: UInt8 = 0, code: UInt16 = 0, id: UInt64 = 0, session: UInt64 = 0, time: UInt64 = 0, bodyLength: Int = 0
    ) {
        self.length = Self.lengthOfEmptyBody &+ UInt32(truncatingIfNeeded: bodyLength)
        self.type = type.rawValue
        self.flags = flags
        self.code = code
        self.id = id
        self.session = session
        self.time = time
    }

    /// Reads 32 bytes; nothing is checked.
    @inlinable package init(reading bytes: UnsafeRawPointer) {
        length = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
        type = bytes.load(fromByteOffset: 4, as: UInt8.self)
        flags = bytes.load(fromByteOffset: 5, as: UInt8.self)
        code = UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
        id = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        session = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
        time = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
    }

    /// Writes 32 bytes.
    @inlinable package func write(to bytes: UnsafeMutableRawPointer) {
        bytes.storeBytes(of: length.bigEndian, as: UInt32.self)
        bytes.storeBytes(of: type, toByteOffset: 4, as: UInt8.self)
        bytes.storeBytes(of: flags, toByteOffset: 5, as: UInt8.self)
        bytes.storeBytes(of: code.bigEndian, toByteOffset: 6, as: UInt16.self)
        bytes.storeBytes(of: id.bigEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: session.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.storeBytes(of: time.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    /// Bytes of the body; negative only if `length` is below 28, which the scanner refuses.
    @inlinable package var bodyLength: Int { Int(length) - Int(Self.lengthOfEmptyBody) }
    @inlinable package var frameLength: Int { Int(length) + 4 }
    @inlinable package var priority: UInt8 { flags >> FrameFlags.priorityShift }
}
