"""A FastCGI client that can also be wrong: records sent whole, in pieces or broken.

    with Connection(path) as connection:
        connection.send(request(variables(SCRIPT_NAME="/healthz")))
        assert connection.reply().status == 200
"""

import socket
import struct
import time

BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR = range(1, 8)
GET_VALUES = 9
RESPONDER, AUTHORIZER = 1, 2
KEEP_CONN = 1


class Closed(Exception):
    """The service closed the connection instead of an answer; got is what came before."""

    def __init__(self, got):
        super().__init__(f"closed after {len(got)} bytes")
        self.got = got


def record(kind, content=b"", request_id=1, padding=0, version=1):
    header = struct.pack(">BBHHBx", version, kind, request_id, len(content), padding)
    return header + content + bytes(padding)


def begin(role=RESPONDER, flags=KEEP_CONN, **options):
    return record(BEGIN_REQUEST, struct.pack(">HB5x", role, flags), **options)


def length(number):
    return bytes([number]) if number < 128 else struct.pack(">I", number | 1 << 31)


def pair(name, value):
    name, value = (text.encode() if isinstance(text, str) else text for text in (name, value))
    return length(len(name)) + length(len(value)) + name + value


def variables(**changes):
    """What a web server sends for GET /healthz, changed; None leaves a variable out."""
    names = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/healthz", "QUERY_STRING": "",
             "CONTENT_TYPE": "", "CONTENT_LENGTH": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    names.update(changes)
    return [(name, value) for name, value in names.items() if value is not None]


def stream(kind, content, size=65535, **options):
    """The records of one stream, with the empty one at its end."""
    parts = [content[at:at + size] for at in range(0, len(content), size)]
    return b"".join(record(kind, part, **options) for part in parts) + record(kind)


def request(pairs, body=b"", flags=KEEP_CONN, size=65535, padding=0):
    params = b"".join(pair(name, value) for name, value in pairs)
    return (begin(flags=flags) + stream(PARAMS, params, size, padding=padding) +
            stream(STDIN, body, size, padding=padding))


class Reply:
    def __init__(self, stdout, stderr, end):
        head, _, self.body = stdout.partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")]
        self.headers = [(name, value.strip()) for name, _, value in lines]
        self.status = int(self.header("Status").split()[0])
        self.stderr = stderr
        self.app_status, self.protocol_status = struct.unpack(">IB3x", end)

    def header(self, name):
        """The first header of that name, or None."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None


class Connection:
    """path: of a unix socket, or (host, port)."""

    def __init__(self, path, timeout_s=5):
        is_tcp = isinstance(path, tuple)
        self.socket = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self._connect(path if is_tcp else str(path), time.monotonic() + timeout_s)
        self._got = b""

    def _connect(self, path, deadline):
        """A unix socket with a timeout does not wait for room in the listener's queue by itself."""
        while True:
            try:
                return self.socket.connect(path)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def send(self, data):
        """Send; a service that closes meanwhile is no error here, reply() tells."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_slowly(self, data, pause_s=0):
        for at in range(len(data)):
            self.send(data[at:at + 1])
            if pause_s:
                time.sleep(pause_s)

    def _receive(self):
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def _read(self, size):
        while len(self._got) < size:
            more = self._receive()
            if not more:
                raise Closed(self._got)
            self._got += more
        data, self._got = self._got[:size], self._got[size:]
        return data

    def read_record(self):
        _, kind, request_id, size, padding = struct.unpack(">BBHHBx", self._read(8))
        return kind, request_id, self._read(size + padding)[:size]

    def reply(self):
        """The answer to one request. Closed when the connection ends before, TimeoutError when
        neither comes."""
        streams = {STDOUT: b"", STDERR: b""}
        while True:
            kind, _, content = self.read_record()
            if kind == END_REQUEST:
                return Reply(streams[STDOUT], streams[STDERR], content)
            streams[kind] += content

    def wait_closed(self):
        """Wait for the end; what came before it."""
        while more := self._receive():
            self._got += more
        return self._got

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


listeners = []  # are told of what was asked, and its Reply


def ask(path, pairs=None, body=b"", timeout_s=5):
    """One request on a connection of its own: its Reply."""
    pairs = variables() if pairs is None else pairs
    with Connection(path, timeout_s) as connection:
        connection.send(request(pairs, body, flags=0))
        reply = connection.reply()
    for tell in listeners:
        tell(pairs, reply)
    return reply
