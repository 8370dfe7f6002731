"""GET /token and POST /refresh: the access token for a web frontend (API.md 3; C.3 47 to 56)."""

import re

import pytest

from browser import Browser
from sessions import (Clock, assert_error, assert_login_required, forget_failures, keys, log_in, log_in_with_key,
                      refreshes)
from stack import wait_until

GRANTED = "user-read-private user-read-email"


def test_51_token_is_the_users_token_with_the_seconds_left(stack):
    browser = log_in(stack)
    answer = browser.token()
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Pragma"] == "no-cache"
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert body["access_token"] in stack.spotify.secrets("access_token")
    assert body["token_type"] == "Bearer" and body["scope"] == GRANTED
    assert 3590 <= body["expires_in"] <= 3600
    assert "Set-Cookie" not in answer.headers


def test_51_expires_in_counts_down(stack):
    browser = log_in(stack)
    first = browser.token().json()["expires_in"]
    wait_until(lambda: browser.token().json()["expires_in"] < first, 5, "a second")
    assert refreshes(stack) == 0


def test_52_no_answer_has_a_refresh_token(stack):
    stack.spotify.behave("token", rotation="new")
    browser = log_in(stack, expires_in=30)
    answers = [browser.token(), browser.refresh(), browser.session()]
    assert refreshes(stack) == 1
    for secret in stack.spotify.secrets("refresh_token"):  # some tests have short ones, which stand anywhere
        assert len(secret) <= 16 or not any(secret in answer.text + str(answer.headers) for answer in answers)
    assert not any("refresh_token" in answer.text for answer in answers)


@pytest.mark.parametrize("method, route", [("GET", "/token"), ("POST", "/refresh")])
def test_without_a_session_login_is_required(stack, method, route):
    answer = Browser(stack).fetch(method, route)
    assert_login_required(answer, cleared=False)
    assert answer.json()["login_url"] == stack.url + "/auth/authorize"
    assert "WWW-Authenticate" not in answer.headers
    assert refreshes(stack) == 0


# When a token is renewed

@pytest.mark.parametrize("expires_in, renewed", [(70, False), (50, True), (30, True)])
def test_a_token_is_renewed_below_refresh_ahead(stack, expires_in, renewed):
    browser = log_in(stack, expires_in=expires_in)
    body = browser.token().json()
    assert (body["expires_in"] > 3500) == renewed
    assert refreshes(stack) == renewed
    assert browser.token().json()["access_token"] == body["access_token"] and refreshes(stack) == renewed


def test_refresh_ahead_is_a_setting(make_stack):
    stack = make_stack(workers=1, settings={"REFRESH_AHEAD": 0})
    browser = log_in(stack, expires_in=2)
    old = browser.token().json()["access_token"]
    assert refreshes(stack) == 0
    wait_until(lambda: browser.token().json()["access_token"] != old, 5, "renewal at the end")
    assert refreshes(stack) == 1


def test_tokens_shorter_than_refresh_ahead_are_not_renewed_by_every_request(stack):
    browser = log_in(stack, expires_in=30)
    stack.spotify.behave("token", expires_in=30)
    tokens = {browser.token().json()["access_token"] for _ in range(8)}
    assert len(tokens) == 1 and refreshes(stack) == 1


@pytest.mark.parametrize("query", ["", "?scope=user-read-email"])
def test_refresh_leaves_a_token_of_the_login_younger_than_ten_seconds(stack, query):
    browser = log_in(stack)
    token = browser.token().json()["access_token"]
    answer = browser.fetch("POST", "/refresh" + query)
    assert answer.status_code == 200 and answer.json()["access_token"] == token
    assert refreshes(stack) == 0


@pytest.fixture
def clocked(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=2, workers=1, settings=clock.settings())
    stack.clock = clock
    return stack


def test_refresh_renews_from_ten_seconds_on(clocked):
    browser = log_in(clocked)
    first = browser.token().json()["access_token"]
    clocked.clock.advance(8)
    assert browser.refresh().json()["access_token"] == first
    clocked.clock.advance(3)
    second = browser.refresh()
    assert second.json()["access_token"] != first and 3595 <= second.json()["expires_in"] <= 3600
    assert set(second.json()) == {"access_token", "token_type", "expires_in", "scope"}
    # A renewed one is left alone as one of the login is, by /refresh of anybody.
    clocked.clock.advance(8)
    assert {browser.refresh().json()["access_token"] for _ in range(4)} == {second.json()["access_token"]}
    assert refreshes(clocked) == 1
    clocked.clock.advance(3)
    assert browser.refresh().json()["access_token"] != second.json()["access_token"]


def test_the_renewal_asks_as_rfc_6749_says(stack):
    browser = log_in(stack, expires_in=30)
    assert browser.token().status_code == 200
    call = [entry for entry in stack.spotify.log("token") if entry["grant"] == "refresh_token"][0]
    assert set(call["form"]) == {"grant_type", "refresh_token"}
    assert call["query"] in ("", {}, None)
    headers = {name.lower(): value for name, value in dict(call["headers"]).items()}
    assert headers["authorization"].startswith("Basic ")
    assert "cookie" not in headers and "referer" not in headers


