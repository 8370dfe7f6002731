"""What holds when a token is renewed: one call to Spotify for everybody, nothing lost when somebody dies at the wrong
moment, and what Spotify's refusals and outages mean for a session (API.md 4.3 to 4.6; C.3 54 to 61)."""

import contextlib
import json
import os
import signal
import threading
import time

import pytest

import fastcgi
from browser import Browser
from conftest import running
from redis_proxy import RedisTap
from sessions import (OWN_COOKIE, PREFIX, Clock, ask, assert_login_required, assert_unavailable, close_breakers,
                      cookie_header, forget_failures, keys, log_in, log_in_with_key, meanwhile, redis_away, refreshes, together)
from stack import wait_until

LIFE_S = 3600
SUSPECT_RETRY_S = 60
SUSPECT_END_S = 300
SIX_MONTHS_S = 15552000
LONG_S = 20000000
UPSTREAM_TIMEOUT_MS, STORE_TIMEOUT_MS = 700, 300
# What a lease may last: the call, two commands, and a margin.
LEASE_MAX_S = (UPSTREAM_TIMEOUT_MS + 2 * STORE_TIMEOUT_MS) / 1000 + 3


@pytest.fixture(scope="module")
def shared_clocked(tmp_path_factory):
    clock = Clock(tmp_path_factory.mktemp("clock") / "time")
    settings = {**clock.settings(), "SESSION_MAX_AGE": LONG_S, "SESSION_IDLE_TTL": LONG_S, "LOG_LEVEL": "debug"}
    with running(services=2, workers=1, settings=settings) as stack:
        stack.clock = clock
        yield stack


@pytest.fixture(scope="module")
def shared_quick():
    settings = {"UPSTREAM_TIMEOUT_MS": UPSTREAM_TIMEOUT_MS, "STORE_TIMEOUT_MS": STORE_TIMEOUT_MS}
    with running(services=2, workers=1, settings=settings) as stack:
        yield stack


def fresh(stack):
    stack.spotify.reset("behaviour", "hanging", "clock")
    forget_failures(stack)
    close_breakers(stack)
    stack.spotify.reset("counters", "log")
    return stack


@pytest.fixture
def clocked(shared_clocked):
    """Two services whose wall clock stack.clock moves on; sessions live for LONG_S."""
    yield fresh(shared_clocked)
    forget_failures(shared_clocked)


@pytest.fixture
def quick(shared_quick):
    """Two services of one worker each, which wait for nobody for long."""
    yield fresh(shared_quick)
    fresh(shared_quick)


def token_of(answer):
    if isinstance(answer, fastcgi.Reply):
        assert answer.status == 200, answer.body
        return json.loads(answer.body)["access_token"]
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def let_expire(browser):
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "end of the token")


def wait_for_call(stack, count=1):
    wait_until(lambda: refreshes(stack) == count, 5, "the call to Spotify")


# One call for all

@pytest.mark.parametrize("turn", range(4))
def test_54_two_hundred_requests_with_an_expired_token_make_one_call(stack, turn):
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True, latency=0.3)
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    logged = [len(service.log_lines()) for service in stack.services]
    answers = together(200, browser.token)
    assert [answer.status_code for answer in answers] == [200] * 200
    assert len({token_of(answer) for answer in answers}) == 1
    assert refreshes(stack) == 1
    for service, before in zip(stack.services, logged):
        assert any(line.get("route") == "/token" for line in service.log_lines()[before:]), "both services took part"


def test_54_token_and_refresh_beside_each_other_share_the_call(stack):
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True, latency=0.3)
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    calls = iter([browser.token, browser.refresh] * 20)
    answers = together(40, lambda: next(calls)())
    assert len({token_of(answer) for answer in answers}) == 1
    assert refreshes(stack) == 1


def test_54_a_waiter_in_another_process_gets_the_result(quick):
    quick.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.4)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        waiter = ask(quick.services[1], browser, "/token")
        assert token_of(waiter) == token_of(leader.result(10))
    assert refreshes(quick) == 1


def plant_lease_of_a_dead_worker(stack, key):
    lease = key.replace(b":session:", b":lease:")
    stack.redis.client().set(lease, "dead", px=3000)
    return lambda: stack.redis.client().exists(lease)


def test_a_token_that_is_still_valid_does_not_wait_for_the_lease_of_a_dead_worker(quick):
    browser, key = log_in_with_key(quick, expires_in=30)
    is_held = plant_lease_of_a_dead_worker(quick, key)
    first = ask(quick.services[0], browser, "/token")
    second = ask(quick.services[0], browser, "/token")
    assert is_held() and refreshes(quick) == 0
    assert token_of(first) == token_of(second)


