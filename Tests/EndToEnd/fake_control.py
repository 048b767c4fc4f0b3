"""A control socket that answers what a test wants, well or badly: shapes that a healthy poold does not show."""
import contextlib
import socket
import struct
import threading

from messages import MESSAGES, OPERATIONS, encode  # noqa: F401: tests take them from here

HEADER = struct.Struct(">IBBHQQQ")
CONTROL, ERROR = 14, 7


def full(message, /, **overrides):
    """A message with something in every field; `reserved` pools alone are not, since people are not shown those."""
    fields = {}
    for name, (_, kind, repeated) in MESSAGES[message].items():
        if kind.startswith("map"):
            value = {"one": "two words" if kind.endswith("string>") else 12}
        else:
            value = full(kind) if kind in MESSAGES else 0.75 if kind == "double" else f"some_{name}" if kind == "string" else 1 if kind == "bool" else 1_234_567
            value = [value] if repeated else value
        fields[name] = value
    fields.pop("reserved", None)
    return {**fields, **overrides}


class FakeControl:
    """answers: operation → message bytes, or ("error", status, text), "hang", "close", or raw bytes as ("raw", bytes)."""

    def __init__(self, path, answers):
        self.answers = {OPERATIONS[name]: answer for name, answer in answers.items()}
        self.asked = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.kept, self.threads = [], []
        self._start(self._accept)

    def _start(self, function, *arguments):
        self.threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.kept.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer):
        stream = peer.makefile("rb")
        while True:
            head = stream.read(HEADER.size)
            if len(head) < HEADER.size:
                return
            length, _, _, code, number, _, _ = HEADER.unpack(head)
            self.asked.append((code, stream.read(length - 28)))
            answer = self.answers.get(code, ("error", 11, f"operation {code} does not exist"))
            if callable(answer):
                answer = answer()
            if answer == "hang":
                continue
            if answer == "close":
                peer.shutdown(socket.SHUT_RDWR)
                return
            kind, status, body = CONTROL, code, answer
            if isinstance(answer, tuple) and answer[0] == "raw":
                peer.sendall(answer[1])
                continue
            if isinstance(answer, tuple):
                kind, status, body = ERROR, answer[1], answer[2].encode()
            peer.sendall(HEADER.pack(28 + len(body), kind, 1 if kind == ERROR else 0, status, number, 0, 0) + body)

    def close(self):
        # A thread left in accept() or read() waits for what has the number of its descriptor next once the process was stopped and goes on.
        # The listener first: then no connection comes any more.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(10)
        for one in self.kept:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join(10)
        for one in (self.listener, *self.kept):
            one.close()
