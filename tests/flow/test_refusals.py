"""Refusals in masses: Spotify has refused whole user bases falsely, so while it refuses most renewals no session is ended
for it, and a true refusal among good renewals is what it always was (API.md 4.6)."""

import itertools
import json
import time

import pytest

from conftest import running
from sessions import (OWN_COOKIE, PREFIX, Clock, ask, assert_login_required, close_breakers, forget_failures, keys,
                      log_events, log_in, log_in_with_key, refreshes, together)

LIFE_S = 3600
SUSPECT_RETRY_S = 60
SUSPECT_END_S = 300
WINDOW_S = 600
SIX_MONTHS_S = 15552000
LONG_S = 20000000
MANY = 20
CHANGES = ("most renewals refused: no session is ended", "renewals no longer refused: sessions are ended again")


@pytest.fixture(scope="module")
def shared_clocked(tmp_path_factory):
    clock = Clock(tmp_path_factory.mktemp("clock") / "time")
    settings = {**clock.settings(), "SESSION_MAX_AGE": LONG_S, "SESSION_IDLE_TTL": LONG_S}
    with running(services=2, workers=1, settings=settings) as stack:
        stack.clock = clock
        yield stack


@pytest.fixture
def clocked(shared_clocked):
    """Two services of one worker, which know of no refusals."""
    shared_clocked.spotify.reset("behaviour", "hanging", "clock")
    forget_failures(shared_clocked)
    close_breakers(shared_clocked)
    shared_clocked.clock.advance(2 * WINDOW_S)
    for service in shared_clocked.services:
        assert warnings(service) == []
    shared_clocked.seen = {service: len(changes(service)) for service in shared_clocked.services}
    shared_clocked.spotify.reset("counters", "log")
    return shared_clocked


def changes(service):
    return [(line["event"], line["level"]) for line in log_events(service, *CHANGES)]


def new_changes(stack, service):
    return changes(service)[stack.seen[service]:]


def warnings(service):
    result = service.run("--health")
    assert result.returncode == 0, "a warning does not fail readiness"
    answer = json.loads(result.stdout[result.stdout.index("{"):])
    return [warning["warning"] for warning in answer["warnings"]]


def refuse_all(stack):
    stack.spotify.behave("token", grant="refresh_token", refresh_refusal="revoked")


def allow_all(stack):
    stack.spotify.behave("token", grant="refresh_token", refresh_refusal=None)


def ask_all(stack, browsers):
    """Every session's token, from the services in turn: the answers."""
    services = itertools.cycle(stack.services)
    return [ask(next(services), browser, "/token") for browser in browsers]


def statuses(stack, browsers):
    return [reply.status for reply in ask_all(stack, browsers)]


def assert_kept(replies):
    for reply in replies:
        assert reply.status == 401 and reply.header("Set-Cookie") is None
        assert json.loads(reply.body)["error"] == "login_required"


def logged_in(stack, count):
    return [log_in_with_key(stack) for _ in range(count)]


def parts(pairs):
    return [browser for browser, _ in pairs], [key for _, key in pairs]