def looks(stack):
    """How many scripts Redis was asked to run; one for each look whether a lease is free."""
    return stack.redis.client().info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


def test_who_asks_for_a_new_token_waits_for_the_lease_of_a_dead_worker(clocked):
    browser, key = log_in_with_key(clocked, expires_in=70)
    clocked.clock.advance(20)
    is_held = plant_lease_of_a_dead_worker(clocked, key)
    before = looks(clocked)
    with meanwhile(lambda: ask(clocked.services[0], browser, "/token")) as patient:
        wait_until(lambda: looks(clocked) > before + 2, 5, "one who waits for the lease")
        renewed = token_of(ask(clocked.services[0], browser, "/refresh", "POST"))
        assert token_of(patient.result(10)) == renewed
    assert not is_held() and refreshes(clocked) == 1


def test_who_waits_long_for_another_worker_looks_the_more_seldom(quick):
    """Once each 20 ms, 3 s would be 150 looks."""
    browser, key = log_in_with_key(quick, expires_in=1)
    let_expire(browser)
    is_held = plant_lease_of_a_dead_worker(quick, key)
    before = looks(quick)
    token_of(ask(quick.services[0], browser, "/token"))
    assert not is_held() and refreshes(quick) == 1
    assert looks(quick) - before < 60


def test_54_sessions_do_not_wait_for_each_other(quick):
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.6)
    slow, other, fresh_one = log_in(quick, expires_in=30), log_in(quick, "eve", expires_in=30), log_in(quick, "bob")
    with meanwhile(lambda: ask(quick.services[0], slow, "/token")) as leader:
        wait_for_call(quick)
        begun = time.monotonic()
        assert ask(quick.services[0], other, "/token").status == 200
        assert ask(quick.services[0], fresh_one, "/token").status == 200
        assert ask(quick.services[0], slow, "/session").status == 200
        assert time.monotonic() - begun < 0.4 and not leader.done()
        assert leader.result(10).status == 200
    assert refreshes(quick) == 2


def test_hanging_renewals_slow_down_nobody_else(stack):
    """More than there are workers, so that every worker has some."""
    waiting = [log_in(stack, expires_in=30) for _ in range(40)]
    other, due = log_in(stack, "eve"), iter(waiting)
    stack.spotify.hang()
    with meanwhile(lambda: together(40, lambda: next(due).token())) as stuck:
        wait_for_call(stack, 40)
        begun = time.monotonic()
        for _ in range(10):
            assert other.token().status_code == 200 and other.session().status_code == 200
        assert waiting[0].session().json()["authenticated"] is True
        assert time.monotonic() - begun < 2
        stack.spotify.release()
        assert {answer.status_code for answer in stuck.result(30)} == {200}
    assert refreshes(stack) == 40


# Somebody dies, or comes back late

def test_61_a_killed_workers_renewal_is_taken_over(quick):
    quick.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    quick.spotify.next(1, grant="refresh_token", hang="before")
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        os.kill(quick.services[0].workers()[0], signal.SIGKILL)
        begun = time.monotonic()
        answers = together(10, lambda: ask(quick.services[1], browser, "/token"))
        assert time.monotonic() - begun < LEASE_MAX_S + 1
        assert len({token_of(answer) for answer in answers}) == 1
        assert isinstance(leader.exception(10), fastcgi.Closed)
    assert refreshes(quick) == 2
    quick.spotify.release()
    wait_until(quick.services[0].ready, 10, "a new worker")
    assert token_of(ask(quick.services[0], browser, "/token")) == token_of(answers[0])


def test_61_a_stopped_worker_that_comes_back_does_not_undo_a_newer_renewal(quick):
    quick.spotify.behave("token", rotation="new_keep_old")
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.2)
    browser, key = log_in_with_key(quick, expires_in=1)
    let_expire(browser)
    worker = quick.services[0].workers()[0]
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as late:
        wait_for_call(quick)
        os.kill(worker, signal.SIGSTOP)
        try:
            newer = token_of(ask(quick.services[1], browser, "/token"))
            record = quick.redis.client().get(key)
        finally:
            os.kill(worker, signal.SIGCONT)
        # It had its answer all the time, or gave up; either way the newer tokens are the ones that count.
        assert late.result(20).status in (200, 503)
    assert quick.redis.client().get(key) == record
    assert {token_of(ask(service, browser, "/token")) for service in quick.services} == {newer}


