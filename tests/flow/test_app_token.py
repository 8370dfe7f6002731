"""What holds of the app's own token: one call to Spotify for all workers and machines, early, and nobody without a token
while there is a valid one (steps A1 to A6 of flows/app_token.h; C.3 61, 66, 67)."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest
import requests

import fastcgi
from clients import Client
from conftest import running
from metrics import scrape
from redis_proxy import RedisProxy
from sessions import Clock, forget_failures, keys, meanwhile, redis_away, together
from stack import Redis, wait_until

BOB = Client("bob")
FORM = b"grant_type=client_credentials"
LIFE_S, AHEAD_S = 3600, 300
QUICK = {"UPSTREAM_TIMEOUT_MS": 700, "STORE_TIMEOUT_MS": 300}
# What a lease may last: the call, two commands, and a margin.
LEASE_MAX_S = 0.7 + 0.6 + 3


@pytest.fixture
def start():
    """A stack of the test's own: no worker of it has a token at hand."""
    with contextlib.ExitStack() as stacks:
        def begin(services=2, workers=1, **settings):
            settings = {"SERVICE_CLIENTS": BOB.entry, "LOG_LEVEL": "debug", **settings}
            return stacks.enter_context(running(services=services, workers=workers, settings=settings))
        yield begin


@pytest.fixture
def clocked(start, tmp_path):
    """Two services whose wall clock stack.clock moves on."""
    clock = Clock(tmp_path / "time")
    stack = start(**clock.settings())
    stack.clock = clock
    return stack


def ask(service, timeout_s=30):
    """POST /api/token to this service process, past nginx: a fastcgi.Reply."""
    variables = fastcgi.variables(REQUEST_METHOD="POST", SCRIPT_NAME="/auth", PATH_INFO="/api/token",
                                  CONTENT_TYPE="application/x-www-form-urlencoded", CONTENT_LENGTH=str(len(FORM)),
                                  HTTP_AUTHORIZATION=BOB.basic)
    return fastcgi.ask(service.listen.removeprefix("unix:"), variables, FORM, timeout_s)


def verify(service, query="", method="GET"):
    variables = fastcgi.variables(SCRIPT_NAME="/auth", PATH_INFO="/verify/app", QUERY_STRING=query,
                                  REQUEST_METHOD=method)
    return fastcgi.ask(service.listen.removeprefix("unix:"), variables, timeout_s=30)


def token_of(reply):
    assert reply.status == 200, reply.body
    body = json.loads(reply.body)
    assert body["expires_in"] > 0
    return body["access_token"]


def assert_unavailable(reply):
    assert reply.status == 503, reply.body
    assert json.loads(reply.body)["error"] == "temporarily_unavailable" and int(reply.header("Retry-After")) >= 1


def calls(stack):
    return stack.spotify.calls(grant="client_credentials")


def wait_for_call(stack, count=1):
    wait_until(lambda: calls(stack) == count, 5, "the call to Spotify")


def wait_for_another(service, token):
    wait_until(lambda: token_of(ask(service)) != token, 5, "the new token")
    return token_of(ask(service))


# One call for all

@pytest.mark.parametrize("turn", range(2))
def test_67_five_hundred_requests_on_an_empty_cache_make_one_call(start, turn):
    stack = start(workers=2)
    stack.spotify.behave("token", latency=0.3)
    logged = [len(service.log_lines()) for service in stack.services]
    turns = iter(stack.services * 250)
    replies = together(500, lambda: ask(next(turns)))
    assert len({token_of(reply) for reply in replies}) == 1
    assert calls(stack) == 1 and len(stack.spotify.log("token")) == 1
    for service, before in zip(stack.services, logged):
        workers = {line["pid"] for line in service.log_lines()[before:] if line.get("route") == "/api/token"}
        assert workers == set(service.workers()), "every worker took part"


def test_a_second_machine_takes_the_token_over_without_a_call(start):
    stack = start()
    token = token_of(ask(stack.services[0]))
    stack.spotify.hang()
    assert token_of(ask(stack.services[1])) == token
    assert calls(stack) == 1