def test_a_false_refusal_of_all_for_two_minutes_ends_no_session(clocked):
    """Not even those that are six months old."""
    old = logged_in(clocked, 4)
    clocked.clock.advance(SIX_MONTHS_S - LIFE_S)
    young = logged_in(clocked, 26)
    clocked.clock.advance(LIFE_S + 1)
    browsers, session_keys = parts(young + old)
    refuse_all(clocked)
    assert_kept(ask_all(clocked, browsers))
    assert refreshes(clocked) == len(browsers)
    for _ in range(2):
        clocked.clock.advance(SUSPECT_RETRY_S + 1)
        assert_kept(ask_all(clocked, browsers))
    assert refreshes(clocked) == 3 * len(browsers)
    assert all(clocked.redis.client().exists(key) for key in session_keys)
    allow_all(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert statuses(clocked, browsers) == [200] * 30
    for browser in browsers:
        assert browser.cookie(OWN_COOKIE) and browser.session().json()["authenticated"] is True


def test_a_second_refusal_after_five_minutes_ends_nobody_while_most_are_refused(clocked):
    browsers, session_keys = parts(logged_in(clocked, MANY + 4))
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    for _ in range(3):
        assert_kept(ask_all(clocked, browsers))
        clocked.clock.advance(SUSPECT_END_S + 1)
    assert refreshes(clocked) == 3 * len(browsers)
    assert all(clocked.redis.client().exists(key) for key in session_keys)
    allow_all(clocked)
    assert statuses(clocked, browsers) == [200] * len(browsers)


def test_in_masses_redis_is_not_asked_at_every_refusal(clocked):
    """A count over many sessions keeps it busy for two milliseconds."""
    browsers = [log_in(clocked) for _ in range(3 * MANY)]
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    assert_kept(ask_all(clocked, browsers))
    clocked.clock.advance(SUSPECT_END_S + 1)
    before, begun = counts_asked(clocked), time.monotonic()
    assert_kept(ask_all(clocked, browsers))
    seconds = 2 + int(time.monotonic() - begun)
    assert 0 < counts_asked(clocked) - before <= 2 * len(clocked.services) * seconds


def counts_asked(stack):
    return stack.redis.client().info("commandstats").get("cmdstat_pfcount", {"calls": 0})["calls"]


def test_a_true_refusal_among_good_renewals_ends_at_the_second(clocked):
    browsers, _ = parts(logged_in(clocked, MANY + 4))
    refused, key = log_in_with_key(clocked, "eve")
    clocked.spotify.revoke(user="eve")
    clocked.clock.advance(LIFE_S + 1)
    assert statuses(clocked, browsers) == [200] * len(browsers)
    assert_login_required(refused.token(), cleared=False)
    assert refused.session().json()["reauth_required"] is True
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert_login_required(refused.token(), cleared=False)
    assert clocked.redis.client().exists(key)
    clocked.clock.advance(SUSPECT_END_S - SUSPECT_RETRY_S)
    assert_login_required(refused.token(), cleared=True)
    assert not clocked.redis.client().exists(key) and refused.cookie(OWN_COOKIE) is None
    assert statuses(clocked, browsers) == [200] * len(browsers)
    assert all(new_changes(clocked, service) == [] for service in clocked.services)


@pytest.mark.parametrize("refused, renewed, ended", [
    (MANY - 4, 0, True),
    (MANY + 2, 0, False),
    (MANY // 2, MANY // 2 + 4, True),
    (MANY // 2 + 4, MANY // 2, False),
])
def test_most_of_at_least_twenty_have_to_be_refused(clocked, refused, renewed, ended):
    """Sessions of six months are ended by their first refusal, or not. The count may be one off."""
    old, key = log_in_with_key(clocked, "bob")
    clocked.clock.advance(SIX_MONTHS_S - LIFE_S)
    good, bad = [log_in(clocked) for _ in range(renewed)], [log_in(clocked) for _ in range(refused)]
    clocked.clock.advance(LIFE_S + 1)
    assert statuses(clocked, good) == [200] * renewed
    refuse_all(clocked)
    assert_kept(ask_all(clocked, bad))
    assert_login_required(old.token(), cleared=ended)
    assert bool(clocked.redis.client().exists(key)) is not ended


def test_refusals_count_though_the_sessions_were_renewed_since(clocked):
    """A Spotify that refuses now this one and now that one is as wrong as one that refuses all."""
    old, key = log_in_with_key(clocked, "bob")
    clocked.clock.advance(SIX_MONTHS_S - LIFE_S)
    good, bad = [log_in(clocked) for _ in range(6)], [log_in(clocked) for _ in range(MANY)]
    clocked.clock.advance(LIFE_S + 1)
    assert statuses(clocked, good) == [200] * len(good)
    refuse_all(clocked)
    assert_kept(ask_all(clocked, bad))
    allow_all(clocked)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert statuses(clocked, bad) == [200] * len(bad)
    refuse_all(clocked)
    assert_login_required(old.token(), cleared=False)
    assert clocked.redis.client().exists(key)


def test_a_session_that_tries_often_counts_once(clocked):
    old, _ = log_in_with_key(clocked, "bob")
    clocked.clock.advance(SIX_MONTHS_S - LIFE_S)
    few = [log_in(clocked) for _ in range(4)]
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    for _ in range(7):
        assert_kept(ask_all(clocked, few))
        clocked.clock.advance(SUSPECT_RETRY_S + 1)
        if refreshes(clocked) >= MANY:
            break
    assert_login_required(old.token(), cleared=True)


def test_readiness_warns_until_it_calms_and_the_log_says_both(clocked):
    browsers = [log_in(clocked) for _ in range(MANY + 4)]
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    assert_kept(ask_all(clocked, browsers))
    for service in clocked.services * 2:
        assert warnings(service) == ["mass_refusals"]
    status, body = clocked.nginx.admin("/readyz")
    assert status == 200 and json.loads(body)["ready"] is True
    clocked.clock.advance(WINDOW_S + 60)
    for service in clocked.services * 2:
        assert warnings(service) == []
        assert new_changes(clocked, service) == [(CHANGES[0], "error"), (CHANGES[1], "error")]


def test_when_it_has_calmed_a_refusal_ends_a_session_again(clocked):
    bad, bad_keys = parts(logged_in(clocked, MANY + 4))
    good = [log_in(clocked) for _ in range(MANY + 10)]
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    for _ in range(2):
        assert_kept(ask_all(clocked, bad))
        clocked.clock.advance(SUSPECT_END_S + 1)
    allow_all(clocked)
    assert statuses(clocked, good) == [200] * len(good)
    refuse_all(clocked)
    replies = ask_all(clocked, bad)
    assert {reply.status for reply in replies} == {401}
    assert all("Max-Age=0" in reply.header("Set-Cookie") for reply in replies)
    assert not any(clocked.redis.client().exists(key) for key in bad_keys)


def test_no_session_is_ended_when_redis_does_not_say_how_many_were_refused(clocked):
    refused, key = log_in_with_key(clocked)
    clocked.clock.advance(SIX_MONTHS_S + 1)
    refuse_all(clocked)
    client = clocked.redis.client()
    minute = f"{PREFIX}verdicts:{{all}}:renewed:{clocked.clock.now() // 60}"
    client.set(minute, "not a HyperLogLog")
    try:
        assert_login_required(refused.token(), cleared=False)
        assert client.exists(key)
    finally:
        client.delete(minute)
    clocked.clock.advance(SUSPECT_RETRY_S + 1)
    assert_login_required(refused.token(), cleared=True)


def test_refusals_are_counted_without_the_sessions_ids(clocked):
    browsers = [log_in(clocked) for _ in range(3)]
    clocked.clock.advance(LIFE_S + 1)
    refuse_all(clocked)
    together(3, lambda: ask_all(clocked, browsers))
    client = clocked.redis.client()
    for key in keys(clocked, "verdicts"):
        assert 0 < client.ttl(key) <= 720
        assert not any(browser.cookie(OWN_COOKIE).value.encode() in client.get(key) for browser in browsers)