def test_61_a_result_that_comes_late_is_fenced_by_the_generation(stack):
    """The record of a newer renewal is put under a renewal that began with the older one."""
    stack.spotify.behave("token", rotation="new_keep_old")
    browser, key = log_in_with_key(stack, expires_in=30)
    client = stack.redis.client()
    older = client.get(key)
    newer_token = token_of(browser.token())
    newer = client.get(key)
    client.set(key, older, keepttl=True)
    stack.spotify.next(1, answer_delay=0.3)
    with meanwhile(browser.token) as late:
        wait_for_call(stack, 2)
        client.set(key, newer, keepttl=True)
        assert token_of(late.result(20)) == newer_token, "everybody gets what is stored"
    assert client.get(key) == newer
    assert token_of(browser.token()) == newer_token


def test_61_an_unsaved_result_does_not_overwrite_a_newer_one(quick):
    """A worker could not save its result, stood still for longer than its lease, and tries again."""
    quick.spotify.behave("token", rotation="new_keep_old")
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.4)
    browser, key = log_in_with_key(quick, expires_in=1)
    let_expire(browser)
    worker = quick.services[0].workers()[0]
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        quick.redis.kill()
        unsaved = token_of(leader.result(10))
    os.kill(worker, signal.SIGSTOP)
    try:
        quick.redis.start()
        wait_until(quick.services[1].ready, 10, "Redis is found again")
        newer = token_of(ask(quick.services[1], browser, "/token"))
        record = quick.redis.client().get(key)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert newer != unsaved
    wait_until(lambda: "renewal not saved\"" in quick.services[0].log_text(), 10, "the late save to be given up")
    assert quick.redis.client().get(key) == record
    assert token_of(ask(quick.services[0], browser, "/token")) == newer


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_redis_gone_during_a_renewal_costs_nobody_the_rotated_token(quick, how):
    quick.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.4, expires_in=5)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        with redis_away(quick, how):
            new = token_of(leader.result(10))
            assert ask(quick.services[1], browser, "/token").status == 503
    # It is stored before its lease ends, so nobody calls Spotify with the old refresh token meanwhile.
    for service in quick.services:
        assert token_of(ask(service, browser, "/token")) == new
    assert refreshes(quick) == 1
    wait_until(lambda: token_of(ask(quick.services[1], browser, "/token")) != new, 10, "the next renewal")
    assert refreshes(quick) == 2


@contextlib.contextmanager
def lease_of_another(stack, service, browser):
    """Its lease has run out, and the renewal of another service hangs at Spotify during the block: a future."""
    before = refreshes(stack)
    forget_leases(stack)
    stack.spotify.hang(grant="refresh_token")
    with meanwhile(lambda: ask(service, browser, "/token")) as other:
        wait_for_call(stack, before + 1)
        try:
            yield other
        finally:
            stack.spotify.release(grant="refresh_token")


def assert_renewed_with_the_rotated_token(stack, browser, other, saved):
    assert token_of(other.result(10)) == saved, "refused at Spotify, it finds what was saved"
    wait_until(lambda: token_of(ask(stack.services[1], browser, "/token")) != saved, 10, "the next renewal")
    assert refreshes(stack) == 3
    assert json.loads(ask(stack.services[0], browser, "/session").body)["authenticated"] is True


def test_a_rotated_token_is_saved_when_another_holds_the_lease_by_then(quick):
    quick.spotify.behave("token", rotation="new")
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.3, expires_in=4)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as late:
        wait_for_call(quick)
        with lease_of_another(quick, quick.services[1], browser) as other:
            saved = token_of(late.result(10))
    assert_renewed_with_the_rotated_token(quick, browser, other, saved)


def test_a_rotated_token_that_waited_for_redis_is_saved_when_another_holds_the_lease_by_then(quick):
    quick.spotify.behave("token", rotation="new")
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.3, expires_in=4)
    browser, key = log_in_with_key(quick, expires_in=1)
    let_expire(browser)
    old, worker = quick.redis.client().get(key), quick.services[0].workers()[0]
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        quick.redis.kill()
        unsaved = token_of(leader.result(10))
    os.kill(worker, signal.SIGSTOP)
    try:
        quick.redis.start()
        wait_until(quick.services[1].ready, 10, "Redis is found again")
        with lease_of_another(quick, quick.services[1], browser) as other:
            os.kill(worker, signal.SIGCONT)
            wait_until(lambda: quick.redis.client().get(key) != old, 5, "the late save")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert_renewed_with_the_rotated_token(quick, browser, other, unsaved)


