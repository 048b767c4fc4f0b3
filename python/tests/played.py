"""A poold that is played by the test."""
import contextlib
import socket
import struct
import threading
import time

from poold import _wire

METHODS = [(1, 1, 0, "pool.echo"), (2, 0, 0, "pool.raw"), (3, 1, 0, "pool.hang")]


class Server:
    """Answers calls by their method: echo and raw give the body back, hang nothing, and `fail.STATUS` ends with that status. The first
    `deaf` connections are read no further than their HELLO; that is answered after `patience` seconds."""

    def __init__(self, path, greeting=None, deaf=0, patience=0.0):
        self.path, self.greeting, self.deaf, self.patience = path, greeting, deaf, patience
        self.calls, self.cancelled, self.pongs, self.connections = [], [], [], []
        self.threads = []
        self.changed = threading.Condition()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self._start(self._accept)

    def _start(self, function, *arguments):
        self.threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._start(self._serve, connection, len(self.connections) <= self.deaf)

    def _serve(self, connection, deaf):
        decoder = _wire.Decoder(1 << 26)
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            for frame in decoder.feed(data):
                with self.changed:
                    with contextlib.suppress(OSError):
                        self._answer(connection, frame)
                    self.changed.notify_all()
                if deaf:
                    return

    def _answer(self, connection, frame):
        kind, flags, code, number, _, _, body = frame
        if kind == _wire.HELLO:
            time.sleep(self.patience)
            welcome = struct.pack(">HHIII", 1, 64, 0, 1 << 20, 0) + _wire.methods(METHODS)
            connection.sendall(self.greeting or _wire.frame(_wire.WELCOME, welcome))
        elif kind == _wire.CANCEL:
            self.cancelled.append(number)
        elif kind == _wire.PONG:
            self.pongs.append(body)
        elif kind == _wire.CALL:
            name = {n: name for n, _, _, name in METHODS}.get(code)
            if flags & _wire.NAMED:
                name, body = body[1:1 + body[0]].decode(), body[1 + body[0]:]
            self.calls.append((name, frame))
            if name.startswith("fail."):
                status = _wire.STATUS_NUMBER[name[5:]]
                connection.sendall(_wire.frame(_wire.ERROR, b"first line\nthe rest", 1, status, number, 0, 1_500_000_000))
            elif name != "pool.hang":
                connection.sendall(_wire.frame(_wire.RESULT, body, 1, 0, number))

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 5)

    def close(self):
        # A thread left in accept() or recv() waits for what has the number of its descriptor next once the process was stopped and goes on.
        # The listener first: then no connection comes any more.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(5)
        for one in self.connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            if thread is not threading.current_thread():
                thread.join(5)
        for one in (self.listener, *self.connections):
            one.close()
