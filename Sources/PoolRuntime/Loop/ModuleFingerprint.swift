import Glibc

/// Tells whether a module's file is still the one that was imported: size, inode and time of change. A dotted module has no file
/// that poold could know; `poolctl recycle` starts its workers anew.
struct ModuleFingerprint: Equatable, Sendable {
    private var size: Int = -1
    private var inode: UInt = 0
    private var seconds: Int = 0
    private var nanoseconds: Int = 0

    init() {}

    init(module: String) {
        var status = stat()
        guard module.hasSuffix(".py"), stat(module, &status) == 0 else { return }
        size = Int(status.st_size)
        inode = UInt(status.st_ino)
        seconds = status.st_mtim.tv_sec
        nanoseconds = status.st_mtim.tv_nsec
    }

    /// Whether there was a file to look at.
    var isKnown: Bool { size >= 0 }
}
