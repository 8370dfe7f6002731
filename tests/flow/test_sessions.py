"""GET /sessions, and POST /logout with the id of one of them (API.md 3, 4.1, 4.2)."""

import base64
import hashlib
import re
import time

import pytest

from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import (OWN_COOKIE, PREFIX, assert_error, assert_login_required, assert_unavailable, keys, log_in,
                      log_in_with_key, redis_away)
from stack import new_session_key, wait_until

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
          "Version/18.0 Mobile/15E148 Safari/604.1")


def log_in_as(stack, user, agent=None):
    """A browser with that User-Agent. Each test has users of its own, since the stack is shared."""
    browser = Browser(stack)
    location = browser.authorize().headers["Location"]
    answer = browser.callback(browser.approve(location, user), headers={"User-Agent": agent} if agent else None)
    assert answer.status_code == 303 and browser.cookie(OWN_COOKIE)
    return browser


def listed(browser, **how):
    answer = browser.fetch("GET", "/sessions", **how)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"sessions"}
    return answer.json()["sessions"]


def log_out(browser, session_id, **form):
    return browser.fetch("POST", "/logout", data={"id": session_id, **form})


def is_logged_in(browser):
    return browser.session().json()["authenticated"]


def test_a_user_sees_the_own_sessions(stack):
    begun = int(time.time())
    phone = log_in_as(stack, "list-1", IPHONE)
    desk = log_in_as(stack, "list-1", FIREFOX)
    found = listed(desk)
    assert [(s["user_agent"], s["current"]) for s in found] == [("Firefox on Linux", True), ("Safari on iPhone", False)]
    for session in found:
        assert set(session) == {"id", "current", "begun_at", "last_used_at", "user_agent"}
        assert re.fullmatch(r"[\w-]{22}", session["id"])
        assert begun <= session["begun_at"] <= session["last_used_at"] <= time.time() + 1
    mirrored = {s["id"]: s["current"] for s in listed(phone)}
    assert mirrored == {s["id"]: not s["current"] for s in found}


def test_a_user_sees_nobody_elses(stack):
    own, other = log_in_as(stack, "list-2"), log_in_as(stack, "list-3")
    assert len(listed(own)) == len(listed(other)) == 1
    assert listed(own)[0]["id"] != listed(other)[0]["id"]


def test_an_unknown_browser_has_no_name(stack):
    assert listed(log_in_as(stack, "list-4"))[0]["user_agent"] is None


def test_a_user_agent_of_markup_is_not_shown(stack):
    answer = log_in_as(stack, "list-5", "<script>alert(1)</script> Firefox/1").fetch("GET", "/sessions")
    assert answer.json()["sessions"][0]["user_agent"] == "Firefox" and "script" not in answer.text


def test_ids_are_neither_the_cookie_nor_the_name_in_redis(stack):
    browser, key = log_in_with_key(stack, "list-6")
    text = browser.fetch("GET", "/sessions").text
    name = re.search(r"\{(.+)\}", key.decode())[1]
    assert browser.cookie(OWN_COOKIE).value not in text and name not in text and name[:22] not in text


def test_last_used_follows_the_use(make_stack):
    stack = make_stack(services=2, workers=2, settings={"SESSION_IDLE_TTL": 6})
    used, watching = log_in_as(stack, "ada"), log_in_as(stack, "ada")

    def last_used():
        used.token()
        times = {s["last_used_at"] - s["begun_at"] for s in listed(watching) if not s["current"]}
        return times and times.pop() >= 2
    wait_until(last_used, 10, "the list follows", 0.3)


def test_a_session_that_ended_is_not_shown(stack):
    first, second = log_in_as(stack, "list-7"), log_in_as(stack, "list-7")
    assert len(listed(second)) == 2
    first.logout()
    assert len(listed(second)) == 1


def test_a_replaced_session_leaves_no_name_behind(stack):
    browser = log_in_as(stack, "list-8")
    client = stack.redis.client()
    before = {key: client.zcard(key) for key in keys(stack, "user")}
    browser.login("list-8")
    after = {key: client.zcard(key) for key in keys(stack, "user")}
    assert after == before and len(listed(browser)) == 1


def test_idle_sessions_are_not_shown(make_stack):
    stack = make_stack(settings={"SESSION_IDLE_TTL": 2})
    log_in_as(stack, "ada")
    watching = log_in_as(stack, "ada")
    wait_until(lambda: len(listed(watching)) == 1, 10, "the end of the idle one", 0.2)


def test_without_a_profile_one_sees_oneself_alone(make_stack):
    stack = make_stack(settings={"SPOTIFY_PROFILE": "off"})
    first, second = log_in_as(stack, "ada", FIREFOX), log_in_as(stack, "ada")
    only, = listed(first)
    assert only["current"] and only["user_agent"] == "Firefox on Linux" and only["begun_at"]
    log_out(first, only["id"])
    assert not is_logged_in(first) and is_logged_in(second)


@pytest.mark.parametrize("cookie, cleared", [(None, False), (f"{OWN_COOKIE}=" + "A" * 43, True)])
def test_without_a_session_login_is_required(stack, cookie, cleared):
    assert_login_required(Browser(stack).fetch("GET", "/sessions", headers={"Cookie": cookie}), cleared)


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_without_redis_it_is_503(make_stack, how):
    stack = make_stack()
    browser = log_in_as(stack, "ada")
    with redis_away(stack, how):
        assert_unavailable(browser.fetch("GET", "/sessions"))
        assert_unavailable(log_out(browser, "x" * 22))
    assert is_logged_in(browser)


