"""What the tests of sessions, tokens and renewals share: sessions made to measure, their records in Redis, requests
straight to one service process, and a clock that a test moves on."""

import concurrent.futures
import contextlib
import glob
import json
import os
import threading
import time

import fastcgi
from browser import Browser
from stack import wait_until

PREFIX = "spotify-auth:"
OWN_COOKIE = "spotify-session"


def log_in(stack, user="ada", **first_answer):
    """A browser with a session; first_answer is how Spotify answers the code, like expires_in=30."""
    browser = Browser(stack)
    if first_answer:
        stack.spotify.next(1, grant="authorization_code", **first_answer)
    answer = browser.login(user)
    assert answer.status_code == 303 and browser.cookie(OWN_COOKIE), answer.text
    return browser


def keys(stack, kind):
    return set(stack.redis.client().scan_iter(f"{PREFIX}{kind}:*", count=1000))


def log_in_with_key(stack, user="ada", **first_answer):
    """The browser, and the key of its session in Redis."""
    before = keys(stack, "session")
    browser = log_in(stack, user, **first_answer)
    new = keys(stack, "session") - before
    assert len(new) == 1
    return browser, new.pop()


def cookie_header(browser):
    cookie = browser.cookie(OWN_COOKIE)
    return f"{cookie.name}={cookie.value}"


def forget_failures(stack):
    """What workers tell each other of a renewal that just failed, or of a Retry-After."""
    client = stack.redis.client()
    for key in [*keys(stack, "lease"), PREFIX + "backoff"]:
        client.delete(key)


def log_events(service, *events):
    """The lines of a service's log with one of these events, oldest first."""
    lines = (json.loads(line) for line in service.log_text().splitlines()
             if any(f'"event":"{event}"' in line for event in events))
    return list(lines)


class Breakers:
    """What the breakers of a stack's workers have heard, as the logs tell; reads on from where it stopped."""
    CALLS = {"token code": "accounts", "token refresh": "accounts", "token app": "accounts", "profile": "api"}

    def __init__(self, stack):
        self._services = stack.services
        self._read = {}
        self._failures = {}  # in a row, by worker's pid and Spotify's service
        self._open = set()

    def _look(self):
        for service in self._services:
            text = service.log_path.read_bytes()
            begin = self._read.get(service, 0)
            end = text.rfind(b"\n") + 1
            self._read[service] = end
            for line in text[begin:end].splitlines():
                if b'"event":"breaker ' in line or b'"event":"upstream call' in line:
                    self._note(json.loads(line))

    def _note(self, line):
        key = line["pid"], line.get("service") or self.CALLS[line["call"]]
        if line["event"] == "breaker open":
            self._open.add(key)
        elif line["event"] == "breaker closed":
            self._open.discard(key)
        else:
            failed = line.get("status", 500) >= 500
            self._failures[key] = self._failures.get(key, 0) + 1 if failed else 0

    def _of_the_living(self, keys):
        workers = {pid for service in self._services for pid in service.workers()}
        return {key for key in keys if key[0] in workers}

    def open(self):
        """(pid, Spotify's service) of those that are open."""
        self._look()
        return self._of_the_living(self._open)

    def shaken(self):
        """Those that are open, or might be soon."""
        return self.open() | self._of_the_living(key for key, count in self._failures.items() if count > 1)


def breakers(stack):
    if not hasattr(stack, "breakers"):
        stack.breakers = Breakers(stack)
    return stack.breakers


def open_breakers(stack):
    return breakers(stack).open()


def close_breakers(stack):
    """Logins pass an open breaker, and their success closes it. The simulated Spotify has to be well."""
    def closed():
        if not breakers(stack).shaken():
            return True
        for service in stack.services:  # past nginx, which stays with the workers that it has connections to
            browser = Browser(stack)
            back = browser.approve(browser.authorize().headers["Location"])
            cookie = browser.cookie("spotify-login")
            ask(service, browser, "/callback", QUERY_STRING=back.partition("?")[2],
                HTTP_COOKIE=f"{cookie.name}={cookie.value}")
        return False
    wait_until(closed, 20, "the breakers close")


def refreshes(stack):
    return stack.spotify.calls(grant="refresh_token")


def for_session(browser, route, method="GET", **changes):
    """What the web server sends for a request of this browser's."""
    variables = {"REQUEST_METHOD": method, "SCRIPT_NAME": "/auth", "PATH_INFO": route,
                 "HTTP_X_REQUESTED_WITH": "test", "HTTP_SEC_FETCH_SITE": "same-origin"}
    if "HTTP_COOKIE" not in changes:
        variables["HTTP_COOKIE"] = cookie_header(browser)
    return fastcgi.variables(**{**variables, **changes})


def ask(service, browser, route, method="GET", timeout_s=30, **changes):
    """One request to this service process, past nginx: a fastcgi.Reply."""
    return fastcgi.ask(service.listen.removeprefix("unix:"), for_session(browser, route, method, **changes),
                       timeout_s=timeout_s)


def together(count, call):
    """call() from count threads at once; the results."""
    barrier = threading.Barrier(count)

    def run(_):
        barrier.wait(30)
        return call()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@contextlib.contextmanager
def meanwhile(call):
    """Run call() in a thread beside the block: a future."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


@contextlib.contextmanager
def redis_away(stack, how):
    """Redis does not answer ("paused") or is gone ("killed"), and is back after the block and found by all."""
    if how == "paused":
        stack.redis.pause()
    else:
        stack.redis.kill()
    try:
        yield
    finally:
        if how == "paused":
            stack.redis.cont()
        else:
            stack.redis.start()
        wait_for_redis(stack)


def wait_for_redis(stack):
    wait_until(lambda: all(service.ready() for service in stack.services), 10, "services find Redis again")
    # Nobody can ask each worker whether its pause after a failed attempt is over.
    time.sleep(0.1)


def assert_error(response, status, word):
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert body["error"] == word and isinstance(body["error_description"], str)
    return body


def assert_unavailable(response):
    """The answer that says nothing about the session (API.md 4.5)."""
    assert_error(response, 503, "temporarily_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert "Set-Cookie" not in response.headers


def assert_login_required(response, cleared):
    body = assert_error(response, 401, "login_required")
    assert body["login_url"].endswith("/auth/authorize")
    if cleared:
        assert "Max-Age=0" in response.headers["Set-Cookie"]
    else:
        assert "Set-Cookie" not in response.headers


class Clock:
    """The wall clock of a service that was started with settings(); its monotonic clock is the real one."""

    def __init__(self, path):
        self._path = path
        self._offset_s = 0
        self._write()

    def settings(self):
        library = sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1"))
        assert library, "the package faketime is not installed"
        options = os.environ.get("ASAN_OPTIONS", "")
        return {"LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": self._path, "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
                "ASAN_OPTIONS": ":".join(filter(None, [options, "verify_asan_link_order=0"]))}

    def advance(self, seconds):
        self._offset_s += seconds
        self._write()

    def now(self):
        return int(time.time()) + self._offset_s

    def _write(self):
        # A reader that found the file half written would fall back to the real time.
        new = self._path.with_suffix(".new")
        new.write_text(f"{self._offset_s:+d}s\n")
        new.replace(self._path)
