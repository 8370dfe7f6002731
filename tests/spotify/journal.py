"""What happened: the request log, the counters, and every secret that was issued or received.
All three keep the newest entries only, so that a long run does not fill the memory."""

import time
from collections import Counter, deque

from .state import Bounded


GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")


class Entry:
    """One request. `status` is None while it is under way, then the HTTP status, or how the
    connection ended: "reset", "closed", "gone" (by the client)."""

    __slots__ = (
        "number", "at", "endpoint", "method", "path", "query", "raw_headers", "form", "client",
        "grant", "status",
    )

    def describe(self):
        headers = {}
        for name, value in self.raw_headers:
            key, item = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {item}" if key in headers else item
        return {
            "number": self.number, "at": self.at, "endpoint": self.endpoint,
            "method": self.method, "path": self.path, "query": dict(self.query),
            "headers": headers, "form": dict(self.form), "client": self.client,
            "grant": self.grant, "status": self.status,
        }


class Journal:
    VALUES_MAX = 20000

    def __init__(self, log_max, secrets_max):
        self.log = deque(maxlen=log_max)
        self.secrets = Bounded(secrets_max)
        self.number = 0
        self.reset_counters()

    def reset_counters(self):
        self.calls = Counter()
        self.grants = Counter()
        self.statuses = Counter()
        self.codes = Bounded(self.VALUES_MAX)
        self.refresh_tokens = Bounded(self.VALUES_MAX)

    def limit(self, log_max, secrets_max):
        if log_max is not None:
            self.log = deque(self.log, maxlen=log_max)
        if secrets_max is not None:
            self.secrets.limit(secrets_max)

    def arrived(self, endpoint, request, path, query, form, client, grant):
        """Counts before anything is answered: a call that is still hanging was made, too."""
        entry = Entry()
        self.number += 1
        entry.number = self.number
        entry.at = time.time()
        entry.endpoint, entry.method, entry.path = endpoint, request.method, path
        entry.query, entry.form = query, form
        entry.raw_headers = request.raw_headers
        entry.client, entry.grant, entry.status = client, grant, None
        self.log.append(entry)
        self.calls[endpoint] += 1
        if grant is not None:
            self.grants[grant if grant in GRANT_TYPES else "other"] += 1
        return entry

    def answered(self, entry, status):
        entry.status = status
        self.statuses[entry.endpoint, status] += 1

    def used(self, values, value):
        """Counts one use of a code or refresh token (`codes` or `refresh_tokens`)."""
        values[value] = values.get(value, 0) + 1

    def secret(self, kind, value):
        if value:
            self.secrets[value] = kind

    def describe_counters(self):
        statuses = {}
        for (endpoint, status), calls in self.statuses.items():
            statuses.setdefault(endpoint, {})[str(status)] = calls
        return {
            "calls": dict(self.calls), "grants": dict(self.grants), "statuses": statuses,
            "codes": dict(self.codes), "refresh_tokens": dict(self.refresh_tokens),
        }

    def describe_secrets(self):
        kinds = {}
        for value, kind in self.secrets.items():
            kinds.setdefault(kind, []).append(value)
        return kinds
