"""Restarts and new settings while people use the service: nobody notices."""

import signal
import time

import pytest

import traffic
from browser import Browser
from sessions import OWN_COOKIE, cookie_header, log_in, log_in_with_key
from stack import new_session_key, wait_until

GENERATION_LEN = 8  # what stands before the sealed record (store_session.c)


def requests_of(stack):
    """(what load sends, {path: the one status it is to get}). The callback is one of a login that is long over: it
    takes the same way as a good one, as far as Redis."""
    browser = log_in(stack)
    called = {"Cookie": cookie_header(browser), "X-Requested-With": "x", "Sec-Fetch-Site": "same-origin"}
    login = {"Cookie": "spotify-login=" + browser.cookie("spotify-login").value, "Accept": "application/json"}
    callback = "/auth/callback?code=x&state=" + "A" * 43
    requests = [("GET", "/auth/token", called, None), ("GET", callback, login, None),
                ("GET", "/auth/session", called, None), ("POST", "/auth/refresh", called, None),
                ("GET", "/auth/authorize", {"Accept": "application/json"}, None),
                ("POST", "/auth/logout", {**called, "Cookie": ""}, None)]
    return requests, {"/auth/token": 200, "/auth/callback": 400, "/auth/session": 200, "/auth/refresh": 200,
                      "/auth/authorize": 200, "/auth/logout": 204}


def wait_for_more(load, count=200):
    begun = load.count()
    wait_until(lambda: load.count() > begun + count, 30, "load")


def assert_nothing_lost(load, expected):
    wrong = {key: count for key, count in load.answers.items() if expected[key[0]] != key[1]}
    assert wrong == {}, load.answers
    assert {path for path, _ in load.answers} == set(expected)


@pytest.fixture
def two(make_stack):
    return make_stack(services=2, workers=2)


def test_82_end_of_one_of_two_services_under_load_costs_no_request(two):
    requests, expected = requests_of(two)
    with traffic.Load(two.url, requests, threads=8) as load:
        wait_for_more(load)
        assert two.services[0].stop() == 0
        wait_for_more(load)
    assert_nothing_lost(load, expected)


def test_82_rolling_restart_of_both_services_under_load_costs_no_request(two):
    requests, expected = requests_of(two)
    begun = time.monotonic()
    with traffic.Load(two.url, requests, threads=12) as load:
        for service in two.services * 4:
            wait_for_more(load)
            assert service.stop() == 0
            service.start()
    assert_nothing_lost(load, expected)
    assert load.count() / (time.monotonic() - begun) > 100


def test_82_callbacks_on_many_connections_are_not_cut_off_by_restarts(make_stack):
    """nginx sends them once: one that arrives in the last moment before a service ends has to be answered by it."""
    stack = make_stack(services=2, workers=4, nginx_workers=2)
    requests, expected = requests_of(stack)
    with traffic.Load(stack.url, requests[1:2], threads=48) as load:
        for service in stack.services * 8:
            time.sleep(0.03)  # so that the next one is met by connections that are just being made
            assert service.stop() == 0
            service.start()
    assert set(load.answers) == {("/auth/callback", expected["/auth/callback"])}, load.answers


def test_82_logins_under_way_survive_a_rolling_restart(two):
    """From /authorize to the end of the callback, each step at whatever service is there."""
    def log_in_once():
        browser = Browser(two)
        answer = browser.login()
        return answer.status_code, browser.token().status_code
    with traffic.steady(*[log_in_once] * 6) as results:
        for service in two.services * 2:
            count = len(results)
            wait_until(lambda count=count: len(results) > count + 6, 30, "logins")
            service.restart()
    assert set(results) == {(303, 200)}


def test_sighup_under_load_costs_no_request(two):
    requests, expected = requests_of(two)
    with traffic.Load(two.url, requests, threads=8) as load:
        for service in two.services * 3:
            before = service.workers()
            service.signal(signal.SIGHUP)
            wait_until(lambda service=service, before=before: len(service.workers()) == len(before) and
                       not set(service.workers()) & set(before), 15, "new workers")
            wait_for_more(load)
    assert_nothing_lost(load, expected)


