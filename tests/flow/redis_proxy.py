"""A unix socket before Redis, through which everything passes, until a test says what is answered instead.

    proxy.reply = b"-LOADING Redis is loading the dataset in memory\\r\\n"   # to every command but AUTH
    proxy.delay_s = 0.8                                                    # holds every real answer back
    proxy.script = "return 7"                                              # what Redis runs for every script
"""

import contextlib
import socket
import threading
import time


def take_command(data):
    """(its name, the rest) of the first whole command in data; (None, data) when there is none."""
    end = data.find(b"\r\n")
    if end < 0:
        return None, data
    at, name = end + 2, None
    for _ in range(int(data[1:end])):
        end = data.find(b"\r\n", at)
        if end < 0:
            return None, data
        begin = end + 2
        at = begin + int(data[at + 1:end]) + 2
        if at > len(data):
            return None, data
        name = name or data[begin:at - 2]
    return name, data[at:]


class RedisProxy:
    def __init__(self, path, target):
        self.path, self.target = str(path), str(target)
        self.reply = None        # bytes instead of Redis' answer
        self.hang_up = False     # close after that
        self.delay_s = 0
        self.script = None
        self.held = 0            # answers that are held back
        self.refusing = False    # close new connections at once
        self.accepted = []       # when connections came, and from which process
        self.open = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def end_all(self, refuse=True):
        """Close every connection; new ones, too, until refusing is False."""
        self.refusing = refuse
        for near in list(self.open):
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                pid = int.from_bytes(near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")
                self.accepted.append((time.monotonic(), pid))
                if self.refusing:
                    near.close()
                else:
                    self.open.add(near)
                    threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        try:
            self._pass_on(near)
        finally:
            self.open.discard(near)

    def _pass_on(self, near):
        far = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), near, far:
            far.connect(self.target)
            threading.Thread(target=self._answer, args=(far, near), daemon=True).start()
            held = b""
            while data := near.recv(65536):
                held += data
                name, rest = take_command(held)
                while name:
                    self._take(name, held[:len(held) - len(rest)], near, far)
                    held = rest
                    name, rest = take_command(held)
                if self.hang_up:
                    return

    def _take(self, name, command, near, far):
        if self.reply is not None:
            near.sendall(b"+OK\r\n" if name == b"AUTH" else self.reply)
        elif self.script is not None and name in (b"EVAL", b"EVALSHA"):
            script = self.script.encode()
            far.sendall(b"*3\r\n$4\r\nEVAL\r\n$%d\r\n%s\r\n$1\r\n0\r\n" % (len(script), script))
        else:
            far.sendall(command)

    def _answer(self, far, near):
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                self.held += 1
                time.sleep(self.delay_s)
                self.held -= 1
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)


class RedisTap:
    """A unix socket before Redis that shows what passes: on_command(bytes) on its way there, on_answer(bytes) back."""

    def __init__(self, redis, path):
        self.redis, self.path = redis, path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def on_command(self, data):
        pass

    def on_answer(self, data):
        pass

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self.redis.socket_path))
                for ends in ((near, far, self.on_command), (far, near, self.on_answer)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source, target, look):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                look(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