def test_a_waiter_on_another_machine_gets_the_result_at_once(start):
    stack = start()
    stack.spotify.next(1, answer_delay=0.6)
    with meanwhile(lambda: ask(stack.services[0])) as leader:
        wait_for_call(stack)
        with meanwhile(lambda: (ask(stack.services[1]), time.monotonic())) as waiter:
            token = token_of(leader.result(10))
            stored = time.monotonic()
            reply, done = waiter.result(10)
    assert token_of(reply) == token and done - stored < 0.5
    assert calls(stack) == 1


def test_a_token_at_hand_needs_neither_redis_nor_spotify(start):
    stack = start(services=1)
    token = token_of(ask(stack.services[0]))
    stack.spotify.hang()
    with redis_away(stack, "paused"):
        assert token_of(ask(stack.services[0], timeout_s=2)) == token


# Early

def test_a_token_that_is_due_is_handed_out_while_one_worker_calls(clocked):
    first, second = clocked.services
    old = token_of(ask(first))
    assert token_of(ask(second)) == old
    clocked.clock.advance(LIFE_S - AHEAD_S - 5)
    assert token_of(ask(first)) == old and calls(clocked) == 1, "not due yet"
    clocked.clock.advance(10)
    clocked.spotify.hang()
    for service in [first, second] * 5:
        reply, begun = ask(service), time.monotonic()
        assert token_of(reply) == old and time.monotonic() - begun < 1
    wait_for_call(clocked, 2)
    clocked.spotify.release()
    new = wait_for_another(first, old)
    assert wait_for_another(second, old) == new
    assert calls(clocked) == 2


def test_a_machine_without_a_token_at_hand_hands_out_the_old_one_as_well(clocked):
    first, second = clocked.services
    old = token_of(ask(first))
    clocked.clock.advance(LIFE_S - AHEAD_S + 5)
    clocked.spotify.hang()
    assert token_of(ask(first)) == old
    wait_for_call(clocked, 2)
    assert token_of(ask(second, timeout_s=3)) == old
    clocked.spotify.release()
    assert wait_for_another(first, old) == wait_for_another(second, old)
    assert calls(clocked) == 2


def test_a_short_token_is_kept_for_half_its_life(start):
    stack = start(services=1)
    stack.spotify.behave("token", expires_in=40)
    tokens = {token_of(ask(stack.services[0])) for _ in range(20)}
    assert len(tokens) == 1 and calls(stack) == 1


# Spotify away

def test_the_old_token_is_served_until_it_expires_and_not_longer(clocked):
    service = clocked.services[0]
    old = token_of(ask(service))
    clocked.spotify.behave("token", status=503)
    clocked.clock.advance(LIFE_S - AHEAD_S + 5)
    assert {token_of(ask(service)) for _ in range(20)} == {old}
    wait_for_call(clocked, 2)
    assert {token_of(ask(service)) for _ in range(20)} == {old}
    assert calls(clocked) == 2, "not asked again with every request"
    clocked.clock.advance(AHEAD_S - 10)
    reply = ask(service)
    assert token_of(reply) == old and json.loads(reply.body)["expires_in"] <= 5
    clocked.clock.advance(10)
    assert_unavailable(ask(service))
    clocked.spotify.reset("behaviour")
    wait_until(lambda: ask(service).status == 200, 2, "a token once Spotify is back")
    assert token_of(ask(service)) != old


def test_60_a_retry_after_is_kept_by_all(start):
    stack = start()
    stack.spotify.next(1, status=429, retry_after=7)
    reply = ask(stack.services[0])
    assert_unavailable(reply)
    assert reply.header("Retry-After") == "7"
    reply = ask(stack.services[1])
    assert_unavailable(reply)
    assert 1 <= int(reply.header("Retry-After")) <= 8
    assert calls(stack) == 1
    forget_failures(stack)
    wait_until(lambda: ask(stack.services[1]).status == 200, 5, "a token after the back-off")


def test_who_waited_for_a_call_that_failed_does_not_make_another(start):
    stack = start()
    stack.spotify.next(1, status=500, answer_delay=0.5)
    with meanwhile(lambda: ask(stack.services[0])) as leader:
        wait_for_call(stack)
        assert_unavailable(ask(stack.services[1]))
        assert_unavailable(leader.result(10))
    assert calls(stack) == 1


