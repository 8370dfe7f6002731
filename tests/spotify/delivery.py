"""How an answer is made, spoilt and sent. Sound answers go through aiohttp; the others are written
to the connection byte by byte, because a proper library refuses to send them."""

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from email.utils import formatdate

from aiohttp import web

JSON = "application/json"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

REASONS = {
    200: "OK", 103: "Early Hints", 302: "Found", 307: "Temporary Redirect", 400: "Bad Request",
    429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable",
}
PLAIN_TEXTS = {
    502: "Bad gateway.",
    503: "upstream connect error or disconnect/reset before headers."
    " reset reason: connection termination",
}
RETRY_DATE_S = 30
RETRY_HUGE = "9999999999999999999999"
NESTING = 100000
PIECES = 20
MARK = "\ufdd0poison\ufdd1"
POISONS = {
    "nul": b"\\u0000", "raw_nul": b"\0", "invalid_utf8": b"\xc3\x28\xff",
    "control": b"\\u0007\\u001b", "raw_control": b"\x01\x1b", "newline": b"\\r\\nX-Injected: 1",
    "lone_surrogate": b"\\ud800", "unicode": "é€🎵".encode(), "quote": b"\\\"<'&>",
}


@dataclass
class Answer:
    """`body` is bytes, or a dict that becomes JSON."""

    status: int
    body: object = b""
    content_type: str = JSON
    headers: dict = field(default_factory=dict)


