"""Spotify dead or back again: nobody waits for it once the breaker is open, valid tokens are handed out as ever, and it
is found again within a second; and what is tried again at once (API.md 4.6, 4.7)."""

import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import threading
import time
import urllib.parse

import pytest

import fastcgi
import traffic
from browser import Browser
from sessions import (PREFIX, ask, assert_unavailable, close_breakers, for_session, forget_failures, keys, log_events,
                      log_in, log_in_with_key, meanwhile, open_breakers, refreshes, together)
from stack import reserve_port, wait_until

FAILURES = 5
PROBE_MIN_S, PROBE_MAX_S = 0.4, 0.6
BACK_S = 1.0
MARGIN_S = 0.5  # for a machine that is busy and a program that is slowed by its sanitizers
AT_ONCE_S = 0.005
TIMEOUT_S = 2.5


class Door:
    """A port before the simulated Spotify that can be shut: connections are refused then, open ones cut."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._holder = reserve_port()
        self._address = self._holder.getsockname()
        self._listener, self._ends = None, []
        self.url = "http://{}:{}".format(*self._address)
        self.open()

    def open(self):
        self._listener = reserve_port(*self._address)
        self._listener.listen(100)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def shut(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends = []

    def close(self):
        self.shut()
        self._holder.close()


class Refused:
    """Nobody listens at Spotify's address."""
    def end(self, stack):
        stack.door.shut()

    def back(self, stack):
        stack.door.open()


class Hanging:
    """Calls get no answer; those that hang at its return never do."""
    def end(self, stack):
        stack.spotify.hang()

    def back(self, stack):
        stack.spotify.behave("token", hang=None)


class Status503:
    def end(self, stack):
        stack.spotify.behave("token", status=503)

    def back(self, stack):
        stack.spotify.behave("token", status=None)


@pytest.fixture
def make_dead(make_stack):
    """A stack whose calls to the accounts service go through a door."""
    with contextlib.ExitStack() as doors:
        def make(**options):
            settings = {"UPSTREAM_TIMEOUT_MS": int(TIMEOUT_S * 1000), **options.pop("settings", {})}
            stack = make_stack(settings=settings, **options)
            stack.door = doors.enter_context(contextlib.closing(Door(stack.spotify.url)))
            for service in stack.services:
                service.settings["SPOTIFY_ACCOUNTS_URL"] = stack.door.url
                service.restart()
            return stack
        yield make


@pytest.fixture
def one(make_stack):
    """One worker, and a Spotify that the test may break."""
    return make_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": int(TIMEOUT_S * 1000), "LOG_LEVEL": "debug"})


def expired_sessions(stack, count):
    browsers = [log_in(stack, expires_in=1) for _ in range(count)]
    wait_until(lambda: browsers[-1].session().json()["expires_in"] == 0, 5, "the tokens' end")
    return browsers


def open_breaker(stack, browsers, service=None):
    """Let these sessions' renewals fail until every worker has given up, or those of one service have."""
    turns = itertools.cycle(browsers)
    services = [service] if service else stack.services

    def opened():
        together(FAILURES, lambda: [ask(each, next(turns), "/token") for each in services])
        workers = {pid for each in services for pid in each.workers()}
        return workers <= {pid for pid, _ in open_breakers(stack)}
    wait_until(opened, 30, "the breaker opens")


def open_by_503(stack, browsers, service=None):
    stack.spotify.behave("token", status=503)
    open_breaker(stack, browsers, service)


def assert_refused_at_once(reply):
    assert reply.status == 503 and reply.header("Set-Cookie") is None
    assert json.loads(reply.body)["error"] == "temporarily_unavailable"
    assert reply.header("Retry-After") == "1"


def is_back(service, browser):
    return ask(service, browser, "/token").status == 200


# Dead, and back