def test_a_service_that_is_told_to_end_saves_first_what_redis_did_not_take(quick):
    quick.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    quick.spotify.next(1, grant="refresh_token", answer_delay=0.4)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    try:
        with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
            wait_for_call(quick)
            quick.redis.kill()
            new = token_of(leader.result(10))
        os.kill(quick.services[0].pid, signal.SIGTERM)
        quick.redis.start()
        assert quick.services[0].wait(20) == 0
        wait_until(quick.services[1].ready, 10, "Redis is found again")
        assert token_of(ask(quick.services[1], browser, "/token")) == new
        assert refreshes(quick) == 1
    finally:
        quick.services[0].restart()


def test_a_worker_killed_at_any_moment_leaves_the_session_usable(quick):
    quick.spotify.behave("token", rotation="new_keep_old")
    browser, key = log_in_with_key(quick, expires_in=30)
    client = quick.redis.client()
    due = client.get(key)
    for after_s in (0, 0.001, 0.002, 0.004, 0.008):
        client.set(key, due, keepttl=True)
        worker = quick.services[0].workers()[0]
        with meanwhile(lambda: ask(quick.services[0], browser, "/token")):
            time.sleep(after_s)
            os.kill(worker, signal.SIGKILL)
        forget_failures(quick)
        assert json.loads(ask(quick.services[1], browser, "/token").body)["expires_in"] > 3500
        wait_until(lambda: set(quick.services[0].workers()) - {worker}, 10, "a new worker")


def test_redis_gone_before_a_renewal_makes_no_call(quick):
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with redis_away(quick, "killed"):
        assert_unavailable(browser.token())
    assert refreshes(quick) == 0
    assert browser.token().status_code == 200


class PauseAtLease(RedisTap):
    """Pauses Redis when the next command about a lease is on its way there."""

    def __init__(self, redis, path):
        self.armed, self.paused = threading.Event(), threading.Event()
        super().__init__(redis, path)

    def on_command(self, data):
        if self.armed.is_set() and b":lease:" in data:
            self.armed.clear()
            self.redis.pause()
            self.paused.set()


def test_a_lease_that_redis_granted_after_its_asker_gave_up_holds_up_nobody(make_stack, tmp_path):
    stack = make_stack(workers=1)  # with the default timeouts, such a lease would last for 13 s
    service, before = stack.services[0], PauseAtLease(stack.redis, tmp_path / "redis.sock")
    service.settings["REDIS_URL"] = f"unix://{before.path}"
    service.restart()
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    client = stack.redis.client()
    client.config_set("notify-keyspace-events", "KA")
    with client.pubsub(ignore_subscribe_messages=True) as events:
        events.psubscribe(f"__keyspace@0__:{PREFIX}lease:*")
        events.get_message(timeout=5)
        before.armed.set()
        try:
            assert_unavailable(browser.token())
            assert before.paused.is_set()
        finally:
            stack.redis.cont()
        granted = wait_until(lambda: events.get_message(timeout=1), 5, "the lease")
    assert granted["data"] == b"set" and refreshes(stack) == 0
    wait_until(service.ready, 5, "Redis is found again")
    begun = time.monotonic()
    token_of(browser.token())
    assert time.monotonic() - begun < 3
    before.close()


# invalid_grant: a session is suspect first

REFUSALS = ["invalid", "revoked", "expired", "no_text"]


def make_suspect(stack):
    """A browser whose token has run out and whose first renewal was refused; and its session's key."""
    browser, key = log_in_with_key(stack)
    old = token_of(browser.token())
    stack.clock.advance(LIFE_S + 1)
    stack.spotify.behave(grant="refresh_token", endpoint="token", refresh_refusal="revoked")
    assert_login_required(browser.token(), cleared=False)
    assert refreshes(stack) == 1
    return browser, key, old


def allow_again(stack):
    stack.spotify.behave(grant="refresh_token", endpoint="token", refresh_refusal=None)


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_57_a_first_refusal_is_401_and_keeps_cookie_and_record(clocked, refusal, status):
    browser, key = log_in_with_key(clocked)
    clocked.clock.advance(LIFE_S + 1)
    if status == 400:
        clocked.spotify.behave("token", refresh_refusal=refusal)
    else:
        clocked.spotify.behave("token", token_error="invalid_grant", token_error_status=401)
    assert_login_required(browser.token(), cleared=False)
    assert clocked.redis.client().exists(key) and browser.cookie(OWN_COOKIE)


