"""The floor's worker: answers poold's CALL frames and nothing more. `floor_worker.py` under floor_relay (fd 3), or
`floor_worker.py SOCKET` to be called directly, one connection at a time."""
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.modules["poold"] = type(sys)("poold")
sys.modules["poold"].worker = type("worker", (), {"method": staticmethod(lambda codec=None: lambda function: function)})
from bench_worker import handle  # noqa: E402

HEADER = struct.Struct(">IBBHQQQ")


def serve(sock):
    data = b""
    while True:
        more = sock.recv(65536)
        if not more:
            return
        data = data + more if data else more
        at = 0
        while len(data) - at >= 32:
            length, _, _, _, id, session, _ = HEADER.unpack_from(data, at)
            end = at + 4 + length
            if end > len(data):
                break
            body = handle(data[at + 32:end])
            sock.sendall(HEADER.pack(28 + len(body), 5, 1, 0, id, session, 0) + body)
            at = end
        data = data[at:]


if len(sys.argv) > 1:
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    listener.bind(sys.argv[1])
    listener.listen(16)
    while True:
        connection, _ = listener.accept()
        try:
            serve(connection)
        except ConnectionError:
            pass
else:
    serve(socket.socket(fileno=3))