@pytest.mark.parametrize("death", [Refused(), Hanging(), Status503()], ids=["refused", "hanging", "503"])
def test_a_dead_spotify_is_answered_at_once_and_found_again_within_a_second(make_dead, death):
    stack = make_dead(workers=1)
    service = stack.services[0]
    valid, *browsers = log_in(stack), *expired_sessions(stack, 20)
    known = json.loads(ask(service, valid, "/token").body)["access_token"]
    asked, rested = browsers[:14], browsers[14:]
    death.end(stack)
    open_breaker(stack, asked[:FAILURES])
    calls, began, times, turns = refreshes(stack), time.monotonic(), [], itertools.cycle(asked)
    while time.monotonic() - began < TIMEOUT_S + 0.5:
        reply, took = traffic.seconds(lambda: ask(service, next(turns), "/token"))
        assert_refused_at_once(reply)
        times.append(took)
        reply, took = traffic.seconds(lambda: ask(service, valid, "/token"))
        assert json.loads(reply.body)["access_token"] == known
        times.append(took)
    lasted_s = time.monotonic() - began
    assert max(times) < TIMEOUT_S / 2, "nobody waited for a call"
    assert min(times) < AT_ONCE_S and statistics.median(times) < 4 * AT_ONCE_S
    assert refreshes(stack) - calls <= lasted_s / PROBE_MIN_S + 1, "probes alone"
    death.back(stack)
    began, turns = time.monotonic(), itertools.cycle(rested)
    wait_until(lambda: is_back(service, next(turns)), 10, "the return")
    assert time.monotonic() - began < BACK_S + MARGIN_S
    for browser in browsers:
        wait_until(lambda: is_back(service, browser), TIMEOUT_S + 5, "all the others")
    assert not open_breakers(stack), "calls that hung and end now do not open it again"
    assert [line["level"] for line in log_events(service, "breaker open", "breaker closed")] == ["warn", "info"]


def test_probes_that_hang_do_not_hold_up_the_next(one):
    browsers = expired_sessions(one, 15)
    one.spotify.behave("token", status=503)
    open_breaker(one, browsers[:FAILURES])
    one.spotify.reset("behaviour")
    one.spotify.hang()
    before, turns = refreshes(one), itertools.cycle(browsers)

    def five_hang():
        assert_refused_at_once(ask(one.services[0], next(turns), "/token"))
        return one.spotify.counters()["hanging"] >= 5
    wait_until(five_hang, 5 * PROBE_MAX_S + 3, "five probes under way")
    assert refreshes(one) - before >= 5
    one.spotify.release()


def test_calls_that_hung_before_its_return_and_end_after_it_open_nothing(one):
    *hung, healthy = expired_sessions(one, 2 * FAILURES + 1)
    due = iter(hung)
    one.spotify.hang()
    with meanwhile(lambda: together(len(hung), lambda: ask(one.services[0], next(due), "/token").status)) as ended:
        wait_until(lambda: one.spotify.counters()["hanging"] == len(hung), 5, "the calls")
        one.spotify.behave("token", hang=None)
        assert is_back(one.services[0], healthy)
        assert ended.result(TIMEOUT_S + 10) == [503] * len(hung)
    assert log_events(one.services[0], "breaker open") == []


def test_the_session_of_a_probe_is_renewed_by_it(one):
    one.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    browsers = expired_sessions(one, FAILURES + 1)
    probe = browsers.pop()
    open_by_503(one, browsers)
    one.spotify.behave("token", status=None)
    time.sleep(PROBE_MAX_S)
    before = refreshes(one)
    assert_refused_at_once(ask(one.services[0], probe, "/token"))
    wait_until(lambda: not open_breakers(one), 5, "the probe")
    answer = json.loads(ask(one.services[0], probe, "/token").body)
    assert answer["expires_in"] > 3500 and refreshes(one) == before + 1


def test_a_valid_token_is_handed_out_at_once_while_its_renewal_is_the_probe(one):
    browsers = expired_sessions(one, FAILURES)
    due = log_in(one, expires_in=30)
    open_by_503(one, browsers)
    one.spotify.behave("token", status=None)
    one.spotify.hang()
    time.sleep(PROBE_MAX_S)
    reply, took = traffic.seconds(lambda: ask(one.services[0], due, "/token"))
    assert json.loads(reply.body)["expires_in"] <= 30 and took < TIMEOUT_S / 2
    wait_until(lambda: one.spotify.counters()["hanging"] == 1, 5, "the probe")
    one.spotify.release()
    wait_until(lambda: json.loads(ask(one.services[0], due, "/token").body)["expires_in"] > 3500, 5, "its result")
    assert not open_breakers(one)