def test_load_that_only_waits_for_spotify_is_finished_by_a_rolling_restart(two):
    browsers = [log_in(two, expires_in=30) for _ in range(20)]
    two.spotify.behave("token", grant="refresh_token", latency=0.8)
    with traffic.background() as submit:
        answers = [submit(browser.token) for browser in browsers]
        wait_until(lambda: two.spotify.calls(grant="refresh_token") == 20, 10, "20 calls")
        for service in two.services:
            service.restart()
        assert [answer.result().status_code for answer in answers] == [200] * 20
    assert two.spotify.calls(grant="refresh_token") == 20


# New keys


@pytest.fixture
def keyed(make_stack, tmp_path):
    """A stack whose keys stand in a file: .keys is its path."""
    path = tmp_path / "keys"
    path.write_text(new_session_key("old"))
    stack = make_stack(workers=2, settings={"SESSION_KEYS": None, "SESSION_KEYS_FILE": path})
    stack.keys = path
    return stack


def take_over(stack, text):
    """The file with this text, SIGHUP, and new workers alone."""
    service = stack.services[0]
    before = service.workers()
    stack.keys.write_text(text)
    service.signal(signal.SIGHUP)
    wait_until(lambda: len(service.workers()) == len(before) and not set(service.workers()) & set(before), 15,
               "new workers")


def sealed_under(stack, key):
    """The kid in the stored envelope: it stands there in clear."""
    value = stack.redis.client().get(key)[GENERATION_LEN:]
    return [kid for kid in ("old", "new") if value[1:].startswith(bytes([len(kid)]) + kid.encode()) or
            kid.encode() in value[:8]]


def test_sighup_with_a_new_key_seals_sessions_anew_when_they_are_next_written(keyed):
    early, early_key = log_in_with_key(keyed, expires_in=30)
    idle, idle_key = log_in_with_key(keyed)
    old, new = keyed.keys.read_text(), new_session_key("new")
    cookies = [browser.cookie(OWN_COOKIE).value for browser in (early, idle)]
    take_over(keyed, f"{new},{old}")
    late, late_key = log_in_with_key(keyed)
    assert early.session().json()["authenticated"] is True
    assert [sealed_under(keyed, key) for key in (early_key, idle_key, late_key)] == [["old"], ["old"], ["new"]]
    assert early.token().json()["expires_in"] > 60  # renewed, and so written
    assert idle.token().status_code == 200          # only read
    assert [sealed_under(keyed, key) for key in (early_key, idle_key)] == [["new"], ["old"]]
    take_over(keyed, new)
    assert early.token().status_code == late.token().status_code == 200
    answer = idle.token()  # too early to drop the old key for this one: said, not logged out
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (503, False)
    take_over(keyed, f"{new},{old}")
    assert idle.token().status_code == 200
    assert cookies == [browser.cookie(OWN_COOKIE).value for browser in (early, idle)]


def test_sighup_with_a_new_key_keeps_logins_that_are_under_way(keyed):
    browser = Browser(keyed)
    url = browser.approve(browser.authorize().headers["Location"])
    take_over(keyed, f"{new_session_key('new')},{keyed.keys.read_text()}")
    assert browser.callback(url).status_code == 303
    assert browser.token().status_code == 200


@pytest.mark.parametrize("broken", ["", "new:short", "no key at all"])
def test_sighup_with_broken_keys_keeps_the_old_ones_and_says_why(keyed, broken):
    service, browser = keyed.services[0], log_in(keyed)
    workers = service.workers()
    requests, expected = requests_of(keyed)
    with traffic.Load(keyed.url, requests, threads=4) as load:
        keyed.keys.write_text(broken)
        service.signal(signal.SIGHUP)
        refused = wait_until(lambda: [line for line in service.log_lines() if line.get("event") == "reload refused"],
                             5, "the log line")
        wait_for_more(load, 50)
    assert_nothing_lost(load, expected)
    assert refused[0]["level"] == "error"
    problem, = [line for line in service.log_lines() if line.get("event") == "bad setting"]
    assert problem["problem"].startswith("SESSION_KEYS:")
    assert service.workers() == workers
    assert browser.token().status_code == 200