class Hanging:
    """Requests that wait until they are released or their client goes away."""

    LOOK_S = 0.05

    def __init__(self):
        self._waiting = {}
        self._watcher = None

    def __len__(self):
        return len(self._waiting)

    async def wait(self, request):
        """True when released, False when the connection ended first."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = request
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._watch())
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    def release(self):
        waiting = [future for future in self._waiting if not future.done()]
        for future in waiting:
            future.set_result(True)
        return len(waiting)

    async def _watch(self):
        while self._waiting:
            await asyncio.sleep(self.LOOK_S)
            for future, request in list(self._waiting.items()):
                if gone(request) and not future.done():
                    future.set_result(False)


class Ended(Exception):
    """The connection is over; `how` goes into the log."""

    def __init__(self, how):
        super().__init__(how)
        self.how = how


def gone(request):
    return request.transport is None or request.transport.is_closing()


async def interrupt(stage, request, behaviours, hanging):
    """Hangs, resets or closes here, if that is switched on for this stage. Raises Ended."""
    if behaviours.hang == stage and not await hanging.wait(request):
        raise Ended("gone")
    if stage in (behaviours.reset, behaviours.early_close) and gone(request):
        raise Ended("gone")
    if behaviours.reset == stage:
        reset(request.transport)
        raise Ended("reset")
    if behaviours.early_close == stage:
        request.transport.close()
        raise Ended("closed")


def reset(transport):
    """Lingering for no time makes the kernel send RST instead of FIN."""
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()


def status_answer(behaviours):
    """The answer that the behaviour `status` asks for."""
    status = behaviours.status
    kind = behaviours.status_body
    if kind == "default":
        kind = {429: "json", 500: "html"}.get(status, "empty" if status < 400 else "text")
    text = PLAIN_TEXTS.get(status, f"Simulated {status}")
    if kind == "json":
        answer = Answer(status, {"error": {"status": status, "message": text}})
    elif kind == "html":
        answer = Answer(status, f"<html><body><h1>{text}</h1></body></html>".encode(), HTML)
    else:
        answer = Answer(status, text.encode() if kind == "text" else b"", TEXT)
    if 300 <= status < 400:
        answer.headers["Location"] = behaviours.location or "/elsewhere"
    return answer


def retry_after(value):
    if value == "date":
        return formatdate(time.time() + RETRY_DATE_S, usegmt=True)
    return RETRY_HUGE if value == "huge" else str(value)


def encode(fields):
    return json.dumps(fields, separators=(",", ":")).encode()


def finish(answer, behaviours, poison_field):
    """Lays the behaviours of header and body over the answer; the body is bytes afterwards."""
    if behaviours.retry_after is not None:
        answer.headers["Retry-After"] = retry_after(behaviours.retry_after)
    if behaviours.header_size:
        answer.headers["X-Padding"] = "x" * behaviours.header_size
    if behaviours.connection_close:
        answer.headers["Connection"] = "close"
    for name, value in (behaviours.extra_headers or {}).items():
        answer.headers[name] = str(value)
    if isinstance(answer.body, dict):
        answer.body = spoilt_json(answer.body, behaviours, poison_field)
    if len(answer.body) < behaviours.body_size:
        answer.body += b" " * (behaviours.body_size - len(answer.body))
    answer.content_type = behaviours.content_type or answer.content_type


def spoilt_json(fields, behaviours, poison_field):
    fields = {**fields, **(behaviours.extra_fields or {})}
    if behaviours.poison:
        name = behaviours.poison_field or poison_field
        value = str(fields.get(name) or "")
        fields[name] = value[: len(value) // 2] + MARK + value[len(value) // 2 :]
    body = encode(fields)
    if behaviours.body_size > len(body):
        filled = {**fields, "padding": ""}
        fields["padding"] = "x" * max(0, behaviours.body_size - len(encode(filled)))
        body = encode(fields)
    if behaviours.poison:
        body = body.replace(json.dumps(MARK)[1:-1].encode(), POISONS[behaviours.poison])
    return shaped(body, fields, behaviours.json_shape)


def shaped(body, fields, shape):
    if shape == "duplicate_keys":
        again = encode({name: "the-second-one" for name in list(fields)[:1]})
        return body[:-1] + b"," + again[1:]
    if shape == "deep_nesting":
        return body[:-1] + b',"deep":' + b"[" * NESTING + b"]" * NESTING + b"}"
    if shape == "bom":
        return b"\xef\xbb\xbf" + body
    return {
        None: body,
        "truncated": body[: len(body) // 2],
        "trailing_garbage": body + b"}garbage",
        "array": b"[" + body + b"]",
        "string": json.dumps(body.decode(errors="replace")).encode(),
        "null": b"null",
        "number": b"42",
        "empty": b"",
        "not_json": b"access_token=this-is-not-json&token_type=Bearer",
        "html": b"<!doctype html><html><body>Service unavailable</body></html>",
    }[shape]


def response(answer):
    headers = answer.headers
    headers["Content-Type"] = answer.content_type
    body = encode(answer.body) if isinstance(answer.body, dict) else answer.body
    return web.Response(status=answer.status, body=body, headers=headers)


def needs_raw(behaviours):
    late = ("headers", "body")
    return (
        behaviours.slow_headers or behaviours.slow_body or behaviours.chunked
        or behaviours.content_length is not None or behaviours.garbage or behaviours.interim
        or behaviours.hang in late or behaviours.reset in late or behaviours.early_close in late
    )


async def send(request, answer, behaviours, hanging):
    """Sends a finished answer as the behaviours say. Raises Ended when that ends the connection
    before the answer is whole; after a raw answer the connection is closed, too."""
    if not needs_raw(behaviours):
        return response(answer)
    if behaviours.garbage:
        await write(request, b"\x16\x03\x01 this is not HTTP\r\n\r\n" + bytes(range(256)), 0)
    else:
        head, body = raw_answer(answer, behaviours, request.method == "HEAD")
        await write_part("headers", request, head, behaviours.slow_headers, behaviours, hanging)
        await write_part("body", request, body, behaviours.slow_body, behaviours, hanging)
    if gone(request):
        raise Ended("gone")
    request.transport.close()
    return web.Response(status=answer.status)


def raw_answer(answer, behaviours, no_body):
    body = b"" if no_body else answer.body
    headers = {**answer.headers, "Content-Type": answer.content_type, "Connection": "close"}
    if behaviours.chunked:
        size = max(7, len(body) // 1000)
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        headers["Transfer-Encoding"] = "chunked"
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if not behaviours.chunked or behaviours.content_length is not None:
        lines += content_length(behaviours.content_length, len(answer.body))
    reason = REASONS.get(answer.status, "Simulated")
    interim = "HTTP/1.1 103 Early Hints\r\nLink: </nothing>\r\n\r\n" if behaviours.interim else ""
    head = "\r\n".join([f"HTTP/1.1 {answer.status} {reason}", *lines, "", ""])
    return (interim + head).encode("latin-1", "replace"), body


def content_length(kind, right):
    values = {
        None: [right], "short": [right // 2], "long": [right + 100], "missing": [],
        "negative": [-1], "text": ["many"], "two": [right, right + 1],
    }
    return [f"Content-Length: {value}" for value in values.get(kind, [kind])]


async def write_part(name, request, data, over_s, behaviours, hanging):
    if name in (behaviours.hang, behaviours.reset, behaviours.early_close):
        half = len(data) // 2
        await write(request, data[:half], over_s)
        await interrupt(name, request, behaviours, hanging)
        data = data[half:]
    await write(request, data, over_s)


async def write(request, data, over_s):
    """Writes the data, in pieces over `over_s` seconds if that is not 0. Raises Ended."""
    size = max(1, len(data) // PIECES + 1) if over_s else 1 << 16
    pause = over_s / max(1, -(-len(data) // size)) if over_s else 0
    for at in range(0, len(data), size):
        if gone(request):
            raise Ended("gone")
        request.transport.write(data[at : at + size])
        if pause:
            await asyncio.sleep(pause)
        while not gone(request) and request.transport.get_write_buffer_size() > 1 << 20:
            await asyncio.sleep(0.01)
