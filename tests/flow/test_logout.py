"""POST /logout (API.md 3; C.3 64 and 65)."""

import pytest

from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import (OWN_COOKIE, assert_error, assert_login_required, assert_unavailable, cookie_header, keys, log_in,
                      log_in_with_key, meanwhile, redis_away, refreshes)
from stack import wait_until


def assert_logged_out(answer):
    assert answer.status_code == 204 and answer.content == b""
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'
    name, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert name == f"{OWN_COOKIE}="
    assert sorted(attributes) == ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Strict"]


def is_logged_in(browser):
    return browser.session().json()["authenticated"]


def test_64_logout_ends_the_session(stack):
    browser, key = log_in_with_key(stack)
    assert_logged_out(browser.logout())
    assert not stack.redis.client().exists(key)
    assert browser.cookie(OWN_COOKIE) is None
    assert_login_required(browser.token(), cleared=False)


def test_65_the_old_cookie_opens_nothing_after_logout(stack):
    browser = log_in(stack)
    old = {"Cookie": cookie_header(browser)}
    browser.logout()
    for answer in (browser.token(headers=old), browser.refresh(headers=old)):
        assert_login_required(answer, cleared=True)
    assert browser.session(headers=old).json()["authenticated"] is False
    assert refreshes(stack) == 0


@pytest.mark.parametrize("cookie", [None, f"{OWN_COOKIE}=" + "A" * 43, f"{OWN_COOKIE}=x", f"{OWN_COOKIE}="],
                         ids=["none", "unknown", "malformed", "empty"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_64_logout_without_a_session_is_204_too(stack, cookie, everywhere):
    assert_logged_out(Browser(stack).logout(all=everywhere, headers={"Cookie": cookie}))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_64_only_post_logs_out(stack, method):
    browser = log_in(stack)
    answer = browser.fetch(method, "/logout")
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST, OPTIONS"
    assert "Set-Cookie" not in answer.headers and "Clear-Site-Data" not in answer.headers
    assert is_logged_in(browser)


def test_64_a_cross_site_logout_does_nothing(stack):
    browser = log_in(stack)
    for how in ({"origin": "https://evil.example"}, {"headers": {"X-Requested-With": None}}):
        headers = {"Cookie": cookie_header(browser), **how.pop("headers", {})}
        answer = browser.logout(headers=headers, **how)
        assert_error(answer, 403, "forbidden")
        assert "Clear-Site-Data" not in answer.headers and "Set-Cookie" not in answer.headers
    assert is_logged_in(browser)


def test_logout_ends_this_session_only(stack):
    here, there = log_in(stack, "ada"), log_in(stack, "ada")
    for form in (None, {"all": "false"}, {"all": ""}):
        browser = log_in(stack, "ada")
        assert_logged_out(browser.fetch("POST", "/logout", data=form))
    assert_logged_out(here.logout())
    assert is_logged_in(there)


def test_logout_everywhere_ends_all_sessions_of_this_user_and_nobody_elses(stack):
    mine = [log_in_with_key(stack, "ada") for _ in range(5)]
    others = [log_in(stack, "eve"), log_in(stack, "bob")]
    assert_logged_out(mine[2][0].logout(all=True))
    assert not stack.redis.client().exists(*[key for _, key in mine])
    for browser, _ in mine:
        assert not is_logged_in(browser)
    assert all(map(is_logged_in, others))


def test_logout_everywhere_reaches_more_sessions_than_one_round_takes(stack):
    mine = [log_in(stack, "many") for _ in range(70)]
    other = log_in(stack, "ada")
    assert_logged_out(mine[0].logout(all=True))
    assert not any(map(is_logged_in, mine))
    assert is_logged_in(other)


def test_logout_everywhere_reaches_renewed_sessions_and_spares_later_ones(stack):
    due, key = log_in_with_key(stack, "ada", expires_in=30)
    assert due.token().json()["expires_in"] > 3500
    assert_logged_out(log_in(stack, "ada").logout(all=True))
    assert not stack.redis.client().exists(key)
    later = log_in(stack, "ada")
    assert is_logged_in(later) and later.token().status_code == 200


def test_logout_everywhere_without_a_profile_ends_at_least_this_session(stack):
    stack.spotify.behave("api", status=500)
    mine, stranger = log_in(stack, "ada"), log_in(stack, "eve")
    assert_logged_out(mine.logout(all=True))
    assert is_logged_in(stranger)


@pytest.mark.parametrize("value", ["yes", "1", "TRUE", "x" * 100])
def test_logout_refuses_what_it_does_not_know(stack, value):
    browser = log_in(stack)
    assert_error(browser.fetch("POST", "/logout", data={"all": value}), 400, "invalid_request")
    assert is_logged_in(browser)


def test_logout_ends_a_session_whose_record_does_not_open(stack):
    browser, key = log_in_with_key(stack)
    other, other_key = log_in_with_key(stack)
    client, old = stack.redis.client(), {"Cookie": cookie_header(browser)}
    client.set(key, client.get(other_key))
    assert_unavailable(browser.token())
    assert_logged_out(browser.logout())
    assert not client.exists(key)
    assert_login_required(browser.token(headers=old), cleared=True)
    assert is_logged_in(other)


@pytest.mark.parametrize("how", ["paused", "killed"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_logout_without_redis_is_503_and_keeps_the_cookie(stack, how, everywhere):
    browser = log_in(stack)
    with redis_away(stack, how):
        answer = browser.logout(all=everywhere)
        assert_unavailable(answer)
        assert "Clear-Site-Data" not in answer.headers
    assert is_logged_in(browser)
    assert_logged_out(browser.logout(all=everywhere))


def test_logout_from_a_listed_origin(stack):
    browser, key = log_in_with_key(stack)
    assert_logged_out(browser.logout(origin=LISTED_ORIGIN, headers={"Cookie": cookie_header(browser)}))
    assert not stack.redis.client().exists(key)


def test_logout_during_a_renewal_stays(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    before = keys(stack, "session")
    stack.spotify.hang(stage="after")
    with meanwhile(browser.token) as waiting:
        wait_until(lambda: refreshes(stack) == 1, 5, "the call to Spotify")
        old = {"Cookie": cookie_header(browser)}
        assert_logged_out(browser.logout())
        stack.spotify.release()
        assert waiting.result(20).status_code in (200, 401)
    assert keys(stack, "session") == before - {key}
    assert_login_required(browser.token(headers=old), cleared=True)


def test_logout_takes_all_from_the_query_too_but_not_from_both(stack):
    browsers = [log_in(stack, "quentin") for _ in range(2)]
    twice = browsers[0].fetch("POST", "/logout?all=true", data={"all": "true"})
    assert twice.status_code == 400 and twice.json()["error"] == "invalid_request"
    assert browsers[0].fetch("POST", "/logout?all=true").status_code == 204
    assert browsers[1].session().json()["authenticated"] is False
