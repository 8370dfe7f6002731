"""What the whole test run left behind, kept for one search at its end: every log line, every key and value in Redis,
every answer a browser got, against every secret that the simulated Spotify issued or saw, and every cookie."""

import json
import threading

from browser import RECORDER

PREFIX = 8  # every secret is at least as long; texts are searched for their beginnings first
LEAST = 17  # what is shorter, but for the codes of devices, was made up by a test


class Evidence:
    def __init__(self):
        self.texts = []    # (where, text) that may hold no secret at all
        self.secrets = {}  # secret: kind
        self._lock = threading.Lock()

    def add_stack(self, stack):
        """Take everything from a stack that still runs, or whose Redis and simulator do."""
        with self._lock:
            for kind, values in stack.spotify.secrets_by_kind().items():
                self.secrets.update({value: kind for value in values if len(value) >= LEAST})
            self.secrets[stack.client_secret] = "client_secret"
            self.texts += [(f"log {name}", text) for name, text in stack.logs().items()]
            self.texts += list(redis_texts(stack.redis))

    def add_cookies(self):
        for answer in RECORDER.answers:
            for name, value in answer.headers:
                if name.lower() == "set-cookie":
                    cookie, _, secret = value.split(";")[0].partition("=")
                    if len(secret) >= LEAST:
                        self.secrets[secret] = cookie

    def add_handles(self):
        """What phones and terminals got to keep, and the codes of terminals."""
        for answer in RECORDER.answers:
            if answer.status == 200 and b'"refresh_token"' in answer.body:
                self.secrets[json.loads(answer.body)["refresh_token"]] = "handle"
            if answer.status == 200 and b'"device_code"' in answer.body:
                codes = json.loads(answer.body)
                self.secrets[codes["device_code"]] = "device_code"
                self.secrets[codes["user_code"]] = "user_code"
                self.secrets[codes["user_code"].replace("-", "")] = "user_code"

    def leaks(self):
        """(kind, where) for each secret that stands where it must not."""
        self.add_cookies()
        self.add_handles()
        by_prefix = {}
        for secret in self.secrets:
            by_prefix.setdefault(secret[:PREFIX], []).append(secret)
        found = []
        for where, text in self.texts:
            found += [(self.secrets[secret], where) for secret in search(text, by_prefix)]
        for answer in RECORDER.answers:
            path = route_of(answer.url)
            for part, text in answer.parts():
                for secret in search(text, by_prefix):
                    kind = self.secrets[secret]
                    if not is_meant(kind, path, part):
                        found.append((kind, f"answer of {path}, {part}"))
        return sorted(set(found))


def route_of(url):
    """The end of the path: "token", "swap/refresh"; "members" for a page that leads to the login itself."""
    if "/members/" in url:
        return "members"
    *_, parent, last = url.split("?")[0].split("/")
    return f"{parent}/{last}" if parent in ("swap", "api") else last


def is_meant(kind, path, part):
    """The places where a secret is what the answer is for (API.md 4.1)."""
    if kind == "access_token":
        return part == "body" and path in ("token", "refresh", "swap", "swap/refresh", "api/token")
    if kind == "handle":
        return part == "body" and path in ("swap", "api/token")
    if kind in ("device_code", "user_code"):
        return part == "body" and path == "device"
    if kind == "state":
        return path in ("authorize", "device", "members") and part in ("location", "body")
    return kind.endswith(("spotify-login", "spotify-session")) and part == "set-cookie"


def search(text, by_prefix):
    for at in range(len(text) - PREFIX + 1):
        for secret in by_prefix.get(text[at:at + PREFIX], ()):
            if text.startswith(secret, at):
                yield secret


def redis_texts(redis):
    """Every key and value, as text of the same bytes."""
    if not redis.alive:
        return
    client = redis.client()
    readers = {b"string": client.get, b"hash": client.hgetall, b"zset": lambda key: client.zrange(key, 0, -1)}
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        if kind in readers:
            value = readers[kind](key)
            parts = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                parts = [*value.keys(), *value.values()]
            yield "redis", "\n".join(part.decode("latin-1") for part in [key, *filter(None, parts)])