def test_a_hanging_spotify_slows_down_nobody_else(start):
    stack = start(services=1, workers=1)
    stack.spotify.hang()
    with meanwhile(lambda: ask(stack.services[0])) as stuck:
        wait_for_call(stack)
        begun = time.monotonic()
        reply = fastcgi.ask(stack.services[0].listen.removeprefix("unix:"), timeout_s=5)
        assert reply.status == 200 and time.monotonic() - begun < 1
        stack.spotify.release()
        token_of(stuck.result(10))


def test_nobody_waits_for_a_spotify_that_is_known_to_be_away(start):
    stack = start(services=1, **QUICK)
    stack.spotify.hang()

    def is_known():
        """For longer than a failure is remembered by itself."""
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:
            asked = time.monotonic()
            assert_unavailable(ask(stack.services[0]))
            if time.monotonic() - asked > 0.3:
                return False
        return True
    wait_until(is_known, 20, "the breaker")
    stack.spotify.release()
    stack.spotify.reset("behaviour", "hanging")
    wait_until(lambda: ask(stack.services[0]).status == 200, 3, "a token once Spotify is back")


# Workers that die, and Redis

def test_61_the_lease_of_a_worker_that_died_is_taken_over(start):
    stack = start(**QUICK)
    stack.spotify.hang()
    with meanwhile(lambda: pytest.raises(fastcgi.Closed, ask, stack.services[0])) as lost:
        wait_for_call(stack)
        os.kill(stack.services[0].workers()[0], signal.SIGKILL)
        lost.result(10)
    stack.spotify.release()
    stack.spotify.reset("behaviour", "hanging")
    begun = time.monotonic()
    token_of(ask(stack.services[1]))
    assert time.monotonic() - begun < LEASE_MAX_S + 1
    assert calls(stack) == 2


def test_a_worker_that_is_asked_to_end_leaves_no_lease_behind(start):
    stack = start()
    stack.spotify.next(1, answer_delay=0.5)
    with meanwhile(lambda: ask(stack.services[0])) as leader:
        wait_for_call(stack)
        stack.services[0].signal(signal.SIGTERM)
        token = token_of(leader.result(10))
    assert stack.services[0].wait() == 0
    assert keys(stack, "lease") == set()
    assert token_of(ask(stack.services[1])) == token and calls(stack) == 1


def test_a_worker_that_is_asked_to_end_finishes_a_call_that_nobody_waits_for(clocked):
    first, second = clocked.services
    old = token_of(ask(first))
    clocked.clock.advance(LIFE_S - AHEAD_S + 5)
    clocked.spotify.next(1, answer_delay=0.6)
    assert token_of(ask(first)) == old
    wait_for_call(clocked, 2)
    assert first.stop() == 0
    assert keys(clocked, "lease") == set()
    assert token_of(ask(second)) != old and calls(clocked) == 2


def test_plain_cgi_renews_early_after_its_answer(clocked):
    service = clocked.services[0]
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "SCRIPT_NAME": "/auth", "PATH_INFO": "/api/token",
                 "REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/x-www-form-urlencoded",
                 "CONTENT_LENGTH": str(len(FORM)), "HTTP_AUTHORIZATION": BOB.basic}

    def run():
        done = subprocess.run([service.program()], env={**service.environment(), **variables}, input=FORM, timeout=30,
                              stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout.partition(b"\r\n\r\n")[2])["access_token"]
    old = run()
    assert run() == old and calls(clocked) == 1
    clocked.clock.advance(LIFE_S - AHEAD_S + 5)
    assert run() == old and calls(clocked) == 2
    assert run() != old and calls(clocked) == 2
    assert keys(clocked, "lease") == set()