def test_the_lease_of_a_failed_probe_is_released(one):
    browsers = expired_sessions(one, FAILURES)
    probe, key = log_in_with_key(one, expires_in=1)
    wait_until(lambda: probe.session().json()["expires_in"] == 0, 5, "the token's end")
    open_by_503(one, browsers)
    forget_failures(one)
    time.sleep(PROBE_MAX_S)
    before = refreshes(one)
    lease = key.replace(b":session:", b":lease:")
    one.spotify.behave("token", latency=0.3)
    assert_refused_at_once(ask(one.services[0], probe, "/token"))
    client = one.redis.client()
    wait_until(lambda: client.get(lease), 5, "the probe's lease")
    wait_until(lambda: (client.get(lease) or b"!").startswith(b"!"), 5, "the lease's release")
    assert refreshes(one) == before + 1
    one.spotify.reset("behaviour")
    wait_until(lambda: is_back(one.services[0], probe), BACK_S + MARGIN_S, "its renewal")


def test_a_worker_that_is_told_to_end_waits_for_its_probe(one):
    one.spotify.behave("token", grant="refresh_token", rotation="new", kill_grant_on_reuse=True)
    browsers = expired_sessions(one, FAILURES + 1)
    probe = browsers.pop()
    open_by_503(one, browsers)
    one.spotify.behave("token", status=None)
    one.spotify.hang(stage="after")
    time.sleep(PROBE_MAX_S)
    assert_refused_at_once(ask(one.services[0], probe, "/token"))
    wait_until(lambda: one.spotify.counters()["hanging"] == 1, 5, "the probe")
    os.kill(one.services[0].pid, signal.SIGTERM)
    wait_until(lambda: not one.services[0].accepts(), 5, "the end to begin")
    one.spotify.release()
    assert one.services[0].wait(20) == 0
    before = refreshes(one)
    one.services[0].start()
    assert json.loads(ask(one.services[0], probe, "/token").body)["expires_in"] > 3500
    assert refreshes(one) == before, "it was stored before the worker ended"


def test_a_worker_that_is_told_to_end_begins_no_further_probe(one):
    """Nginx goes on to ask on connections that it has open, and there would always be one under way."""
    browsers, service = expired_sessions(one, FAILURES + 2), one.services[0]
    first, second = browsers.pop(), browsers.pop()
    open_by_503(one, browsers)
    one.spotify.reset("behaviour")
    one.spotify.hang()
    with fastcgi.Connection(service.listen.removeprefix("unix:")) as kept:
        kept.send(fastcgi.request(for_session(second, "/session")))
        assert kept.reply().status == 200
        time.sleep(PROBE_MAX_S)
        assert_refused_at_once(ask(service, first, "/token"))
        wait_until(lambda: one.spotify.counters()["hanging"] == 1, 5, "the probe")
        before = refreshes(one)
        service.signal(signal.SIGTERM)
        wait_until(lambda: not service.accepts(), 5, "the end to begin")
        time.sleep(PROBE_MAX_S)
        kept.send(fastcgi.request(for_session(second, "/token")))
        assert_refused_at_once(kept.reply())
        time.sleep(0.2)
        assert refreshes(one) == before
        one.spotify.release()
        assert service.wait(20) == 0


# Several workers

def test_each_worker_has_its_own_breaker_and_all_are_back_within_a_second(make_stack):
    stack = make_stack(services=2, workers=2)
    # Tokens live so short that every request wants a renewal, so that no worker lacks one to probe with.
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True, expires_in=1)
    browsers = expired_sessions(stack, 24)
    grants = len(stack.spotify.grants())
    open_by_503(stack, browsers[:12])
    assert len(open_breakers(stack)) == 4
    began = time.monotonic()
    stack.spotify.behave("token", status=None)
    turns = itertools.cycle(browsers)

    def closed():
        # Of requests that come one by one, the same idle worker may get each.
        together(FAILURES, lambda: [ask(service, next(turns), "/token") for service in stack.services])
        return not open_breakers(stack)
    wait_until(closed, 10, "all workers' return")
    assert time.monotonic() - began < BACK_S + 2 * MARGIN_S
    for browser in browsers:
        wait_until(lambda: all(is_back(service, browser) for service in stack.services), 5, "every session")
    assert len(stack.spotify.grants()) == grants, "no rotated token was used twice"


def test_a_worker_whose_breaker_is_open_hands_out_what_another_renewed(make_stack):
    stack = make_stack(services=2, workers=1)
    *browsers, shared = expired_sessions(stack, FAILURES + 1)
    open_by_503(stack, browsers, stack.services[0])
    stack.spotify.behave("token", status=None)
    forget_failures(stack)
    assert ask(stack.services[1], shared, "/token").status == 200
    assert ask(stack.services[0], shared, "/token").status == 200
    assert {pid for pid, _ in open_breakers(stack)} == set(stack.services[0].workers())


