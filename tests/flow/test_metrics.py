"""GET /metrics: that each metric moves when what it counts happens, that nothing is lost when workers come and go, that
the text says nothing it must not, and that what is made of it (alerts, dashboard) fits."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

import fastcgi
import metrics
from browser import Browser, redirect_of
from conftest import running
from metrics import Metrics, Moved, scrape
from phone import Phone
from redis_proxy import RedisProxy
from sessions import (Clock, ask, close_breakers, cookie_header, forget_failures, log_in, log_in_with_key, meanwhile,
                      redis_away, together)
from stack import TREE, Nginx, Process, Redis, can_connect, find_program, reserve_port, wait_until
from terminal import Terminal, open_page, submit

MONITORING = TREE / "docker" / "monitoring"
WEEK_S = 604800


def requests_of(route, status):
    return f'requests_total{{route="{route}",status="{status}"}}'


def logins(outcome, reason):
    return f'logins_total{{outcome="{outcome}",reason="{reason}"}}'


def renewals(outcome):
    return f'renewals_total{{outcome="{outcome}"}}'


def ended(reason):
    return f'sessions_ended_total{{reason="{reason}"}}'


def calls(call, answer):
    return f'upstream_calls_total{{call="{call}",answer="{answer}"}}'


def promtool(*arguments, text=None):
    built = TREE / "build" / "promtool"
    program = shutil.which("promtool") or (built if built.exists() else find_program("promtool"))
    done = subprocess.run([program, *arguments], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def single(shared_single):
    shared_single.spotify.reset("behaviour", "hanging", "clock", "counters", "log")
    forget_failures(shared_single)
    close_breakers(shared_single)
    yield shared_single
    shared_single.spotify.reset("behaviour", "hanging", "clock")
    forget_failures(shared_single)


@pytest.fixture(scope="module")
def shared_single():
    """One service of one worker, which waits for nobody for long."""
    settings = {"UPSTREAM_TIMEOUT_MS": 700, "STORE_TIMEOUT_MS": 300}
    with running(services=1, workers=1, settings=settings) as stack:
        yield stack


# Requests

@pytest.mark.parametrize("method, route, status", [
    ("GET", "/authorize", 302), ("GET", "/callback", 400), ("GET", "/session", 200), ("GET", "/token", 401),
    ("HEAD", "/token", 401), ("POST", "/refresh", 401), ("POST", "/logout", 204), ("GET", "/healthz", 200),
    ("GET", "/readyz", 200), ("POST", "/token", 405), ("OPTIONS", "/token", 403)])
def test_a_request_is_counted_by_route_and_status(single, method, route, status):
    with Moved(single) as moved:
        assert metrics.ask(single.services[0], method, route).status == status
    now = moved.now()
    assert now.only("requests_total") == {requests_of(route, status): 1, requests_of("/metrics", 200): 1}
    assert sum(now.only("request_duration_seconds_count").values()) == 2


@pytest.mark.parametrize("path", ["/nothing", "/token/", '/"} 1', "/\u00e9", "/metrics2"])
def test_a_path_that_is_none_is_counted_as_unknown(single, path):
    with Moved(single) as moved:
        assert metrics.ask(single.services[0], "GET", path).status == 404
    assert moved.only("requests_total")[requests_of("unknown", 404)] == 1


def test_each_route_of_the_table_has_a_label_and_a_group():
    routes = set(re.findall(r'^    \{"(/[a-z/]+)",', (TREE / "cgi/front/routes.c").read_text(), re.M))
    words = re.search(r"routes\[METRIC_ROUTE__MAX\] = \{(.*?)\};", (TREE / "cgi/base/metrics_table.c").read_text(), re.S)
    grouped = re.search(r"group_of\[METRIC_ROUTE__MAX\] = \{(.*?)\};", (TREE / "cgi/base/metrics.c").read_text(), re.S)
    labels = dict(re.findall(r'\[(METRIC_ROUTE_\w+)\] = "([^"]+)"', words[1]))
    assert "/token" in routes and routes == set(labels.values()) - {"unknown"}
    assert set(re.findall(r"\[(METRIC_ROUTE_\w+)\]", grouped[1])) == set(labels) - {"METRIC_ROUTE_UNKNOWN"}


def test_a_slow_request_is_in_the_bucket_of_its_time(single):
    single.spotify.next(1, grant="refresh_token", latency=0.3)
    browser = log_in(single, expires_in=30)
    with Moved(single) as moved:
        assert ask(single.services[0], browser, "/token").status == 200
    now = moved.now()
    for name, labels, below, above in [("request_duration_seconds", 'group="token",', 0.25, 0.5),
                                       ("upstream_call_duration_seconds", 'call="token refresh",', 0.2, 0.5)]:
        assert now[f'{name}_bucket{{{labels}le="{below}"}}'] == 0
        assert now[f'{name}_bucket{{{labels}le="{above}"}}'] == 1
        assert 0.3 <= now[f"{name}_sum{{{labels[:-1]}}}"] < 0.5


def test_what_is_under_way_is_shown_while_it_is(single):
    single.spotify.behave("token", grant="refresh_token", latency=0.5)
    browser = log_in(single, expires_in=30)
    with meanwhile(lambda: together(4, lambda: ask(single.services[0], browser, "/token"))) as answers:
        shown = ["requests_in_hand", "upstream_calls_in_flight", 'renewal_waiters{where="own_worker"}']
        wait_until(lambda: [scrape(single)[name] for name in shown] == [5, 1, 3], 10, "all are seen to wait")
        assert [answer.status for answer in answers.result(10)] == [200] * 4
    assert [scrape(single)[name] for name in shown] == [1, 0, 0]


def test_who_waits_for_another_worker_is_shown_while_it_does(make_stack):
    stack = make_stack(services=2, workers=1)
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "the end of the token")
    stack.spotify.hang("token")
    shown = 'renewal_waiters{where="other_worker"}'
    first, second = stack.services
    with meanwhile(lambda: ask(first, browser, "/token")) as leader:
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call to Spotify")
        with meanwhile(lambda: ask(second, browser, "/token")) as waiter:
            wait_until(lambda: Metrics(metrics.text(second))[shown] == 1, 5, "the one that waits")
            assert Metrics(metrics.text(first))[shown] == 0
            stack.spotify.release("token")
            assert waiter.result(10).status == leader.result(10).status == 200
    assert scrape(stack)[shown] == 0


# Logins

def test_a_login_is_counted(stack):
    with Moved(stack) as moved:
        log_in(stack)
    now = moved.now()
    assert now["logins_begun_total"] == 1
    assert now.only("logins_total") == {logins("success", "none"): 1}
    assert now.only("sessions_begun_total") == {'sessions_begun_total{by="login"}': 1}
    assert now.only("sessions_ended_total") == {}
    assert now.only("upstream_calls_total") == {calls("token code", "2xx"): 1, calls("profile", "2xx"): 1}
    assert now["session_reauth_seconds_count"] == 1


@pytest.mark.parametrize("behaviour, outcome, reason", [
    ({"endpoint": "authorize", "callback_error": "server_error"}, "failed", "server_error"),
    ({"endpoint": "authorize", "callback_error": "\"} 1"}, "failed", "server_error"),
    ({"endpoint": "token", "code_refusal": "invalid"}, "failed", "refused"),
    ({"endpoint": "token", "token_error": "invalid_client"}, "failed", "misconfigured"),
    ({"endpoint": "token", "status": 503}, "failed", "upstream"),
    ({"endpoint": "token", "early_close": "before"}, "failed", "upstream")])
def test_a_failed_login_is_counted_with_its_reason(stack, behaviour, outcome, reason):
    stack.spotify.behave(**behaviour)
    with Moved(stack) as moved:
        assert "error=" in Browser(stack).login().headers["Location"]
    forget_failures(stack)
    assert moved.only("logins_total") == {logins(outcome, reason): 1}
    assert moved.only("sessions_begun_total") == {}


def test_a_declined_login_is_no_failure(stack):
    browser = Browser(stack)
    with Moved(stack) as moved:
        browser.callback(browser.decline(redirect_of(browser.authorize())))
    assert moved.only("logins_total") == {logins("denied", "access_denied"): 1}


@pytest.mark.parametrize("how", ["another browser", "no cookie"])
def test_a_callback_in_another_browser_is_counted(stack, how):
    browser, other = Browser(stack), Browser(stack)
    url = browser.approve(redirect_of(browser.authorize()))
    if how == "another browser":
        other.authorize()
    with Moved(stack) as moved:
        assert other.callback(url).status_code == 400
    assert moved.only("logins_total") == {logins("failed", "invalid_state"): 1}


def test_a_callback_without_redis_is_counted(single):
    browser = Browser(single)
    url = browser.approve(redirect_of(browser.authorize()))
    with Moved(single) as moved, redis_away(single, "killed"):
        assert browser.callback(url).status_code == 503
    assert moved.only("logins_total") == {logins("failed", "store"): 1}


def test_the_same_callback_again_is_no_second_login(stack):
    browser = Browser(stack)
    url = browser.approve(redirect_of(browser.authorize()))
    with Moved(stack) as moved:
        assert [browser.callback(url).status_code for _ in range(3)] == [303] * 3
    assert moved.only("logins_total") == {logins("success", "none"): 1}
    assert moved.only("sessions_begun_total") == {'sessions_begun_total{by="login"}': 1}


def test_a_phones_login_is_counted_like_a_browsers(stack):
    phone = Phone(stack)
    code = phone.code()
    with Moved(stack) as moved:
        assert phone.swap(code).status_code == 200
        assert phone.refresh().status_code == 200
        assert phone.swap(code).status_code == 400
        stack.spotify.behave("token", token_error="invalid_client")
        assert phone.swap("x").status_code == 503
    assert moved.only("logins_total") == {logins("success", "none"): 1, logins("failed", "refused"): 1,
                                          logins("failed", "misconfigured"): 1}
    assert moved.only("sessions_begun_total") == {'sessions_begun_total{by="swap"}': 1}
    assert moved.only("tokens_handed_out_total") == {'tokens_handed_out_total{kind="user"}': 2}


def test_a_devices_login_is_counted_like_a_browsers(stack):
    terminal, browsers = Terminal(stack).begin(), [Browser(stack), Browser(stack)]
    urls = [browser.approve(redirect_of(submit(browser, open_page(browser, terminal.user_code))))
            for browser in browsers]
    with Moved(stack) as moved:
        assert [browser.callback(url).status_code for browser, url in zip(browsers, urls)] == [303] * 2
        assert terminal.poll().status_code == 200
    assert moved.only("logins_total") == {logins("success", "none"): 1, logins("failed", "expired"): 1}
    assert moved.only("sessions_begun_total") == {'sessions_begun_total{by="device"}': 1}
    assert moved.only("sessions_ended_total") == {}
    assert moved.only("tokens_handed_out_total") == {'tokens_handed_out_total{kind="user"}': 1}


def test_a_login_whose_worker_died_is_counted_once_however_often_it_is_delivered(make_stack):
    stack = make_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": 500, "STORE_TIMEOUT_MS": 200})
    browser = Browser(stack)
    url = browser.approve(redirect_of(browser.authorize()))
    stack.spotify.hang("token")
    with meanwhile(lambda: browser.callback(url)) as first:
        wait_until(lambda: stack.spotify.calls("token") == 1, 5, "the call to Spotify")
        os.kill(stack.services[0].workers()[0], signal.SIGKILL)
        assert first.result(10).status_code == 502
    stack.spotify.release("token")
    wait_until(stack.services[0].ready, 10, "another worker")
    answers = [*together(5, lambda: browser.callback(url)), browser.callback(url)]
    assert {redirect_of(answer).rpartition("?")[2] for answer in answers} == {"error=temporarily_unavailable"}
    assert scrape(stack).only("logins_total") == {logins("failed", "lost"): 1}


# Sessions

def test_a_logout_is_counted_when_there_was_a_session(stack):
    browser = log_in(stack)
    with Moved(stack) as moved:
        assert [browser.logout().status_code for _ in range(2)] == [204] * 2
    assert moved.only("sessions_ended_total") == {ended("logout"): 1}


def test_logouts_at_once_end_one_session(tmp_path):
    """All of them have found it when the first ends it."""
    redis = Redis(tmp_path / "redis").start()
    proxy = RedisProxy(tmp_path / "proxy.sock", redis.socket_path)
    try:
        with running(redis=redis, workers=1, settings={"REDIS_URL": f"unix://{proxy.path}"}) as stack:
            browser = log_in(stack)
            headers = {"Cookie": cookie_header(browser)}
            with Moved(stack) as moved:
                proxy.delay_s = 0.2
                assert {answer.status_code for answer in together(5, lambda: browser.logout(headers=headers))} == {204}
                proxy.delay_s = 0
            assert moved.only("sessions_ended_total") == {ended("logout"): 1}
    finally:
        proxy.close()
        redis.stop()


def test_a_session_that_is_ended_by_its_id_is_counted(stack):
    browser, other = log_in(stack, "ended-by-id"), log_in(stack, "ended-by-id")
    listed = [session["id"] for session in browser.fetch("GET", "/sessions").json()["sessions"]]
    with Moved(stack) as moved:
        assert [browser.fetch("POST", "/logout", data={"id": listed[1]}).status_code for _ in range(2)] == [204] * 2
    assert moved.only("sessions_ended_total") == {ended("logout"): 1}
    assert not other.session().json()["authenticated"]


def test_a_logout_everywhere_counts_every_session_that_there_was(stack):
    stack.spotify.user("everywhere")
    mine = [log_in_with_key(stack, "everywhere") for _ in range(4)]
    stack.redis.client().delete(mine[3][1])
    with Moved(stack) as moved:
        assert mine[0][0].logout(all=True).status_code == 204
    assert moved.only("sessions_ended_total") == {ended("logout_all"): 3}


def test_a_logout_everywhere_without_a_user_ends_and_counts_one(stack):
    stack.spotify.behave("api", status=500)
    browser = log_in(stack)
    with Moved(stack) as moved:
        assert browser.logout(all=True).status_code == 204
    assert moved.only("sessions_ended_total") == {ended("logout_all"): 1}


def test_a_newer_login_of_the_browser_ends_the_older_session(stack):
    browser = log_in(stack)
    with Moved(stack) as moved:
        browser.login()
    assert moved.only("sessions_ended_total") == {ended("replaced"): 1}


def test_a_login_with_the_cookie_of_a_session_that_is_gone_ends_none(stack):
    browser, key = log_in_with_key(stack)
    stack.redis.client().delete(key)
    with Moved(stack) as moved:
        assert browser.login().status_code == 303
    assert moved.only("sessions_begun_total") == {'sessions_begun_total{by="login"}': 1}
    assert moved.only("sessions_ended_total") == {}


def test_a_session_that_spotify_refuses_for_good_is_counted_once(make_stack, tmp_path):
    clock = Clock(tmp_path / "time")
    stack = make_stack(workers=1, settings={**clock.settings(), "SESSION_MAX_AGE": 20000000, "SESSION_IDLE_TTL": 20000000})
    browser = log_in(stack)
    stack.spotify.behave("token", grant="refresh_token", refresh_refusal="revoked")
    clock.advance(3601)
    with Moved(stack) as moved:
        assert browser.token().status_code == 401
        assert moved.only("renewals_total") == {renewals("suspect"): 1}
        assert moved.only("sessions_ended_total") == {}
        clock.advance(301)
        assert browser.token().status_code == 401
    assert moved.only("sessions_ended_total") == {ended("refused"): 1}
    assert moved.only("renewals_total") == {renewals("suspect"): 1, renewals("absent"): 1}
    assert moved.only("upstream_calls_total") == {calls("token refresh", "4xx"): 2}


@pytest.mark.parametrize("max_age_weeks, above_weeks, within_weeks", [(None, 24, 26), (3, 2, 3), (1, 0, 1)])
def test_the_weeks_until_a_user_has_to_agree_anew(make_stack, max_age_weeks, above_weeks, within_weeks):
    settings = {"SESSION_MAX_AGE": max_age_weeks * WEEK_S} if max_age_weeks else {}
    stack = make_stack(workers=1, settings=settings)
    log_in(stack, expires_in=30).token()  # a login and a renewal
    shown = scrape(stack)
    assert shown["session_reauth_seconds_count"] == 2
    assert shown[f'session_reauth_seconds_bucket{{le="{above_weeks * WEEK_S}"}}'] == 0
    assert shown[f'session_reauth_seconds_bucket{{le="{within_weeks * WEEK_S}"}}'] == 2


# Tokens

def test_tokens_are_counted_when_they_are_handed_out(single):
    browser = log_in(single)
    with Moved(single) as moved:
        for method, route, status in [("GET", "/token", 200), ("POST", "/refresh", 200), ("GET", "/verify", 204),
                                      ("HEAD", "/token", 200), ("HEAD", "/verify", 204)]:
            assert ask(single.services[0], browser, route, method).status == status
        assert metrics.ask(single.services[0], "GET", "/token").status == 401
        assert ask(single.services[0], browser, "/token", QUERY_STRING="scope=streaming").status == 403
    assert moved.only("tokens_handed_out_total") == {'tokens_handed_out_total{kind="user"}': 3}


def test_a_storm_on_one_session_is_one_renewal_of_one_worker(stack):
    stack.spotify.behave("token", grant="refresh_token", latency=0.3)
    browser = log_in(stack, expires_in=30)
    with Moved(stack) as moved:
        assert {answer.status_code for answer in together(100, browser.token)} == {200}
    assert moved.now()["session_reauth_seconds_count"] == 1
    now = moved.only("renewals_total")
    assert now.pop(renewals("renewed")) == 1
    assert set(now) <= {renewals("shared")} and sum(now.values()) <= 3, "the other workers took its result"


@pytest.mark.parametrize("behaviour, outcome, answer", [
    ({"status": 503}, "upstream", "5xx"), ({"status": 429}, "upstream", "429"), ({"status": 302}, "upstream", "other"),
    ({"hang": "before"}, "upstream", "none"), ({"token_error": "invalid_client"}, "misconfigured", "4xx")])
def test_a_failed_renewal_is_counted_with_spotifys_answer(single, behaviour, outcome, answer):
    browser = log_in(single, expires_in=30)
    single.spotify.behave("token", grant="refresh_token", **behaviour)
    with Moved(single) as moved:
        assert ask(single.services[0], browser, "/token").status == 200, "it is valid for half a minute yet"
    now = moved.now()
    assert now.only("renewals_total") == {renewals(outcome): 1}
    assert set(now.only("upstream_calls_total")) == {calls("token refresh", answer)}


def test_calls_that_are_not_made_are_counted(make_stack):
    stack = make_stack(workers=1, settings={"UPSTREAM_MAX_IN_FLIGHT": 1})
    first, second = log_in(stack, expires_in=30), log_in(stack, expires_in=30)
    stack.spotify.hang("token")
    with Moved(stack) as moved, meanwhile(first.token) as hanging:
        wait_until(lambda: scrape(stack)["upstream_calls_in_flight"] == 1, 10, "the first call")
        assert second.token().status_code == 200
        assert moved.only("upstream_calls_total") == {calls("token refresh", "busy"): 1}
        assert moved.only("renewals_total") == {renewals("upstream_busy"): 1}
        stack.spotify.release("token")
        assert hanging.result(10).status_code == 200


def test_an_open_breaker_and_what_it_holds_back_are_shown(single):
    browser = log_in(single, expires_in=30)
    single.spotify.behave("token", grant="refresh_token", status=500)
    with Moved(single) as moved:
        for _ in range(12):
            assert ask(single.services[0], browser, "/token").status == 200
            forget_failures(single)
        now = moved.now()
        assert now.only("breaker_open") == {'breaker_open{upstream="accounts"}': 1}
        assert now[renewals("upstream")] >= 5 and now[renewals("held_back")] >= 1
        single.spotify.reset("behaviour")
        close_breakers(single)
        assert moved.only("breaker_open") == {}


def test_refusals_in_masses_are_shown_until_they_end(make_stack, tmp_path):
    clock = Clock(tmp_path / "time")
    stack = make_stack(services=2, workers=1, settings={**clock.settings(), "SESSION_MAX_AGE": 20000000})
    browsers = [log_in(stack) for _ in range(24)]
    clock.advance(3601)
    stack.spotify.behave("token", grant="refresh_token", refresh_refusal="revoked")
    assert scrape(stack)["mass_refusal"] == 0
    assert {browser.token().status_code for browser in browsers} == {401}
    assert [Metrics(metrics.text(service))["mass_refusal"] for service in stack.services] == [1, 1]
    clock.advance(660)
    assert [Metrics(metrics.text(service))["mass_refusal"] for service in stack.services] == [0, 0]


# Redis

@pytest.mark.parametrize("how, reason", [("paused", "slow"), ("killed", "unreachable")])
def test_redis_is_timed_and_its_failures_are_counted(single, how, reason):
    browser = log_in(single)
    with Moved(single) as moved:
        assert ask(single.services[0], browser, "/token").status == 200
        now = moved.now()
        assert now["redis_duration_seconds_count"] >= 1 and now.only("redis_errors_total") == {}
        with redis_away(single, how):
            assert ask(single.services[0], browser, "/token").status == 503
            now = moved.now()
    assert set(now.only("redis_errors_total")) == {f'redis_errors_total{{reason="{reason}"}}'}
    assert now["redis_duration_seconds_count"] >= 2


def test_an_error_reply_of_redis_is_counted(single):
    single.redis.client().config_set("maxmemory", 1)
    try:
        with Moved(single) as moved:
            assert metrics.ask(single.services[0], "GET", "/authorize").status == 503
        assert set(moved.only("redis_errors_total")) == {'redis_errors_total{reason="oom"}'}
    finally:
        single.redis.client().config_set("maxmemory", 0)


def test_each_trouble_of_redis_has_a_label():
    troubles = re.search(r"troubles\[TROUBLE__MAX\] = \{(.*?)\};", (TREE / "cgi/store/redis_trouble.c").read_text(), re.S)
    words = re.search(r"redis_errors\[METRIC_REDIS__MAX\] = \{(.*?)\};",
                      (TREE / "cgi/base/metrics_table.c").read_text(), re.S)
    assert set(re.findall(r'\] = \{"(\w+)"', troubles[1])) == set(re.findall(r'= "(\w+)"', words[1])) - {"other"}


def test_metrics_are_shown_while_redis_is_away(single):
    with redis_away(single, "killed"):
        assert Metrics(metrics.text(single.services[0]))["workers"] == 1


def test_renewed_tokens_that_redis_has_not_taken_are_shown(single):
    single.spotify.next(1, grant="refresh_token", answer_delay=0.4)
    browser = log_in(single, expires_in=30)
    with meanwhile(lambda: ask(single.services[0], browser, "/token")) as leader:
        wait_until(lambda: single.spotify.calls(grant="refresh_token") == 1, 5, "the call to Spotify")
        with redis_away(single, "killed"):
            assert leader.result(10).status == 200
            assert scrape(single)["renewals_unsaved"] == 1
    wait_until(lambda: scrape(single)["renewals_unsaved"] == 0, 10, "Redis takes it")


# Workers

def count_in_all_workers(stack, browser, least=20):
    """Requests until every worker of every service has answered some; how many /token were answered."""
    counted = 0

    def pids(service):
        return {line["pid"] for line in service.log_lines() if line.get("route") == "/token"}

    def ask_some():
        nonlocal counted
        for service in stack.services:
            answers = together(least, lambda: ask(service, browser, "/token").status)
            assert set(answers) == {200}
            counted += least
        return all(set(service.workers()) <= pids(service) for service in stack.services)

    wait_until(ask_some, 30, "every worker has answered")
    return counted


def test_what_all_workers_counted_is_summed_whoever_is_asked(make_stack):
    stack = make_stack(services=2, workers=2)
    browser = log_in(stack)
    counted = count_in_all_workers(stack, browser)
    own = [Metrics(metrics.text(service)) for service in stack.services]
    assert sum(shown[requests_of("/token", 200)] for shown in own) == counted
    for service, shown in zip(stack.services, own):
        assert shown["workers"] == 2
        together(20, lambda: metrics.ask(service))
        for _ in range(20):
            assert Metrics(metrics.text(service))[requests_of("/token", 200)] == shown[requests_of("/token", 200)]


def test_a_killed_worker_loses_no_count_and_leaves_nothing_under_way(make_stack):
    stack = make_stack(workers=2)
    service, browser = stack.services[0], log_in(stack)
    due = log_in(stack, expires_in=30)
    counted = count_in_all_workers(stack, browser)
    before = scrape(stack)
    stack.spotify.hang("token")
    with meanwhile(lambda: metrics_or_closed(lambda: ask(service, due, "/token"))) as hanging:
        wait_until(lambda: scrape(stack)["upstream_calls_in_flight"] == 1, 10, "a call hangs")
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        assert hanging.result(10) is None
    wait_until(lambda: scrape(stack)['worker_ends_total{how="died"}'] == 2 and scrape(stack)["workers"] == 2, 10, "new workers")
    after = scrape(stack)
    assert after[requests_of("/token", 200)] == before[requests_of("/token", 200)] == counted
    assert after["requests_in_hand"] == 1 and after["upstream_calls_in_flight"] == 0
    for name in ("logins_begun_total", "request_duration_seconds_count{group=\"token\"}", "start_time_seconds"):
        assert after[name] == before[name]
    stack.spotify.release("token")
    assert count_in_all_workers(stack, browser) == scrape(stack)[requests_of("/token", 200)] - counted


def metrics_or_closed(call):
    try:
        return call()
    except fastcgi.Closed:
        return None


def test_a_reload_keeps_the_counts(make_stack):
    stack = make_stack(workers=2)
    service, browser = stack.services[0], log_in(stack)
    counted, old = count_in_all_workers(stack, browser), set(service.workers())
    for reloads in (1, 2):
        service.signal(signal.SIGHUP)
        wait_until(lambda: len(service.workers()) == 2 and not old & set(service.workers()), 20, "the new workers alone")
        wait_until(lambda: scrape(stack)['worker_ends_total{how="drained"}'] == 2 * reloads, 5, "their end is known")
        shown = scrape(stack)
        assert shown[requests_of("/token", 200)] == counted
        assert (shown["workers"], shown['worker_ends_total{how="died"}']) == (2, 0)
        old = set(service.workers())
        counted += count_in_all_workers(stack, browser)
    assert scrape(stack)[requests_of("/token", 200)] == counted


def test_the_start_and_the_build_are_told(make_stack):
    begun = time.time()
    stack = make_stack(workers=1)
    shown = scrape(stack)
    assert begun - 1 <= shown["start_time_seconds"] <= time.time()
    version = stack.services[0].run("--version").stdout.split()[1]
    assert shown.only("build_info") == {f'build_info{{version="{version}"}}': 1}


# Who sees it, and what it says

def test_head_and_other_methods(single):
    whole = metrics.ask(single.services[0])
    assert whole.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert whole.header("Cache-Control") == "no-store" and int(whole.header("Content-Length")) == len(whole.body)
    head = metrics.ask(single.services[0], "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Type") == whole.header("Content-Type")
    for method in ("POST", "OPTIONS", "DELETE"):
        refused = metrics.ask(single.services[0], method)
        assert (refused.status, refused.header("Allow")) == (405, "GET, HEAD")


def test_it_is_on_the_admin_socket_and_not_public(stack):
    status, text = stack.nginx.admin("/metrics")
    assert status == 200 and Metrics(text)["workers"] == 2
    browser = Browser(stack)
    for path in ("/metrics", "/metrics/", "/metrics?x=1", "//metrics", "/x/../metrics"):
        for answer in (browser.fetch("GET", path), browser.navigate(browser.mount + path)):
            assert answer.status_code == 404 and "spotify_auth_" not in answer.text


@pytest.fixture
def prometheus_server(single, tmp_path):
    """nginx with spotify-auth-metrics.conf as it is, but for port and socket: host:port."""
    with reserve_port() as port:
        listen = f"127.0.0.1:{port.getsockname()[1]}"
        text = (TREE / "nginx" / "spotify-auth-metrics.conf").read_text()
        for old, new in [("127.0.0.1:9145", listen), ("unix:/run/spotify-auth/spotify-auth.sock",
                                                      single.services[0].nginx_address)]:
            assert text.count(old) == 1
            text = text.replace(old, new)
        temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in
                            ("client_body", "fastcgi", "proxy", "scgi", "uwsgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(
            f"{user} daemon off; pid {tmp_path}/nginx.pid; events {{}} http {{ {temporary} {text} }}")
        nginx = Process("nginx for Prometheus", tmp_path / "error.log")
        nginx.launch([Nginx.program(), "-p", tmp_path, "-e", nginx.log_path, "-c", tmp_path / "nginx.conf"])
        try:
            nginx.wait_ready(lambda: can_connect(2, ("127.0.0.1", int(listen.split(":")[1]))))
            yield listen
        finally:
            nginx.stop()


def test_prometheus_gets_it_from_the_port_of_its_own(single, prometheus_server):
    browser = Browser(single)
    answer = browser.navigate(f"http://{prometheus_server}/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert Metrics(answer.text)["workers"] == 1
    for path in ("/", "/token", "/metrics/", "/healthz"):
        assert browser.navigate(f"http://{prometheus_server}{path}").status_code == 404


def test_plain_cgi_has_no_metrics(single):
    environment = {**single.services[0].environment(), "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET",
                   "SCRIPT_NAME": "/cgi-bin/auth", "PATH_INFO": "/metrics", "QUERY_STRING": ""}
    done = subprocess.run([single.services[0].program()], env=environment, capture_output=True, timeout=30)
    assert done.stdout.startswith(b"Status: 404 ")


def test_nothing_secret_and_nothing_foreign_is_in_it(stack, evidence):
    stack.spotify.user('"} 1', display_name='spotify_auth_forged 1\n')
    stack.spotify.behave("token", extra_fields={"error": "forged"})
    browser = log_in(stack, '"} 1')
    browser.token(scope="forged_scope")
    browser.refresh()
    browser.fetch("FORGED", "/token")
    browser.fetch("GET", "/forged?forged=1", headers={"X-Forged": "forged", "User-Agent": "forged"})
    stack.spotify.behave("token", grant="authorization_code", token_error="forged", token_error_text="forged")
    Browser(stack).login()
    text = "".join(metrics.text(service) for service in stack.services)
    words = set(re.findall(r'="([^"]*)"', text))
    assert "forged" not in text and '"}' not in {word[:2] for word in words}
    assert all(re.fullmatch(r"[A-Za-z0-9_/. +-]+", word) for word in words), words
    for kind, values in stack.spotify.secrets_by_kind().items():
        assert not [kind for value in values if len(value) > 8 and value in text]
    for cookie in ("spotify-session", "spotify-login"):
        assert browser.cookie(cookie).value not in text
    evidence.texts.append(("metrics", text))


# What is made of it

def test_promtool_finds_no_fault(stack):
    log_in(stack).token()
    for service in stack.services:
        assert promtool("check", "metrics", text=metrics.text(service)) == ""


def test_promtool_takes_the_alert_rules_and_the_configuration():
    assert "12 rules found" in promtool("check", "rules", MONITORING / "alerts.yml")
    promtool("check", "config", MONITORING / "prometheus.yml")
    ports = [re.search(r"127\.0\.0\.1:\d+", path.read_text())[0]
             for path in (MONITORING / "prometheus.yml", TREE / "nginx" / "spotify-auth-metrics.conf")]
    assert ports[0] == ports[1]


def test_promtool_sees_the_alerts_fire():
    tests = pathlib.Path(__file__).with_name("alerts_test.yml")
    promtool("test", "rules", tests)
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    assert alerts == list(dict.fromkeys(re.findall(r'alertname="(\w+)"', tests.read_text())))


def queries():
    yield "alerts", (MONITORING / "alerts.yml").read_text()
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def test_alerts_and_dashboard_ask_for_what_there_is(single):
    log_in(single).token()
    text = metrics.text(single.services[0])
    names = set(re.findall(r"^(spotify_auth_\w+)", text, re.M))
    keys = set(re.findall(r'[{,]([a-z_]+)="', text))
    asked = {}
    for where, query in queries():
        for name, labels in re.findall(r"(spotify_auth_\w+)(?:\{([^}]*)\})?", query):
            if name not in names:
                assert where == "alerts" and name in ("spotify_auth_logins_total",), (where, name)
            asked[name] = where
            assert set(re.findall(r'(\w+)[=!]~?"', labels)) <= keys | {"instance"}, (where, query)
    families = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    shown = {re.sub("_bucket$", "", name) for name in asked}
    assert families - shown == {"spotify_auth_start_time_seconds"}, "everything else is on the dashboard"


def test_the_dashboard_is_in_order():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"] == "spotify-auth"
    cells = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= own