def test_a_call_that_hangs_holds_up_the_end_for_the_drain_timeout_only(start):
    stack = start(services=1, DRAIN_TIMEOUT_S=1)
    stack.spotify.hang()
    with meanwhile(lambda: pytest.raises(fastcgi.Closed, ask, stack.services[0])) as lost:
        wait_for_call(stack)
        begun = time.monotonic()
        assert stack.services[0].stop() == 0
        assert time.monotonic() - begun < 5
        lost.result(10)


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_token_that_redis_does_not_take_is_handed_out_and_offered_again(start, how):
    stack = start(**QUICK)
    stack.spotify.next(1, answer_delay=0.4)
    with meanwhile(lambda: ask(stack.services[0])) as leader:
        wait_for_call(stack)
        with redis_away(stack, how):
            token = token_of(leader.result(10))
    record(stack)
    assert token_of(ask(stack.services[1])) == token
    assert calls(stack) == 1 and keys(stack, "lease") == set()


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_without_redis_and_without_a_token_at_hand_it_is_503(start, how):
    stack = start(services=1, **QUICK)
    with redis_away(stack, how):
        begun = time.monotonic()
        assert_unavailable(ask(stack.services[0]))
        assert time.monotonic() - begun < 2
        assert calls(stack) == 0
    token_of(ask(stack.services[0]))
    assert calls(stack) == 1
    wait_until(lambda: keys(stack, "lease") == set(), 5, "no lease is left behind")


@pytest.mark.parametrize("script", ["return false", "return 7", "return {}", "return {'never'}", "return {'newer'}"])
def test_scripts_that_answer_something_else_are_no_lease(tmp_path, script):
    redis = Redis(tmp_path / "redis").start()
    proxy = RedisProxy(tmp_path / "proxy.sock", redis.socket_path)
    settings = {"SERVICE_CLIENTS": BOB.entry, "REDIS_URL": f"unix://{proxy.path}"}
    try:
        with running(redis=redis, services=1, workers=1, settings=settings) as stack:
            proxy.script = script
            assert_unavailable(ask(stack.services[0]))
            assert calls(stack) == 0
            proxy.script = None
            token_of(ask(stack.services[0]))
    finally:
        proxy.close()
        redis.stop()


def record(stack):
    """The key of the one record: it is written just after its token was handed out."""
    found = wait_until(lambda: keys(stack, "app-token"), 5, "the token in Redis")
    assert len(found) == 1
    return found.pop()


def test_66_the_record_is_sealed_and_ends_with_the_token(start):
    stack = start()
    token = token_of(ask(stack.services[0]))
    client = stack.redis.client()
    key = record(stack)
    assert token.encode() not in client.get(key) and stack.client_id.encode() not in key
    assert (LIFE_S - 20) * 1000 < client.pttl(key) <= LIFE_S * 1000


@pytest.mark.parametrize("garbled", [b"", b"short", bytes(200)], ids=["empty", "short", "zeros"])
def test_a_record_that_does_not_open_costs_one_call(start, garbled):
    stack = start()
    token_of(ask(stack.services[0]))
    stack.redis.client().set(record(stack), garbled)
    new = token_of(ask(stack.services[1]))
    assert calls(stack) == 2
    stack.services[0].restart()
    assert token_of(ask(stack.services[0])) == new and calls(stack) == 2


def test_a_changed_client_secret_is_another_app_token(start):
    stack = start()
    old = token_of(ask(stack.services[0]))
    other = "0123456789abcdef0123456789abcdef"
    stack.spotify.register(stack.client_id, other, [stack.redirect_uri])
    stack.services[1].settings["SPOTIFY_CLIENT_SECRET"] = other
    stack.services[1].restart()
    assert token_of(ask(stack.services[1])) != old
    wait_until(lambda: len(keys(stack, "app-token")) == 2, 5, "two records")
    assert "does not open" not in stack.services[1].log_text()


# /verify/app

def test_verify_app_gives_the_same_token_in_a_header(start):
    stack = start()
    reply = verify(stack.services[0])
    assert reply.status == 204 and reply.body == b"" and reply.header("Set-Cookie") is None
    assert reply.header("X-Spotify-Access-Token") == token_of(ask(stack.services[1]))
    assert calls(stack) == 1


