"""GET /session, the session cookie, and what looking a session up may find (API.md 3, 4.1, 4.2 and 4.5)."""

import base64
import hashlib
import http.client
import json
import secrets
import time
import urllib.parse

import pytest
import requests

from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import (OWN_COOKIE, ask, assert_login_required, assert_unavailable, cookie_header, keys, log_in,
                      log_in_with_key, redis_away, refreshes)
from stack import new_session_key, wait_until

SIX_MONTHS_S = 15552000
ROUTES = {"session": ("GET", "/session"), "token": ("GET", "/token"), "refresh": ("POST", "/refresh"),
          "logout": ("POST", "/logout")}
each_route = pytest.mark.parametrize("method, route", ROUTES.values(), ids=ROUTES)


def assert_nobody(stack, response, cleared):
    assert response.status_code == 200
    assert response.json() == {"authenticated": False, "login_url": stack.url + "/auth/authorize"}
    assert ("Max-Age=0" in response.headers.get("Set-Cookie", "")) == cleared


# What it says

def test_session_shows_the_user(stack):
    browser = log_in(stack)
    answer = browser.session()
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body["authenticated"] is True
    assert set(body["user"]) == {"id", "account_id", "display_name", "image_url", "product"}
    assert body["user"]["id"] == "ada" and body["user"]["display_name"] == "Ada Lovelace"
    assert body["scope"] == "user-read-private user-read-email"
    assert 3590 <= body["expires_in"] <= 3600
    assert abs(body["authorized_at"] - time.time()) < 30
    assert body["reauth_by"] == body["authorized_at"] + SIX_MONTHS_S
    assert set(body) == {"authenticated", "user", "scope", "expires_in", "authorized_at", "reauth_by"}


def test_session_without_a_cookie_is_nobodys(stack, browser):
    assert_nobody(stack, browser.session(), cleared=False)


def test_session_says_null_where_spotify_gave_nothing(stack):
    stack.spotify.behave("api", display_name="missing", images="empty", product="missing", account_id=False)
    user = log_in(stack).session().json()["user"]
    assert user == {"id": "ada", "account_id": None, "display_name": None, "image_url": None, "product": None}


def test_session_says_null_everywhere_without_a_profile(stack):
    stack.spotify.behave("api", status=500)
    user = log_in(stack).session().json()["user"]
    assert user == dict.fromkeys(["id", "account_id", "display_name", "image_url", "product"])


def test_session_never_calls_spotify(stack):
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "end of the token")
    assert browser.session().json()["authenticated"] is True
    assert refreshes(stack) == 0


# The cookie

def test_43_session_cookie_on_loopback(stack, browser):
    line = browser.login().headers["Set-Cookie"]
    name_and_value, *attributes = line.split("; ")
    assert name_and_value.startswith("spotify-session=")
    assert sorted(attributes) == ["HttpOnly", f"Max-Age={SIX_MONTHS_S}", "Path=/", "SameSite=Strict"]


def https_login(stack, **settings):
    """Through the login of a service whose own origin is https, as its proxy sees it: (of /authorize, of /callback)."""
    stack.spotify.register(stack.client_id, stack.client_secret, [stack.services[0].settings["SPOTIFY_REDIRECT_URI"]])
    begun = requests.get(stack.url + "/auth/authorize", allow_redirects=False, timeout=30)
    binding = begun.headers["Set-Cookie"].split(";")[0]
    callback = urllib.parse.urlsplit(stack.spotify.agree(begun.headers["Location"]))
    ended = requests.get(f"{stack.url}/auth/callback?{callback.query}", headers={"Cookie": binding},
                         allow_redirects=False, timeout=30)
    assert ended.status_code == 303
    return begun, ended


