"""A way to Redis or to Spotify that can be broken, and that sees what passes.

A Proxy takes connections of workers on a unix socket or a loopback port and leads each to the real server. Whole
messages (messages.py) are shown to the Record of what happened, and to the rules: a rule names a step and what is to
be done there. An action is a coroutine that gets the Event and returns the bytes to pass on, or None to end the
connection; until it returns, nothing passes in that direction of this connection."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

# What a server has been sent is still done, and seen, when the worker that sent it is gone.
LAST_ANSWERS_S = 10
CHUNK = 1 << 16
UCRED = struct.Struct("3i")


@dataclass
class Rule:
    step: str
    action: object
    left: int


@dataclass
class Event:
    message: object
    data: bytes
    connection: object

    @property
    def pid(self):
        return self.message.facts.get("pid", self.connection.pid)

    @property
    def record(self):
        return self.connection.proxy.record


class Way:
    """One direction of a connection. What arrives is looked at at once, also while an action holds up what passes."""

    def __init__(self, connection, reader, writer, split):
        self.connection, self.record = connection, connection.proxy.record
        self.reader, self.writer, self.split = reader, writer, split
        self._out = asyncio.Queue()  # (bytes, messages in them, None, b""), (b"", [message], its rule, its bytes), None

    async def run(self):
        passing = asyncio.ensure_future(self._pass_on())
        try:
            await self._look()
            if self.reader is self.connection.reader:
                self.connection.worker_left = True
            self._out.put_nowait(None)
            await passing
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)

    async def _look(self):
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(CHUNK):
                data, at, begun, met = rest + data, 0, 0, []
                while at < len(data) and (found := self.split(data, at)) is not None:
                    message, end = found
                    if message.step is not None:
                        rule = self.record.see(self.connection, message)
                        if rule is not None:
                            self._out.put_nowait((data[begun:at], met, None, b""))
                            self._out.put_nowait((b"", [message], rule, data[at:end]))
                            begun, met = end, []
                        else:
                            met.append(message)
                    at = end
                self._out.put_nowait((data[begun:at], met, None, b""))
                rest = data[at:]
                if self.connection.worker_left and not self.connection.protocol.pending:
                    return
        # An answer without a length ends with its connection.
        self._out.put_nowait((rest, [], None, b""))

    async def _pass_on(self):
        while (item := await self._out.get()) is not None:
            data, messages, rule, held = item
            if rule is not None:
                data = await self._act(rule, messages[0], held)
            if data and not self.writer.is_closing():
                self.writer.write(data)
            if rule is not None and data != held:
                return  # what is not whole is followed by silence
            for message in messages:
                self.record.passed(self.connection, message)

    async def _act(self, rule, message, held):
        out = await rule.action(Event(message, held, self.connection))
        if out is None:
            self.connection.close()
        elif message.step == "R4 before" and self.connection.worker_left:
            return None  # a call that its worker gave up before it was sent
        return out


class Connection:
    def __init__(self, proxy, reader, writer):
        self.proxy = proxy
        self.reader, self.writer = reader, writer
        self.server_writer = None
        self.protocol = proxy.protocol()
        self.pid = proxy.find_peer(writer)
        self.worker_left = False
        self.last_call = None  # the Record's

    async def serve(self):
        server_reader, self.server_writer = await self.proxy.connect()
        asks = asyncio.ensure_future(Way(self, self.reader, self.server_writer, self.protocol.asked).run())
        answers = asyncio.ensure_future(Way(self, server_reader, self.writer, self.protocol.answered).run())
        try:
            await asyncio.wait([asks, answers], return_when=asyncio.FIRST_COMPLETED)
            self.proxy.record.ended(self)
            if asks.done() and self.protocol.pending and not self.server_writer.is_closing():
                await asyncio.wait([answers], timeout=LAST_ANSWERS_S)
        finally:
            for task in (asks, answers):
                task.cancel()
            ends = await asyncio.gather(asks, answers, return_exceptions=True)
            self.proxy.record.violations += [f"the proxy failed: {end!r}" for end in ends if isinstance(end, Exception)]
            self.close()
            self.server_writer.transport.abort()

    def close(self):
        """For the worker it is over. What the server has been sent is still done, and its answers are seen."""
        self.writer.transport.abort()


class Proxy:
    """target: the path of a unix socket, or (host, port); so is `address`, where workers come to."""

    def __init__(self, record, protocol, target):
        self.record, self.protocol, self.target = record, protocol, target
        self.address = None
        self.connections = set()
        self.is_away = False
        self._server = None

    async def start(self, path=None):
        if path is not None:
            self._server = await asyncio.start_unix_server(self._accept, path, limit=CHUNK, backlog=1024)
            self.address = path
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK, backlog=1024)
            self.address = self._server.sockets[0].getsockname()

    async def stop(self):
        self._server.close()
        self.cut()

    async def connect(self):
        if isinstance(self.target, tuple):
            return await asyncio.open_connection(*self.target, limit=CHUNK)
        return await asyncio.open_unix_connection(self.target, limit=CHUNK)

    def find_peer(self, writer):
        """The worker's pid; None on a port, where only what is asked tells who asks."""
        peer = writer.get_extra_info("socket")
        if peer.family != socket.AF_UNIX:
            return None
        return UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0]

    async def _accept(self, reader, writer):
        if self.is_away:
            writer.transport.abort()
            return
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            with contextlib.suppress(OSError):
                await connection.serve()
        finally:
            connection.close()
            self.connections.discard(connection)
            self.record.ended(connection)

    def cut(self):
        for connection in list(self.connections):
            connection.close()

    async def away(self, seconds):
        """Cut, and let nobody in for so long."""
        self.is_away = True
        self.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.is_away = False