def test_57_session_says_that_a_suspect_one_needs_a_login(clocked):
    browser, _, _ = make_suspect(clocked)
    for _ in range(2):
        answer = browser.session()
        assert answer.status_code == 200 and "Set-Cookie" not in answer.headers
        assert answer.json() == {"authenticated": False, "reauth_required": True,
                                 "login_url": clocked.url + "/auth/authorize"}


def test_57_no_worker_tries_again_within_a_minute(clocked):
    browser, _, _ = make_suspect(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S - 2)
    for service in clocked.services * 2:
        for method, route in (("GET", "/token"), ("POST", "/refresh")):
            reply = ask(service, browser, route, method)
            assert reply.status == 401 and reply.header("Set-Cookie") is None
    assert refreshes(clocked) == 1


def test_57_a_false_refusal_heals_after_a_minute(clocked):
    browser, _, old = make_suspect(clocked)
    allow_again(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert token_of(browser.token()) != old
    assert browser.session().json()["authenticated"] is True
    assert refreshes(clocked) == 2
    # It is forgotten altogether: a refusal much later is a first one again.
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.behave("token", refresh_refusal="revoked")
    assert_login_required(browser.token(), cleared=False)


def test_57_a_refusal_noted_by_a_clock_that_was_ahead_does_not_last_until_then(clocked):
    browser = log_in(clocked)
    clocked.clock.advance(LIFE_S + 1 + SIX_MONTHS_S // 2)
    clocked.spotify.next(1, refresh_refusal="revoked")
    assert_login_required(browser.token(), cleared=False)
    clocked.clock.advance(-SIX_MONTHS_S // 2)
    assert browser.token().status_code == 200


def test_57_a_second_refusal_before_five_minutes_ends_nothing(clocked):
    browser, key, _ = make_suspect(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert_login_required(browser.token(), cleared=False)
    assert refreshes(clocked) == 2
    clocked.clock.advance(SUSPECT_RETRY_S - 2)
    assert_login_required(browser.token(), cleared=False)
    assert refreshes(clocked) == 2, "the minute begins anew with each refusal"
    assert clocked.redis.client().exists(key)


def test_57_a_second_refusal_after_five_minutes_ends_the_session(clocked):
    browser, key, _ = make_suspect(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert_login_required(browser.token(), cleared=False)
    clocked.clock.advance(SUSPECT_END_S - SUSPECT_RETRY_S)
    old = {"Cookie": cookie_header(browser)}
    assert_login_required(browser.token(), cleared=True)
    assert refreshes(clocked) == 3
    assert not clocked.redis.client().exists(key)
    assert browser.cookie(OWN_COOKIE) is None
    assert_login_required(browser.token(headers=old), cleared=True)
    assert browser.session(headers=old).json()["authenticated"] is False
    assert refreshes(clocked) == 3


def test_57_at_six_months_of_age_a_refusal_is_believed_at_once(clocked):
    browser, key = log_in_with_key(clocked)
    clocked.clock.advance(SIX_MONTHS_S + 1)
    clocked.spotify.behave("token", refresh_refusal="expired")
    assert_login_required(browser.token(), cleared=True)
    assert refreshes(clocked) == 1
    assert not clocked.redis.client().exists(key)


def test_57_just_before_six_months_a_refusal_is_not_believed_at_once(clocked):
    browser, key = log_in_with_key(clocked)
    clocked.clock.advance(SIX_MONTHS_S - 60)
    clocked.spotify.behave("token", refresh_refusal="expired")
    assert_login_required(browser.token(), cleared=False)
    assert clocked.redis.client().exists(key)


def test_57_a_valid_token_is_handed_out_meanwhile(clocked):
    browser = log_in(clocked)
    token = token_of(browser.token())
    clocked.clock.advance(LIFE_S - 30)
    clocked.spotify.behave("token", refresh_refusal="revoked")
    for answer in (browser.token(), browser.refresh(), browser.token()):
        assert token_of(answer) == token and "Set-Cookie" not in answer.headers
    assert refreshes(clocked) == 1
    assert browser.session().json()["authenticated"] is True
    clocked.clock.advance(31)
    assert_login_required(browser.token(), cleared=False)
    assert browser.session().json()["reauth_required"] is True


def test_57_a_refusal_does_not_count_when_somebody_wrote_since(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    client = stack.redis.client()
    older = client.get(key)
    newer_token = token_of(browser.token())
    newer = client.get(key)
    client.set(key, older, keepttl=True)
    stack.spotify.next(1, answer_delay=0.3, refresh_refusal="revoked")
    with meanwhile(browser.token) as refused:
        wait_for_call(stack, 2)
        client.set(key, newer, keepttl=True)
        assert token_of(refused.result(20)) == newer_token
    assert client.get(key) == newer
    assert token_of(browser.token()) == newer_token and refreshes(stack) == 2


def test_57_a_new_login_ends_the_suspicion(clocked):
    browser, key, _ = make_suspect(clocked)
    assert browser.login().status_code == 303
    assert browser.session().json()["authenticated"] is True
    assert not clocked.redis.client().exists(key)


def test_57_a_suspect_session_can_log_out(clocked):
    browser, key, _ = make_suspect(clocked)
    answer = browser.logout()
    assert answer.status_code == 204 and "Max-Age=0" in answer.headers["Set-Cookie"]
    assert not clocked.redis.client().exists(key)


def test_57_a_crowd_on_a_refused_session_makes_one_call(clocked):
    browser, _ = log_in_with_key(clocked)
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.behave("token", refresh_refusal="revoked", latency=0.2)
    for answer in together(40, browser.token):
        assert_login_required(answer, cleared=False)
    assert refreshes(clocked) == 1


def test_62_the_maximum_age_ends_a_session_renewed_or_not(clocked):
    browser, key = log_in_with_key(clocked)
    clocked.clock.advance(LONG_S - 10)
    assert browser.token().status_code == 200
    clocked.clock.advance(11)
    assert_login_required(browser.token(headers={"Cookie": cookie_header(browser)}), cleared=True)
    assert browser.session().json()["authenticated"] is False
    wait_until(lambda: not clocked.redis.client().exists(key), 5, "the record to go")
    assert refreshes(clocked) == 1


def test_a_clock_that_is_far_behind_ends_no_session(clocked):
    """As a machine's may be until it has found the time."""
    browser, key = log_in_with_key(clocked)
    clocked.clock.advance(-3 * LONG_S)
    try:
        for service in clocked.services:
            assert json.loads(ask(service, browser, "/session").body)["authenticated"] is True
        assert clocked.redis.client().pttl(key) > LIFE_S * 1000
    finally:
        clocked.clock.advance(3 * LONG_S)
    assert browser.session().json()["authenticated"] is True


def test_reauth_by_counts_from_the_login_however_often_the_token_is_renewed(clocked):
    browser = log_in(clocked)
    first = browser.session().json()
    assert first["reauth_by"] == first["authorized_at"] + SIX_MONTHS_S
    clocked.clock.advance(LIFE_S + 1)
    assert browser.token().status_code == 200
    later = browser.session().json()
    assert (later["authorized_at"], later["reauth_by"]) == (first["authorized_at"], first["reauth_by"])
    browser.login()
    assert browser.session().json()["authorized_at"] >= first["authorized_at"] + LIFE_S


# Everything else says nothing about the session

OUTAGES = {
    "58 invalid_client": {"token_error": "invalid_client", "token_error_status": 400},
    "58 invalid_client 401": {"token_error": "invalid_client", "token_error_status": 401},
    "58 unauthorized_client": {"token_error": "unauthorized_client"},
    "58 invalid_request": {"token_error": "invalid_request"},
    "58 unknown word": {"token_error": "out_of_luck"},
    "59 invalid_grant with 500": {"token_error": "invalid_grant", "token_error_status": 500},
    "59 invalid_grant with 403": {"token_error": "invalid_grant", "token_error_status": 403},
    "59 invalid_grant with 429": {"token_error": "invalid_grant", "token_error_status": 429},
    "59 500": {"status": 500},
    "59 502": {"status": 502},
    "59 503": {"status": 503},
    "59 400 HTML": {"status": 400, "status_body": "html"},
    "59 400 empty": {"status": 400, "status_body": "empty"},
    "60 429 without a time": {"status": 429},
    "59 302": {"status": 302},
    "59 307": {"status": 307},
    "59 200 HTML": {"json_shape": "html"},
    "59 200 cut": {"json_shape": "truncated"},
    "59 200 empty": {"json_shape": "empty"},
    "59 no access token": {"access_token": "missing"},
    "59 empty access token": {"access_token": "empty"},
    "59 other token type": {"token_type": "mac"},
    "59 reset": {"reset": "before"},
    "59 closed": {"early_close": "headers"},
    "59 half a body": {"early_close": "body"},
    "59 no HTTP": {"garbage": True},
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_keeps_the_session(clocked, outage):
    browser, key = log_in_with_key(clocked)
    token = token_of(browser.token())
    record = clocked.redis.client().get(key)
    clocked.spotify.behave("token", **outage)
    clocked.clock.advance(LIFE_S - 30)
    for answer in (browser.token(), browser.refresh()):
        assert token_of(answer) == token, "it is still valid"
    assert refreshes(clocked) >= 1
    forget_failures(clocked)
    clocked.clock.advance(31)
    for answer in (browser.token(), browser.refresh()):
        assert_unavailable(answer)
    assert browser.session().json()["authenticated"] is True
    assert clocked.redis.client().get(key) == record
    assert clocked.spotify.calls("elsewhere") == 0, "no redirect is followed"
    clocked.spotify.reset("behaviour")
    forget_failures(clocked)
    close_breakers(clocked)
    assert token_of(browser.token()) != token


def test_59_a_slow_spotify_is_given_up_in_time_and_the_valid_token_handed_out(quick):
    browser = log_in(quick, expires_in=30)
    token = json.loads(ask(quick.services[0], browser, "/token", "GET").body)  # renews
    assert token["expires_in"] > 3500
    due, expired = log_in(quick, "ada", expires_in=30), log_in(quick, "eve", expires_in=1)
    let_expire(expired)
    quick.spotify.hang("token")
    begun = time.monotonic()
    with meanwhile(expired.token) as refused:
        assert due.token().json()["expires_in"] <= 30
        assert_unavailable(refused.result(20))
    assert time.monotonic() - begun < 2 * UPSTREAM_TIMEOUT_MS / 1000 + 1
    quick.spotify.release()
    forget_failures(quick)
    assert due.token().json()["expires_in"] > 3500 and expired.token().status_code == 200


def test_59_a_hanging_spotify_is_waited_for_once_while_the_token_is_valid(make_stack):
    timeout_s = 1.5
    stack = make_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": int(timeout_s * 1000)})
    browser = log_in(stack, expires_in=5)
    stack.spotify.hang()
    took = []
    for _ in range(5):
        begun = time.monotonic()
        valid = token_of(browser.token())
        took.append(time.monotonic() - begun)
        forget_leases(stack)  # where it stands for a second that the renewal failed
    assert took[0] > timeout_s - 0.1 and max(took[1:]) < 0.5
    assert refreshes(stack) == 1
    stack.spotify.release()
    let_expire(browser)
    assert token_of(browser.token()) != valid, "once it has run out, it is renewed again"


@pytest.mark.parametrize("expires_in", [0, -1, "soon"])
def test_a_renewal_without_a_usable_life_time_keeps_the_rotated_token(stack, expires_in):
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    stack.spotify.next(1, grant="refresh_token", expires_in=expires_in)
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    assert_unavailable(browser.token())
    assert browser.session().json()["authenticated"] is True
    assert browser.token().json()["expires_in"] > LIFE_S - 100
    assert refreshes(stack) == 2


def test_a_token_that_ran_out_before_it_was_stored_is_handed_out_by_nobody(quick):
    """Nor by a worker that waited for another's renewal."""
    quick.spotify.next(1, grant="refresh_token", expires_in=0, answer_delay=0.4)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
        wait_for_call(quick)
        assert ask(quick.services[1], browser, "/token").status == 503
        assert leader.result(10).status == 503
    assert token_of(ask(quick.services[1], browser, "/token")) and refreshes(quick) == 2


def test_a_token_that_ran_out_while_redis_took_no_writes_is_handed_out_no_more(quick):
    quick.spotify.next(1, grant="refresh_token", expires_in=2, answer_delay=0.4)
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    client = quick.redis.client()
    try:
        with meanwhile(lambda: ask(quick.services[0], browser, "/token")) as leader:
            wait_for_call(quick)
            client.config_set("maxmemory", 1)
            token_of(leader.result(10))
        time.sleep(2.1)
        reply = ask(quick.services[0], browser, "/token")
        assert reply.status == 503 and reply.header("Set-Cookie") is None, reply.body
    finally:
        client.config_set("maxmemory", 0)
    wait_until(lambda: ask(quick.services[0], browser, "/token").status == 200, 10, "the next renewal")


def test_a_failed_renewal_is_not_repeated_by_every_request_of_a_crowd(quick):
    browser = log_in(quick, expires_in=1)
    let_expire(browser)
    quick.spotify.behave("token", status=500, latency=0.2)
    for answer in together(40, browser.token):
        assert_unavailable(answer)
    assert refreshes(quick) <= 2


# Retry-After

@pytest.mark.parametrize("status", [429, 503])
def test_60_retry_after_is_kept_by_all_workers_and_logins(clocked, status):
    browsers = [log_in(clocked, user) for user in ("ada", "eve", "bob", "dan")]
    callback = Browser(clocked)
    redirect = callback.approve(callback.authorize(return_to="/page").headers["Location"])
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.next(1, status=status, retry_after=20)
    first = browsers[0].token()
    assert_unavailable(first)
    assert 19 <= int(first.headers["Retry-After"]) <= 21
    codes = clocked.spotify.calls(grant="authorization_code")
    for service in clocked.services:
        for browser in browsers[1:]:
            reply = ask(service, browser, "/token")
            assert reply.status == 503 and 1 <= int(reply.header("Retry-After")) <= 21
            forget_leases(clocked)
    answer = callback.callback(redirect)
    assert answer.status_code == 303 and answer.headers["Location"] == "/page?error=temporarily_unavailable"
    assert refreshes(clocked) == 1 and clocked.spotify.calls(grant="authorization_code") == codes
    clocked.clock.advance(21)
    forget_leases(clocked)
    for browser in browsers:
        assert browser.token().status_code == 200


def forget_leases(stack):
    for key in keys(stack, "lease"):
        stack.redis.client().delete(key)


def test_60_an_answer_within_the_wait_says_how_long_it_lasts(clocked):
    """Also in the second in which workers tell each other that the renewal failed."""
    browser = log_in(clocked)
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.next(1, status=429, retry_after=40)
    assert_unavailable(browser.token())
    for service in clocked.services:
        reply = ask(service, browser, "/token")
        assert reply.status == 503 and 38 <= int(reply.header("Retry-After")) <= 41


def test_60_a_valid_token_is_handed_out_during_the_wait(clocked):
    browser = log_in(clocked)
    token = token_of(browser.token())
    clocked.clock.advance(LIFE_S - 50)
    clocked.spotify.next(1, status=429, retry_after=30)
    for _ in range(3):
        assert token_of(browser.token()) == token
        forget_leases(clocked)
    assert refreshes(clocked) == 1
    clocked.clock.advance(31)
    assert token_of(browser.token()) != token


def test_60_a_retry_after_that_is_a_date_is_kept(stack):
    browser, other = log_in(stack, expires_in=1), log_in(stack, "eve", expires_in=1)
    let_expire(browser)
    let_expire(other)
    stack.spotify.next(1, status=429, retry_after="date")
    try:
        answer = browser.token()
        assert_unavailable(answer)
        assert 25 <= int(answer.headers["Retry-After"]) <= 31
        for _ in range(4):
            assert_unavailable(other.token())
            forget_leases(stack)
        assert refreshes(stack) == 1
    finally:
        forget_failures(stack)


def test_60_an_absurd_retry_after_is_capped_and_not_ignored(clocked):
    browser = log_in(clocked)
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.next(1, status=429, retry_after="huge")
    answer = browser.token()
    assert_unavailable(answer)
    assert 60 <= int(answer.headers["Retry-After"]) <= LIFE_S
    forget_leases(clocked)
    assert_unavailable(browser.token())
    assert refreshes(clocked) == 1
    clocked.clock.advance(LIFE_S)
    forget_leases(clocked)
    assert browser.token().status_code == 200


def test_60_a_clock_that_is_behind_does_not_make_the_wait_longer_than_the_cap(clocked):
    browser = log_in(clocked)
    clocked.clock.advance(2 * LIFE_S)
    clocked.spotify.next(1, status=429, retry_after=60)
    assert_unavailable(browser.token())
    clocked.clock.advance(1 - LIFE_S)
    answer = browser.token()
    assert_unavailable(answer)
    assert int(answer.headers["Retry-After"]) <= 900


def test_60_a_shorter_retry_after_does_not_end_a_longer_one(clocked):
    ada, eve, bob = (log_in(clocked, user) for user in ("ada", "eve", "bob"))
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.next(1, status=429, retry_after=60, latency=0.2)
    clocked.spotify.next(1, status=429, retry_after=1, latency=0.5)
    with meanwhile(ada.token) as longer:
        wait_for_call(clocked)
        assert_unavailable(eve.token())
        assert_unavailable(longer.result(10))
    assert refreshes(clocked) == 2
    clocked.clock.advance(5)
    assert_unavailable(bob.token())
    assert refreshes(clocked) == 2


@pytest.mark.parametrize("value", ["soon", "-5", "0", "1.5", ""])
def test_60_a_senseless_retry_after_blocks_nobody(clocked, value):
    browser = log_in(clocked)
    clocked.clock.advance(LIFE_S + 1)
    clocked.spotify.next(1, status=429, retry_after=value)
    assert_unavailable(browser.token())
    forget_leases(clocked)
    assert browser.token().status_code == 200
