"""Bytes to whole messages, and messages to the steps of a renewal (R1 to R6 of cgi/flows/renewal.h).

Each kind of connection is a class with two methods: asked() splits what the worker sends, answered() what it gets. Both
take bytes from `at` on and give (Message, where it ends), or None while it is not whole. A message knows the step that
it is, if any: "R1 before" is the question on its way, "R1 after" the answer. The one look-up that is both R2 and R3 has
the name "R2" as a question and "R3" as an answer; a waiter's look is R6."""

import base64
import contextlib
import hashlib
import json
import re
import urllib.parse
from collections import deque
from dataclasses import dataclass, field

STEPS = ("R1 before", "R1 after", "R2 before", "R3 after", "R4 before", "R4 after", "R5 before", "R5 after",
         "R6 before", "R6 after")

# Words in the source of each script that no other one has; Redis knows a script by the SHA-1 of its source.
SCRIPT_WORDS = {b"{'held', holder}": "take", b"is_mark": "commit"}


@dataclass
class Message:
    step: str | None = None
    session: str | None = None  # as Redis's keys name it
    token: str | None = None  # R4: the refresh token that is sent
    facts: dict = field(default_factory=dict)


# Redis


def resp(data, at):
    """(value, end) of one RESP2 value: bytes, int, None or a list; an error is its bytes after "-"."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    kind, text, end = data[at], data[at + 1:line_end], line_end + 2
    if kind == 0x24:  # $
        size = int(text)
        if size < 0:
            return None, end
        if len(data) < end + size + 2:
            return None
        return data[end:end + size], end + size + 2
    if kind == 0x2A:  # *
        items = []
        for _ in range(max(0, int(text))):
            item = resp(data, end)
            if item is None:
                return None
            items.append(item[0])
            end = item[1]
        return items, end
    return (int(text) if kind == 0x3A else data[at:line_end] if kind == 0x2D else text), end


class RedisConnection:
    scripts = {}  # SHA-1: name, learnt from what passes, by all connections

    def __init__(self):
        self.pending = deque()  # questions without an answer yet

    def asked(self, data, at):
        found = resp(data, at)
        if found is None:
            return None
        message = self._read(found[0])
        self.pending.append(message)
        return message, found[1]

    def _read(self, words):
        command = words[0].upper()
        if command == b"GET" and b"session:{" in words[1]:
            return Message("R1 before", session_of(words[1]))
        if command in (b"EVAL", b"EVALSHA"):
            return self._read_script(command, words)
        return Message()

    def _read_script(self, command, words):
        sha = words[1] if command == b"EVALSHA" else hashlib.sha1(words[1]).hexdigest().encode()
        if command == b"EVAL" and sha not in self.scripts:
            self.scripts[sha] = next((name for word, name in SCRIPT_WORDS.items() if word in words[1]), None)
        name = self.scripts.get(sha)
        if name == "take":
            waited_for = words[9]
            return Message("R6 before" if waited_for else "R2 before", session_of(words[3]))
        if name == "commit":
            expected, value = words[7], words[8]
            # A value of the same generation is a mark on the old tokens (API.md 4.6), not R5.
            step = "R5 before" if value[:8] != expected else None
            return Message(step, session_of(words[3]), facts={"generation": int.from_bytes(value[:8], "big")})
        return Message()

    def answered(self, data, at):
        found = resp(data, at)
        if found is None:
            return None
        value, end = found
        asked = self.pending.popleft() if self.pending else Message()
        word = value[0] if isinstance(value, list) and value else b""
        step = {"R1 before": "R1 after", "R2 before": "R3 after" if word == b"taken" else None,
                "R5 before": "R5 after", "R6 before": "R6 after"}.get(asked.step)
        return Message(step, asked.session, facts={**asked.facts, "word": word}), end


def session_of(key):
    return key[key.index(b"{") + 1:-1].decode()


def session_name(cookie_value):
    """The name of a session in Redis's keys: a hash of the secret in its cookie (cgi/base/seal.c)."""
    secret = base64.urlsafe_b64decode(cookie_value + "=")
    name = hashlib.blake2b(b"session\0" + secret, digest_size=32).digest()
    return base64.urlsafe_b64encode(name).decode().rstrip("=")


# Spotify


def http(data, at):
    """(head, body, end) of an HTTP/1.1 message with a Content-Length."""
    head_end = data.find(b"\r\n\r\n", at)
    if head_end < 0:
        return None
    head, end = data[at:head_end], head_end + 4
    size = re.search(rb"(?i)^content-length:\s*(\d+)", head, re.M)
    end += int(size[1]) if size else 0
    return (head, data[head_end + 4:end], end) if len(data) >= end else None


class SpotifyConnection:
    def __init__(self):
        self.pending = deque()

    def asked(self, data, at):
        found = http(data, at)
        if found is None:
            return None
        head, body, end = found
        message = Message()
        if head.startswith(b"POST /api/token "):
            token = dict(urllib.parse.parse_qsl(body.decode())).get("refresh_token")
            message = Message("R4 before" if token else None, token=token)
        self.pending.append(message)
        return message, end

    def answered(self, data, at):
        found = http(data, at)
        if found is None:
            return None
        head, body, end = found
        asked = self.pending.popleft() if self.pending else Message()
        facts = {**asked.facts, "status": int(head[9:12])}
        if asked.token and facts["status"] == 200:
            with contextlib.suppress(ValueError, AttributeError):
                facts["new_token"] = json.loads(body).get("refresh_token") or asked.token
        return Message("R4 after" if asked.step else None, token=asked.token, facts=facts), end