def test_43_cookies_on_https_have_the_host_prefix(make_stack):
    stack = make_stack(workers=1, settings={"SPOTIFY_REDIRECT_URI": "https://app.example.test/auth/callback",
                                            "COOKIE_SAMESITE": "Lax", "LOGIN_TTL": 300})
    begun, ended = https_login(stack)
    name, *attributes = begun.headers["Set-Cookie"].split("; ")
    assert name.startswith("__Host-spotify-login=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=300", "Path=/", "SameSite=Lax", "Secure"]
    name, *attributes = ended.headers["Set-Cookie"].split("; ")
    assert name.startswith("__Host-spotify-session=")
    assert sorted(attributes) == ["HttpOnly", f"Max-Age={SIX_MONTHS_S}", "Path=/", "SameSite=Lax", "Secure"]
    # The prefix belongs to the name: without it, the same value is nobody's.
    headers = {"X-Requested-With": "test", "Sec-Fetch-Site": "same-origin"}
    for found, cookie in ((True, name), (False, name.removeprefix("__Host-"))):
        answer = requests.get(stack.url + "/auth/session", headers={**headers, "Cookie": cookie}, timeout=30)
        assert answer.json()["authenticated"] is found
    gone = requests.post(stack.url + "/auth/logout", headers={**headers, "Cookie": name}, timeout=30)
    name, *attributes = gone.headers["Set-Cookie"].split("; ")
    assert name == "__Host-spotify-session="
    assert sorted(attributes) == ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Lax", "Secure"]


def test_44_session_ids_are_256_random_bits_and_not_in_redis(stack):
    ids, session_keys = set(), set()
    for _ in range(3):
        browser, key = log_in_with_key(stack)
        ids.add(browser.cookie(OWN_COOKIE).value)
        session_keys.add(key)
    assert len(ids) == len(session_keys) == 3
    for value in ids:
        raw = base64.urlsafe_b64decode(value + "=")
        assert len(raw) == 32
        for key in session_keys:
            assert value.encode() not in key and raw not in key and raw.hex().encode() not in key