def test_a_renewal_that_waited_for_its_lease_until_the_breaker_opened_makes_no_call(make_stack):
    stack = make_stack(services=2, workers=1)
    *browsers, shared = expired_sessions(stack, FAILURES + 1)
    stack.spotify.next(1, grant="refresh_token", hang="before")
    with meanwhile(lambda: ask(stack.services[1], shared, "/token")) as holder:
        wait_until(lambda: refreshes(stack) == 1, 5, "the holder's call")
        (lease,) = keys(stack, "lease")
        with meanwhile(lambda: ask(stack.services[0], shared, "/token")) as waiter:
            open_by_503(stack, browsers, stack.services[0])
            before = refreshes(stack)
            stack.redis.client().delete(lease)
            assert waiter.result(10).status == 503 and refreshes(stack) == before
            assert stack.redis.client().get(lease).startswith(b"!")
        stack.spotify.release()
        holder.result(10)


# What goes through an open breaker

def test_a_login_goes_through_and_closes_it(one):
    browsers = expired_sessions(one, FAILURES)
    open_by_503(one, browsers)
    one.spotify.behave("token", status=None)
    assert log_in(one).token().status_code == 200
    assert not open_breakers(one)
    assert ask(one.services[0], browsers[0], "/token").status == 200


def test_a_login_that_fails_while_it_is_open_is_one_call(one):
    open_by_503(one, expired_sessions(one, FAILURES))
    browser, before = Browser(one), one.spotify.calls(grant="authorization_code")
    assert "error=temporarily_unavailable" in browser.login().headers["Location"]
    assert one.spotify.calls(grant="authorization_code") == before + 1


def test_failed_logins_open_it(one):
    one.spotify.behave("token", status=500)
    for _ in range(FAILURES):
        assert "error=temporarily_unavailable" in Browser(one).login().headers["Location"]
    assert [name for _, name in open_breakers(one)] == ["accounts"]


def test_a_dead_web_api_costs_logins_nothing_but_the_profile(one):
    one.spotify.behave("api", status=500)
    for _ in range(FAILURES):
        log_in(one)
    assert [name for _, name in open_breakers(one)] == ["api"]
    one.spotify.behave("api", status=None)
    one.spotify.hang("api")
    before = one.spotify.calls("api")
    browser, took = traffic.seconds(lambda: log_in(one))
    assert took < TIMEOUT_S and browser.session().json()["user"]["id"] is None
    assert one.spotify.calls("api") == before and browser.token().status_code == 200
    one.spotify.behave("api", hang=None)
    wait_until(lambda: log_in(one).session().json()["user"]["id"], 5, "profiles")
    assert not open_breakers(one)


# Beside the shared back-off

def test_a_wait_that_spotify_asks_for_holds_the_probes_back_too(one):
    *browsers, probe = expired_sessions(one, FAILURES + 1)
    open_by_503(one, browsers)
    one.spotify.behave("token", status=503, retry_after=30)
    time.sleep(PROBE_MAX_S)
    before = refreshes(one)
    assert_refused_at_once(ask(one.services[0], probe, "/token"))
    wait_until(lambda: one.redis.client().exists(PREFIX + "backoff"), 5, "the wait")
    one.spotify.reset("behaviour")
    until = time.monotonic() + PROBE_MAX_S + 0.5
    while time.monotonic() < until:
        reply = ask(one.services[0], browsers[0], "/token")
        assert reply.status == 503 and 20 < int(reply.header("Retry-After")) <= 31
    assert refreshes(one) == before + 1
    forget_failures(one)
    wait_until(lambda: is_back(one.services[0], browsers[0]), BACK_S + MARGIN_S, "the return")


def test_a_429_closes_it_and_its_wait_is_kept(one):
    browsers = expired_sessions(one, FAILURES)
    open_by_503(one, browsers)
    one.spotify.behave("token", status=429, retry_after=30)
    turns = itertools.cycle(browsers)

    def closed():
        assert ask(one.services[0], next(turns), "/token").status == 503
        return not open_breakers(one)
    wait_until(closed, 5, "the answer of a probe")
    before = refreshes(one)
    for browser in browsers:
        reply = ask(one.services[0], browser, "/token")
        assert reply.status == 503 and 20 < int(reply.header("Retry-After")) <= 31
    assert refreshes(one) == before


