"""Scopes that are asked for later, on top of what was granted (API.md 3; RFC 6749 3.3)."""

import urllib.parse

import pytest

from browser import Browser, redirect_of
from sessions import assert_error, assert_unavailable, log_in, log_in_with_key, redis_away

FIRST = "user-read-private user-read-email"


def asked(answer):
    return urllib.parse.parse_qs(urllib.parse.urlsplit(redirect_of(answer)).query)["scope"][0]


def test_a_further_scope_is_asked_for_with_those_that_were_granted(stack):
    browser = log_in(stack)
    assert asked(browser.authorize(scope="streaming")) == FIRST + " streaming"
    assert asked(browser.authorize(scope="streaming user-read-email")) == FIRST + " streaming"


def test_without_a_session_just_what_is_named_is_asked_for(stack):
    assert asked(Browser(stack).authorize(scope="streaming")) == "streaming"
    browser = log_in(stack)
    browser.logout()
    assert asked(browser.authorize(scope="streaming")) == "streaming"


def test_a_login_that_names_no_scope_asks_for_the_setting(stack):
    browser = log_in(stack, scope="user-read-private")
    assert asked(browser.authorize()) == FIRST


def test_what_counts_is_what_spotify_granted_and_not_what_was_asked_for(stack):
    browser = log_in(stack, scope="user-read-private")
    assert asked(browser.authorize(scope="streaming")) == "user-read-private streaming"


def test_the_whole_way_from_insufficient_scope_to_the_granted_one(stack):
    browser = log_in(stack)
    body = assert_error(browser.token(scope="user-read-email streaming"), 403, "insufficient_scope")
    assert body["login_url"] == stack.url + "/auth/authorize?scope=streaming"
    going = browser.navigate(body["login_url"], "same-origin")
    assert browser.callback(browser.approve(redirect_of(going))).status_code == 303
    granted = browser.token(scope="user-read-email streaming")
    assert granted.status_code == 200 and set(granted.json()["scope"].split()) == {*FIRST.split(), "streaming"}


def test_declining_the_further_scope_keeps_the_session(stack):
    browser = log_in(stack)
    before = browser.token().json()
    back = browser.callback(browser.decline(redirect_of(browser.authorize(scope="streaming"))))
    assert back.headers["Location"].endswith("error=access_denied")
    assert browser.token().json()["access_token"] == before["access_token"]


def test_a_further_scope_that_spotify_does_not_give_is_not_there(stack):
    browser = log_in(stack)
    stack.spotify.next(1, grant="authorization_code", scope="reduced")
    assert browser.login(scope="streaming").status_code == 303
    assert_error(browser.token(scope="streaming"), 403, "insufficient_scope")


@pytest.mark.parametrize("wanted, login_asks", [
    ("streaming", "?scope=streaming"),
    ("streaming playlist-read-private user-read-email", "?scope=streaming%20playlist-read-private")])
def test_login_url_asks_for_what_is_missing(stack, wanted, login_asks):
    body = assert_error(log_in(stack).token(scope=wanted), 403, "insufficient_scope")
    assert body["login_url"] == stack.url + "/auth/authorize" + login_asks


@pytest.mark.parametrize("wanted", ["not-allowed-here", "streaming not-allowed-here", "not-allowed-here user-read-email"])
def test_where_no_login_can_bring_the_scope_there_is_no_login_url(stack, wanted):
    """A frontend that follows it would come back without the scope, and follow it again."""
    body = assert_error(log_in(stack).token(scope=wanted), 403, "insufficient_scope")
    assert "login_url" not in body and "SPOTIFY_SCOPE_ALLOWED" in body["error_description"]


def test_a_granted_scope_that_is_not_allowed_any_more_is_not_asked_for_again(make_stack):
    stack = make_stack(settings={"SPOTIFY_SCOPE_ALLOWED": FIRST})
    stack.spotify.behave("token", grant="authorization_code", scope="user-read-private streaming")
    browser = log_in(stack)
    assert asked(browser.authorize(scope="user-read-email")) == FIRST


def test_without_redis_no_login_begins_with_less_than_was_granted(stack):
    browser = log_in(stack)
    with redis_away(stack, "killed"):
        assert_unavailable(browser.authorize(scope="streaming", headers={"Accept": "application/json"}))


def test_beginning_a_login_is_no_use_of_the_session(make_stack):
    stack = make_stack(settings={"SESSION_IDLE_TTL": 60})
    browser, key = log_in_with_key(stack)
    client = stack.redis.client()
    client.pexpire(key, 30000)
    browser.authorize(scope="user-read-email")
    assert client.pttl(key) <= 30000