BAD_VALUES = {
    "unknown": secrets.token_urlsafe(32), "empty": "", "short": "A" * 42, "long": "A" * 44, "padded": "A" * 43 + "=",
    "not canonical": "A" * 42 + "B", "other alphabet": "+" * 42 + "A", "quoted": '"' + "A" * 43 + '"',
    "percent": "%41" * 43, "not ASCII": "\u00e4" * 43, "over-long": "A" * 6000,
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_45_a_cookie_that_is_no_session_is_cleared_and_never_taken_over(stack, browser, value):
    before = keys(stack, "session")
    cookie = {"Cookie": f"{OWN_COOKIE}={value}".encode("latin-1")}
    assert_nobody(stack, browser.session(headers=cookie), cleared=True)
    for answer in (browser.token(headers=cookie), browser.refresh(headers=cookie)):
        assert_login_required(answer, cleared=True)
    browser.set_cookie(f"{OWN_COOKIE}={value}; Path=/")
    assert browser.login().status_code == 303
    assert browser.cookie(OWN_COOKIE).value != value
    assert len(keys(stack, "session") - before) == 1


def test_46_of_two_cookies_of_one_name_a_valid_first_one_is_used(stack):
    ada, eve = log_in(stack, "ada"), log_in(stack, "eve")
    both = f"{cookie_header(ada)}; {cookie_header(eve)}"
    assert ada.session(headers={"Cookie": both}).json()["user"]["id"] == "ada"


def test_46_a_malformed_cookie_before_a_good_one_of_its_name_does_no_harm(stack):
    browser = log_in(stack)
    answer = browser.session(headers={"Cookie": f"{OWN_COOKIE}=x; a=b; {cookie_header(browser)}"})
    assert answer.json()["authenticated"] is True and "Set-Cookie" not in answer.headers


def test_46_the_cookie_is_found_in_any_of_several_cookie_headers(stack):
    browser = log_in(stack)
    connection = http.client.HTTPConnection(stack.nginx.listen, timeout=30)
    connection.putrequest("GET", "/auth/session")
    for name, value in (("X-Requested-With", "test"), ("Cookie", "a=b"), ("Cookie", cookie_header(browser)),
                        ("Cookie", "c=d")):
        connection.putheader(name, value)
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["authenticated"] is True
    connection.close()


def test_cookies_whose_names_only_resemble_ours_are_not_ours(stack):
    browser = log_in(stack)
    value = browser.cookie(OWN_COOKIE).value
    for name in ("x" + OWN_COOKIE, OWN_COOKIE + "x", OWN_COOKIE.upper(), "__Host-" + OWN_COOKIE):
        assert_nobody(stack, browser.session(headers={"Cookie": f"{name}={value}"}), cleared=False)


# How long it lives

def test_63_a_look_up_lets_the_idle_time_begin_anew(stack):
    browser, key = log_in_with_key(stack)
    client = stack.redis.client()
    client.expire(key, 1000)
    assert browser.session().status_code == 200
    wait_until(lambda: client.ttl(key) > 2591000, 5, "a new idle time")


def test_a_head_request_leaves_the_idle_time_as_it_is(stack):
    browser, key = log_in_with_key(stack)
    client = stack.redis.client()
    client.expire(key, 1000)
    for route in ("/session", "/token"):
        assert browser.fetch("HEAD", route).status_code == 200
    assert browser.session(headers={"X-Requested-With": None}).status_code == 403
    assert client.ttl(key) <= 1000


def test_63_idle_time_and_maximum_age_end_a_session(make_stack):
    stack = make_stack(workers=1, settings={"SESSION_IDLE_TTL": 1, "SESSION_MAX_AGE": 4})
    idle, idle_key = log_in_with_key(stack)
    used, used_key = log_in_with_key(stack)
    begun = time.monotonic()
    assert used.session().json()["reauth_by"] == used.session().json()["authorized_at"] + 4
    while used.session().json()["authenticated"]:
        assert time.monotonic() - begun < 6, "the maximum age ends it"
        time.sleep(0.2)
    # Whole seconds count, so the last of the four may have begun with the login.
    assert time.monotonic() - begun > 2.5, "use keeps it alive"
    assert_login_required(used.token(headers={"Cookie": f"{OWN_COOKIE}={secrets.token_urlsafe(32)}"}), cleared=True)
    answer = idle.session()
    assert_nobody(stack, answer, cleared=True)
    assert not stack.redis.client().exists(idle_key, used_key)


# Found, absent, unknown

@pytest.mark.parametrize("how", ["paused", "killed"])
def test_59_redis_away_is_503_and_leaves_the_session_as_it_was(stack, how):
    browser = log_in(stack)
    token = browser.token().json()["access_token"]
    with redis_away(stack, how):
        for method, route in ROUTES.values():
            begun = time.monotonic()
            answer = browser.fetch(method, route, origin=LISTED_ORIGIN, headers={"Cookie": cookie_header(browser)})
            assert time.monotonic() - begun < 0.6 + 0.6, "one STORE_TIMEOUT_MS, and a slow machine"
            assert_unavailable(answer)
            assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
    assert browser.token().json()["access_token"] == token
    assert browser.session().json()["authenticated"] is True


def test_66_swapped_records_are_refused(stack):
    """Both are there and neither opens, which is no reason to end a session (API.md 4.5)."""
    (ada, ada_key), (eve, eve_key) = log_in_with_key(stack, "ada"), log_in_with_key(stack, "eve")
    client = stack.redis.client()
    ada_record, eve_record = client.get(ada_key), client.get(eve_key)
    client.set(ada_key, eve_record)
    client.set(eve_key, ada_record)
    for browser in (ada, eve):
        for method, route in (("GET", "/session"), ("GET", "/token"), ("POST", "/refresh")):
            assert_unavailable(browser.fetch(method, route))
    client.set(ada_key, ada_record)
    client.set(eve_key, eve_record)
    for browser, user in ((ada, "ada"), (eve, "eve")):
        assert browser.session().json()["user"]["id"] == user


def flip(at):
    return lambda record: record[:at] + bytes([record[at] ^ 1]) + record[at + 1 or len(record):]


TAMPERED = {"generation": flip(7), "middle": flip(60), "last byte": flip(-1), "cut": lambda record: record[:-1],
            "longer": lambda record: record + b"\0", "short": lambda record: record[:4], "empty": lambda record: b"",
            "text": lambda record: b"A" * len(record)}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_66_a_tampered_record_is_refused(stack, change):
    browser, key = log_in_with_key(stack)
    client = stack.redis.client()
    client.set(key, change(client.get(key)))
    for answer in (browser.token(), browser.session()):
        assert_unavailable(answer)


def test_66_redis_holds_nothing_readable_of_a_session(stack):
    browser, key = log_in_with_key(stack)
    token = browser.token().json()["access_token"]
    record = stack.redis.client().get(key)
    for text in (token, "user-read-private", "Ada Lovelace", "ada@", *stack.spotify.secrets("refresh_token")):
        assert text.encode() not in record
    raw = base64.urlsafe_b64decode(browser.cookie(OWN_COOKIE).value + "=")
    assert hashlib.sha256(raw).digest() not in record


def test_session_keys_can_be_changed_without_a_logout(make_stack):
    stack = make_stack(workers=1)
    service, browser = stack.services[0], log_in(stack, expires_in=30)
    old, new = service.settings["SESSION_KEYS"], new_session_key("k2")
    service.settings["SESSION_KEYS"] = f"{new},{old}"
    service.restart()
    assert browser.session().json()["authenticated"] is True
    assert browser.token().json()["expires_in"] > 3500, "renewed, and sealed under the new key"
    service.settings["SESSION_KEYS"] = new
    service.restart()
    assert browser.session().json()["authenticated"] is True
    # A key that is missing says nothing about the session: another process may have it.
    service.settings["SESSION_KEYS"] = old
    service.restart()
    assert_unavailable(browser.token())


def test_a_session_key_with_other_bytes_under_its_name_is_503_until_it_is_right_again(make_stack):
    stack = make_stack(workers=1)
    service, browser = stack.services[0], log_in(stack)
    right, cookie = service.settings["SESSION_KEYS"], cookie_header(browser)
    service.settings["SESSION_KEYS"] = new_session_key(right.partition(":")[0])
    service.restart()
    for method, route in (("GET", "/session"), ("GET", "/token"), ("POST", "/refresh")):
        assert_unavailable(browser.fetch(method, route))
    service.settings["SESSION_KEYS"] = right
    service.restart()
    assert cookie_header(browser) == cookie
    assert browser.session().json()["authenticated"] is True and browser.token().status_code == 200


# Methods, headers

def test_head_has_no_body_and_no_side_effect(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    record = stack.redis.client().get(key)
    for route in ("/session", "/token"):
        answer = browser.fetch("HEAD", route)
        assert answer.status_code == 200 and answer.content == b""
        assert answer.headers["Content-Type"] == "application/json"
    assert refreshes(stack) == 0
    assert stack.redis.client().get(key) == record


WRONG_METHODS = [(method, route, allowed) for route, allowed, methods in (
    ("/session", "GET, HEAD, OPTIONS", ("POST", "PUT", "DELETE", "PATCH")),
    ("/token", "GET, HEAD, OPTIONS", ("POST", "PUT", "DELETE", "PATCH")),
    ("/refresh", "POST, OPTIONS", ("GET", "HEAD", "PUT", "DELETE")),
    ("/logout", "POST, OPTIONS", ("GET", "HEAD", "PUT", "DELETE"))) for method in methods]


@pytest.mark.parametrize("method, route, allowed", WRONG_METHODS, ids=[" ".join(row[:2]) for row in WRONG_METHODS])
def test_a_wrong_method_is_405_with_allow(stack, browser, method, route, allowed):
    answer = browser.fetch(method, route)
    assert answer.status_code == 405
    assert sorted(answer.headers["Allow"].split(", ")) == sorted(allowed.split(", "))
    assert method == "HEAD" or isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("path", ["/", "/sessions/", "/session/x", "/SESSION", "/token/", "/.error/404"])
def test_an_unknown_path_is_404_json(stack, browser, path):
    answer = browser.fetch("GET", path)
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)


@each_route
def test_a_repeated_parameter_is_400(stack, method, route):
    browser = log_in(stack)
    if method == "GET":
        answers = [browser.fetch("GET", route + "?scope=streaming&scope=streaming"),
                   browser.fetch("GET", route + "?a=1&a=2"), browser.fetch("GET", route + "?%61=1&a=2")]
    else:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answers = [browser.fetch("POST", route, data="all=true&all=true", headers=form),
                   browser.fetch("POST", route + "?a=1&a=2")]
    for answer in answers:
        assert answer.status_code == 400 and answer.json()["error"] == "invalid_request"
        assert "Set-Cookie" not in answer.headers
    assert browser.session().json()["authenticated"] is True


@pytest.mark.parametrize("query", ["scope=%zz", "scope=%00", "scope=%", "a=%ff%", "scope=%0a"])
def test_29_a_malformed_query_is_400(stack, query):
    answer = ask(stack.services[0], log_in(stack), "/token", QUERY_STRING=query)  # a client would repair it
    assert answer.status == 400 and json.loads(answer.body)["error"] in ("invalid_request", "invalid_scope")


BODIES = {"json": ("application/json", '{"all":true}', 415),
          "multipart": ("multipart/form-data; boundary=x", "--x--", 415),
          "text": ("text/plain", "all=true", 415), "no type": (None, "all=true", 415),
          "like a form": ("application/x-www-form-urlencodedx", "all=true", 415),
          "form with charset": ("Application/X-WWW-Form-Urlencoded;charset=UTF-8", "a=b", None),
          "too long": ("application/x-www-form-urlencoded", "a=" + "x" * 70000, 413)}


@pytest.mark.parametrize("kind, body, status", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("route", ["/refresh", "/logout"])
def test_only_a_form_is_taken_as_a_body(stack, route, kind, body, status):
    browser = log_in(stack)
    answer = browser.fetch("POST", route, data=body, headers={"Content-Type": kind})
    if status is None:
        assert answer.status_code in (200, 204)
    else:
        assert answer.status_code == status and isinstance(answer.json()["error"], str)
        assert browser.session().json()["authenticated"] is True


def test_every_answer_has_the_common_headers(stack):
    browser, stranger = log_in(stack), Browser(stack)
    answers = [browser.session(), browser.token(), browser.refresh(), stranger.session(), stranger.token(),
               browser.token(scope="streaming"), browser.fetch("GET", "/logout"), browser.fetch("GET", "/nowhere"),
               browser.fetch("GET", "/token?a=1&a=2"), browser.session(headers={"X-Requested-With": None}),
               browser.fetch("OPTIONS", "/token", origin=LISTED_ORIGIN), browser.fetch("HEAD", "/session"),
               browser.fetch("POST", "/logout", data="x"), browser.logout()]
    assert [answer.status_code for answer in answers] == [
        200, 200, 200, 200, 401, 403, 405, 404, 400, 403, 204, 200, 415, 204]
    for answer in answers:
        for name, value in (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
                            ("Referrer-Policy", "no-referrer")):
            assert answer.headers[name] == value, (answer.status_code, name)
        assert len(answer.headers["X-Request-Id"]) == 32
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


def test_nothing_of_the_request_comes_back_unescaped(stack, browser):
    mark = "<script>\"'"
    quoted = urllib.parse.quote(mark)
    for answer in (browser.fetch("GET", "/" + quoted), browser.fetch("GET", f"/token?scope={quoted}&{quoted}={quoted}"),
                   browser.session(headers={"Cookie": f"{OWN_COOKIE}={mark}"}),
                   browser.session(origin="https://" + quoted)):
        assert "<script" not in answer.text and "<script" not in str(answer.headers)