def test_verify_app_says_403_in_an_outage_because_nginx_understands_nothing_else(start):
    stack = start(services=1)
    stack.spotify.behave("token", status=429, retry_after=9)
    reply = verify(stack.services[0])
    assert reply.status == 403 and reply.header("X-Auth-Error") == "temporarily_unavailable"
    assert reply.header("Retry-After") == "9" and reply.header("X-Spotify-Access-Token") is None
    body = json.loads(reply.body)
    assert body["error"] == "temporarily_unavailable" and json.loads(reply.header("X-Auth-Body")) == body


def test_verify_app_says_403_without_redis_too(start):
    stack = start(services=1, **QUICK)
    with redis_away(stack, "paused"):
        reply = verify(stack.services[0])
    assert reply.status == 403 and reply.header("X-Auth-Error") == "temporarily_unavailable"


def test_a_token_that_the_web_api_refused_is_renewed_once_for_all(clocked):
    first, second = clocked.services
    old = verify(first).header("X-Spotify-Access-Token")
    assert verify(second).header("X-Spotify-Access-Token") == old
    assert verify(first, "renew=true").header("X-Spotify-Access-Token") == old, "it is too young for that"
    clocked.clock.advance(60)
    turns = iter([first, second] * 20)
    replies = together(40, lambda: verify(next(turns), "renew=true"))
    assert len({reply.header("X-Spotify-Access-Token") for reply in replies} - {old}) == 1
    assert old not in {reply.header("X-Spotify-Access-Token") for reply in replies}
    assert calls(clocked) == 2


def test_a_refused_token_of_a_clock_that_was_set_back_is_renewed_too(clocked):
    service = clocked.services[0]
    old = verify(service).header("X-Spotify-Access-Token")
    clocked.clock.advance(-1000)
    assert verify(service, "renew=true").header("X-Spotify-Access-Token") != old
    assert calls(clocked) == 2


def test_a_refused_token_that_is_still_being_stored_is_renewed_too(start, tmp_path):
    """Only a clock that was set back makes it so: else it is too young."""
    clock = Clock(tmp_path / "time")
    stack = start(services=1, STORE_TIMEOUT_MS=5000, **clock.settings())
    service = stack.services[0]
    stack.spotify.next(1, grant="client_credentials", answer_delay=0.3)
    with meanwhile(lambda: verify(service)) as first:
        wait_for_call(stack)
        stack.redis.pause()
        old = first.result(10).header("X-Spotify-Access-Token")
    clock.advance(-1000)
    with meanwhile(lambda: verify(service, "renew=true")) as second:
        wait_until(lambda: scrape(stack)["requests_in_hand"] == 2, 5, "the second beside the one that asks")
        stack.redis.cont()
        assert second.result(10).header("X-Spotify-Access-Token") != old
    assert calls(stack) == 2


def test_a_renewal_that_fails_leaves_the_token_that_there_is(clocked):
    service = clocked.services[0]
    old = verify(service).header("X-Spotify-Access-Token")
    clocked.clock.advance(60)
    clocked.spotify.behave("token", status=500)
    reply = verify(service, "renew=true")
    assert reply.status == 204 and reply.header("X-Spotify-Access-Token") == old


def test_head_of_verify_app_has_no_effect(start):
    stack = start(services=1)
    reply = verify(stack.services[0], method="HEAD")
    assert reply.status == 204 and reply.header("X-Spotify-Access-Token") is None
    assert calls(stack) == 0


def test_verify_app_is_not_for_the_public(start):
    stack = start(services=1)
    for path in ("/auth/verify/app", "/auth/verify/app/", "/auth/verify/app?renew=true"):
        assert requests.get(stack.url + path, timeout=10).status_code == 404
    assert calls(stack) == 0


# What is counted

def test_calls_and_tokens_handed_out_are_counted(start):
    stack = start(services=1)
    token_of(ask(stack.services[0]))
    verify(stack.services[0])
    lines = stack.nginx.admin("/metrics")[1].splitlines()
    for line in ['tokens_handed_out_total{kind="app"} 2', 'upstream_calls_total{call="token app",answer="2xx"} 1',
                 'requests_total{route="/api/token",status="200"} 1', 'requests_total{route="/verify/app",status="204"} 1']:
        assert f"spotify_auth_{line}" in lines, [found for found in lines if "app" in found or "/api" in found]
