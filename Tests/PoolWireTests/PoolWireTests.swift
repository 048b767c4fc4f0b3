import Foundation
import Testing

@testable import PoolWire

struct Vectors: Decodable {
    struct Fields: Decodable {
        var type: UInt8
        var flags: UInt8
        var code: UInt16
        var id: String
        var session: String
        var time: String
        var body: String
    }
    struct Frame: Decodable {
        var name: String
        var hex: String
        var frame: Fields?
        var fault: String?
        var limit: Int?
    }
    struct Body: Decodable {
        var type: String
        var name: String
        var hex: String
        var valid: Bool
    }
    var frames: [Frame]
    var bodies: [Body]

    static let all: Vectors = {
        let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../proto/vectors/version1.json")
        return try! JSONDecoder().decode(Vectors.self, from: Data(contentsOf: path))
    }()
}

func bytes(_ hex: String) -> [UInt8] {
    var result: [UInt8] = []
    var rest = Substring(hex)
    while rest.count >= 2 {
        result.append(UInt8(rest.prefix(2), radix: 16)!)
        rest = rest.dropFirst(2)
    }
    return result
}

func name(_ fault: WireFault) -> String {
    switch fault {
    case .shortLength: return "shortLength"
    case .tooLarge: return "tooLarge"
    case .unknownType: return "unknownType"
    case .badFlags: return "badFlags"
    case .badPriority: return "badPriority"
    case .badBody: return "badBody"
    }
}

@Suite struct GoldenBytes {
    @Test func framesDecodeAndEncodeAsWritten() throws {
        for vector in Vectors.all.frames {
            guard let fields = vector.frame else { continue }
            var decoder = FrameDecoder(limit: 1 << 20)
            decoder.append(bytes(vector.hex))
            let decoded = try decoder.next()
            let frame = try #require(decoded, "\(vector.name)")
            #expect(frame.header.type == fields.type && frame.header.flags == fields.flags && frame.header.code == fields.code, "\(vector.name)")
            #expect(
                String(frame.header.id) == fields.id && String(frame.header.session) == fields.session && String(frame.header.time) == fields.time,
                "\(vector.name)")
            #expect(frame.body == bytes(fields.body), "\(vector.name)")
            var again: [UInt8] = []
            again.appendFrame(frame.header, body: frame.body)
            #expect(again == bytes(vector.hex), "\(vector.name)")
        }
    }

    @Test func faultsAreNamed() throws {
        for vector in Vectors.all.frames {
            guard let fault = vector.fault else { continue }
            var decoder = FrameDecoder(limit: vector.limit ?? 1024)
            decoder.append(bytes(vector.hex))
            do throws(WireFault) {
                _ = try decoder.next()
                Issue.record("\(vector.name) was taken")
            } catch {
                #expect(name(error) == fault, "\(vector.name)")
                #expect(!error.text.isEmpty)
            }
        }
    }

    @Test func bodiesAreCheckedToTheLastByte() {
        for vector in Vectors.all.bodies {
            let raw = bytes(vector.hex)
            let encoded = raw.withUnsafeBytes { body -> [UInt8]? in
                switch vector.type {
                case "hello": return (try? Hello(reading: body))?.encoded
                case "welcome": return (try? Welcome(reading: body))?.encoded
                case "methods": return (try? MethodEntry.readList(body)).map { MethodEntry.encoded($0) }
                default: return nil
                }
            }
            #expect((encoded != nil) == vector.valid, "\(vector.type): \(vector.name)")
            if let encoded { #expect(encoded == raw, "\(vector.type): \(vector.name)") }
        }
    }
}

@Suite struct Decoding {
    @Test func anySplitGivesTheSameFrames() throws {
        var stream: [UInt8] = []
        var expected = 0
        for vector in Vectors.all.frames where vector.frame != nil {
            stream += bytes(vector.hex)
            expected += 1
        }
        for piece in [1, 2, 3, 31, 32, 33, 127, stream.count] {
            var decoder = FrameDecoder(limit: 1 << 20)
            var found = 0
            var at = 0
            while at < stream.count {
                decoder.append(stream[at..<min(at + piece, stream.count)])
                at += piece
                while try decoder.next() != nil { found += 1 }
            }
            #expect(found == expected, "pieces of \(piece)")
        }
    }

    @Test func truncationIsNeverAFrame() throws {
        for vector in Vectors.all.frames where vector.frame != nil {
            let whole = bytes(vector.hex)
            for cut in 0..<whole.count {
                var decoder = FrameDecoder(limit: 1 << 20)
                decoder.append(whole[0..<cut])
                let frame = try decoder.next()
                #expect(frame == nil, "\(vector.name) cut at \(cut)")
            }
        }
    }

    @Test func limitIsExact() throws {
        var frame: [UInt8] = []
        frame.appendFrame(Header(.ping), body: [UInt8](repeating: 1, count: 100))
        var exact = FrameDecoder(limit: 100)
        exact.append(frame)
        #expect(try exact.next()?.body.count == 100)
        var below = FrameDecoder(limit: 99)
        below.append(frame)
        #expect(throws: WireFault.tooLarge(body: 100, limit: 99)) { try below.next() }
    }

    @Test func namesAreCutAtACharacter() {
        var body: [UInt8] = []
        body.appendShortString(String(repeating: "ä", count: 200))
        #expect(body.count == 255 && body[0] == 254)
        #expect(String(validating: body.dropFirst(), as: UTF8.self) != nil)
    }
}