# Scope

def test_53_a_scope_that_was_granted_is_answered(stack):
    browser = log_in(stack)
    for scope in ("user-read-email", "user-read-email user-read-private", ""):
        answer = browser.token(scope=scope)
        assert answer.status_code == 200 and answer.json()["scope"] == GRANTED


@pytest.mark.parametrize("scope, can_be_had", [("streaming", True), ("user-read-email streaming", True),
                                               ("unknown-scope", False), ("USER-READ-EMAIL", False), ("user", False)])
def test_53_a_scope_that_was_not_granted_is_403_with_login_url_where_a_login_helps(stack, scope, can_be_had):
    answer = log_in(stack).token(scope=scope)
    body = assert_error(answer, 403, "insufficient_scope")
    assert body.get("login_url") == (stack.url + "/auth/authorize?scope=streaming" if can_be_had else None)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("scope", ["a\"b", "a\\b", "\u00e4", "a\nb", "x" * 3000])
def test_53_a_malformed_scope_is_400(stack, scope):
    answer = log_in(stack).token(scope=scope)
    assert answer.status_code == 400 and answer.json()["error"] in ("invalid_scope", "invalid_request")


def test_53_refresh_looks_at_scope_too(stack):
    browser = log_in(stack)
    form = {"scope": "streaming"}
    assert_error(browser.fetch("POST", "/refresh", data=form), 403, "insufficient_scope")
    assert browser.fetch("POST", "/refresh", data={"scope": "user-read-email"}).status_code == 200


def test_35_the_granted_scope_counts_not_the_one_asked_for(stack):
    browser = log_in(stack, scope="user-read-private")
    assert browser.token().json()["scope"] == "user-read-private"
    assert_error(browser.token(scope="user-read-email"), 403, "insufficient_scope")


def test_35_a_renewal_that_says_another_scope_is_believed(stack):
    browser = log_in(stack, expires_in=30)
    stack.spotify.next(1, scope="user-read-private")
    assert browser.token().json()["scope"] == "user-read-private"
    assert browser.session().json()["scope"] == "user-read-private"


@pytest.mark.parametrize("scope", ["missing", "empty", "null"])
def test_35_a_renewal_without_a_scope_keeps_the_granted_one(stack, scope):
    browser = log_in(stack, expires_in=30)
    stack.spotify.next(1, scope=scope)
    assert browser.token().json()["scope"] == GRANTED


# Rotation

ROTATIONS = ["new", "omit", "empty", "same", "null", "new_keep_old"]


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_55_56_every_shape_of_rotation_goes_on(stack, rotation):
    stack.spotify.behave("token", rotation=rotation, kill_grant_on_reuse=True)
    browser, key = log_in_with_key(stack, expires_in=30)
    seen = set()
    for count in range(1, 4):
        # One that lives so short a time is due again at once when it is not just renewed.
        stack.spotify.next(1, expires_in=1)
        answer = wait_until(lambda: renewed(stack, browser, count), 5, "the next renewal")
        seen.add(answer.json()["access_token"])
    assert len(seen) == 3
    assert stack.redis.client().exists(key)
    sent = [entry["form"]["refresh_token"] for entry in stack.spotify.log("token")
            if entry["grant"] == "refresh_token"]
    assert len({str(value) for value in sent}) == (3 if rotation.startswith("new") else 1)


def renewed(stack, browser, count):
    answer = browser.token()
    assert answer.status_code == 200, answer.text
    return answer if refreshes(stack) == count else None


def test_56_tokens_are_written_in_one_go(stack):
    """One write of the record for one renewal, so that no moment has a new token beside an old one."""
    browser, key = log_in_with_key(stack, expires_in=30)
    client = stack.redis.client()
    stack.spotify.behave("token", rotation="new")
    with client.monitor() as monitor:
        assert browser.token().json()["expires_in"] > 3500
        client.echo("end")
        lines = []
        while not lines or b'"ECHO" "end"' not in lines[-1]:
            lines.append(monitor.connection.read_response())
    # Sealed bytes in a line are too much for the client's own parser.
    changing = re.compile(rb'"(SET|SETEX|PSETEX|GETSET|HSET|APPEND|SETRANGE)" "%s"' % re.escape(key))
    assert [match[1] for match in map(changing.search, lines) if match] == [b"SET"]


def test_a_token_is_not_in_the_session_list_of_anyone_else(stack):
    ada, eve = log_in(stack, "ada"), log_in(stack, "eve")
    assert ada.token().json()["access_token"] != eve.token().json()["access_token"]
    assert len(keys(stack, "session")) >= 2
    forget_failures(stack)
    assert ada.session().json()["user"]["id"] == "ada" and eve.session().json()["user"]["id"] == "eve"