@pytest.mark.parametrize("how", [{"origin": "https://evil.example"}, {"headers": {"X-Requested-With": None}}])
def test_another_site_sees_nothing(stack, how):
    assert_error(log_in(stack).fetch("GET", "/sessions", **how), 403, "forbidden")


def test_a_listed_origin_may_read_the_list(stack):
    answer = log_in_as(stack, "list-9").fetch("GET", "/sessions", origin=LISTED_ORIGIN, site="same-site")
    assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_the_list_is_read_only(stack, method):
    answer = log_in(stack).fetch(method, "/sessions")
    assert answer.status_code == 405 and answer.headers["Allow"] == "GET, HEAD, OPTIONS"


# One of them ended


def test_another_session_is_ended_by_its_id_and_the_own_stays(stack):
    phone, desk = log_in_as(stack, "end-1"), log_in_as(stack, "end-1")
    other = [s["id"] for s in listed(desk) if not s["current"]][0]
    answer = log_out(desk, other)
    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers and "Clear-Site-Data" not in answer.headers
    assert not is_logged_in(phone) and is_logged_in(desk)
    assert_login_required(phone.token(), cleared=False)  # /session has cleared it
    assert [s["current"] for s in listed(desk)] == [True]


def test_the_own_session_is_ended_by_its_id_as_by_a_logout(stack):
    browser = log_in_as(stack, "end-2")
    answer = log_out(browser, listed(browser)[0]["id"])
    assert answer.status_code == 204 and "Max-Age=0" in answer.headers["Set-Cookie"]
    assert answer.headers["Clear-Site-Data"]
    assert not is_logged_in(browser)


@pytest.mark.parametrize("again", [False, True])
def test_an_id_that_is_not_there_is_204_and_ends_nothing(stack, again):
    browser, gone = log_in_as(stack, f"end-3-{again}"), log_in_as(stack, f"end-3-{again}")
    wanted = [s["id"] for s in listed(browser) if not s["current"]][0] if again else "A" * 22
    gone.logout()
    answer = log_out(browser, wanted)
    assert answer.status_code == 204 and "Set-Cookie" not in answer.headers
    assert is_logged_in(browser)


def test_nobody_ends_another_users_session(stack):
    victim, other = log_in_as(stack, "end-4"), log_in_as(stack, "end-5")
    assert log_out(other, listed(victim)[0]["id"]).status_code == 204
    assert is_logged_in(victim) and is_logged_in(other)


@pytest.mark.parametrize("form", [{"id": "x" * 23}, {"id": "x\ty"}, {"id": "x" * 22, "all": "true"}])
def test_a_malformed_wish_is_400_and_ends_nothing(stack, form):
    browser = log_in(stack)
    assert_error(browser.fetch("POST", "/logout", data=form), 400, "invalid_request")
    assert is_logged_in(browser)


def test_without_a_session_an_id_ends_nothing(stack):
    victim = log_in_as(stack, "end-6")
    assert log_out(Browser(stack), listed(victim)[0]["id"]).status_code == 204
    assert is_logged_in(victim)


# What stands in Redis


def test_the_list_is_sealed_and_opens_for_its_user_alone(stack):
    one, other = log_in_as(stack, "seal-1", FIREFOX), log_in_as(stack, "seal-2", IPHONE)
    client = stack.redis.client()
    shown = {key: client.hgetall(key) for key in keys(stack, "shown")}
    text = b"".join(part for entries in shown.values() for pair in entries.items() for part in pair)
    assert b"Firefox" not in text and b"iPhone" not in text and b"seal-1" not in text
    # An entry that is moved to another user's list says nothing there.
    mine, = [key for key, entries in shown.items() if name_of(stack, one) in entries]
    theirs, = [key for key, entries in shown.items() if name_of(stack, other) in entries]
    second = log_in_as(stack, "seal-2", IPHONE)
    client.hset(theirs, name_of(stack, other), client.hget(mine, name_of(stack, one)))
    found = [s for s in listed(second) if not s["current"]]
    assert found[0]["user_agent"] is None and found[0]["begun_at"] is None
    # It can be ended all the same.
    log_out(second, found[0]["id"])
    assert not is_logged_in(other)


def name_of(stack, browser):
    secret = base64.urlsafe_b64decode(browser.cookie(OWN_COOKIE).value + "=")
    digest = hashlib.blake2b(b"session\0" + secret, digest_size=32).digest()
    name = base64.urlsafe_b64encode(digest).rstrip(b"=")
    assert stack.redis.client().exists(f"{PREFIX}session:{{{name.decode()}}}")
    return name


def test_the_list_comes_under_a_new_key_as_sessions_are_used(make_stack):
    stack = make_stack(services=1, workers=1, settings={"SESSION_IDLE_TTL": 6})
    first, second = log_in_as(stack, "ada", FIREFOX), log_in_as(stack, "ada", IPHONE)
    service, old = stack.services[0], stack.session_keys
    new = new_session_key("k2")
    service.settings["SESSION_KEYS"] = f"{new},{old}"
    service.restart()
    client = stack.redis.client()
    shown, = keys(stack, "shown")

    def under_the_new_key():
        first.token(), second.token()
        return all(entry.startswith(b"\x01\x02k2") for entry in client.hvals(shown))
    wait_until(under_the_new_key, 10, "entries under the new key", 0.2)
    assert {s["user_agent"] for s in listed(first)} == {"Firefox on Linux", "Safari on iPhone"}


def test_logout_everywhere_leaves_no_list(stack):
    first, second = log_in_as(stack, "seal-3"), log_in_as(stack, "seal-3")
    before = keys(stack, "shown")
    first.logout(all=True)
    assert len(before - keys(stack, "shown")) == 1 and not is_logged_in(second)