def test_readyz_says_that_spotify_does_not_answer(one):
    status, body = one.nginx.admin("/readyz")
    assert status == 200 and json.loads(body)["warnings"] == []
    open_by_503(one, expired_sessions(one, FAILURES))
    status, body = one.nginx.admin("/readyz")
    assert status == 200
    assert [warning["warning"] for warning in json.loads(body)["warnings"]] == ["accounts_away"]
    one.spotify.reset("behaviour")
    close_breakers(one)
    assert json.loads(one.nginx.admin("/readyz")[1])["warnings"] == []


# What is tried again at once

@pytest.mark.parametrize("status", [502, 503])
def test_a_renewal_gets_over_two_answers_that_say_nothing(one, status):
    browser = log_in(one, expires_in=30)
    one.spotify.next(2, grant="refresh_token", status=status)
    answer, took = traffic.seconds(browser.token)
    assert answer.json()["expires_in"] > 3500 and took > 0.2
    assert refreshes(one) == 3


def test_a_login_gets_over_two_answers_that_say_nothing(one):
    one.spotify.next(2, grant="authorization_code", status=502)
    assert log_in(one).token().status_code == 200
    assert one.spotify.calls(grant="authorization_code") == 3


ONCE = {
    "a refusal": {"refresh_refusal": "revoked"},
    "invalid_client": {"token_error": "invalid_client"},
    "429": {"status": 429},
    "500": {"status": 500},
    "504": {"status": 504},
    "503 with Retry-After": {"status": 503, "retry_after": 1},
    "reset": {"reset": "before"},
    "cut": {"early_close": "headers"},
    "a 503 that is cut": {"status": 503, "early_close": "body"},
    "no answer": {"hang": "before"},
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
def test_what_may_have_been_heard_is_not_sent_again(make_stack, fault):
    stack = make_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": 700})
    browser = log_in(stack, expires_in=30)
    stack.spotify.behave("token", grant="refresh_token", **fault)
    assert browser.token().json()["expires_in"] <= 30, "the token at hand"
    assert refreshes(stack) == 1


def test_a_spotify_that_is_gone_for_a_moment_is_not_noticed(make_dead):
    """It comes back between the first try and the last."""
    stack = make_dead(workers=1)
    browsers = [log_in(stack, expires_in=30) for _ in range(6)]
    good = 0
    for browser in browsers:
        stack.door.shut()
        with meanwhile(browser.token) as answer:
            wait_until(lambda: len(log_events(stack.services[0], "upstream call failed")) > good, 5, "the first try")
            stack.door.open()
            assert answer.result(10).status_code == 200
        good = len(log_events(stack.services[0], "upstream call failed"))
        if browser.token().json()["expires_in"] > 3500 and not open_breakers(stack):
            return
    raise AssertionError("no renewal was tried again in time")


def test_a_tls_handshake_that_fails_is_tried_again(make_stack):
    """Nothing has been sent by then."""
    accepted = []

    def hang_up(listener):
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0].close())
    with reserve_port() as listener:
        listener.listen()
        threading.Thread(target=hang_up, args=(listener,), daemon=True).start()
        url = "https://{}:{}".format(*listener.getsockname())
        stack = make_stack(workers=1, settings={"SPOTIFY_ACCOUNTS_URL": url})
        browser = Browser(stack)
        callback = browser.approve(browser.authorize().headers["Location"].replace(url, stack.spotify.url))
        assert "error=temporarily_unavailable" in browser.callback(callback).headers["Location"]
        listener.shutdown(socket.SHUT_RDWR)
    assert len(accepted) == 3


def test_all_tries_together_end_before_the_lease(make_stack):
    stack = make_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": 2000})
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "the token's end")
    stack.spotify.next(1, grant="refresh_token", status=503, latency=0.8)
    stack.spotify.next(1, grant="refresh_token", hang="before")
    answer, took = traffic.seconds(browser.token)
    assert_unavailable(answer)
    assert refreshes(stack) == 2
    assert 1.9 < took < 2 + MARGIN_S
    assert all((stack.redis.client().get(key) or b"!").startswith(b"!") for key in keys(stack, "lease"))
