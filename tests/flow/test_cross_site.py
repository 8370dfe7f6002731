"""Who may call /session, /token, /refresh and /logout from where, and who may read the answers (API.md 3,
"Cross-site requests"; Fetch standard; RFC 10017 6.1.3.3)."""

import itertools
import json

import pytest

from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import OWN_COOKIE, ask, assert_error, cookie_header, log_in, log_in_with_key, redis_away, refreshes

FOREIGN_ORIGIN = "https://evil.example"
ROUTES = {"session": ("GET", "/session", 200), "token": ("GET", "/token", 200), "refresh": ("POST", "/refresh", 200),
          "logout": ("POST", "/logout", 204)}
each_route = pytest.mark.parametrize("method, route, good", ROUTES.values(), ids=ROUTES)
OWN = "own"

# X-Requested-With, Sec-Fetch-Site, Origin (OWN: the service's), allowed
CALLERS = {
    "own page": ("x", "same-origin", None, True),
    "own page with its origin": ("x", "same-origin", OWN, True),
    "own page that hides its origin": ("x", "same-origin", "null", True),
    "old browser, own origin": ("x", None, OWN, True),
    "listed origin": ("x", "cross-site", LISTED_ORIGIN, True),
    "listed origin on the own site": ("x", "same-site", LISTED_ORIGIN, True),
    "old browser, listed origin": ("x", None, LISTED_ORIGIN, True),
    "no browser": ("x", None, None, True),
    "any value": ("0", "same-origin", None, True),
    "47 no custom header": (None, "same-origin", OWN, False),
    "47 no custom header, listed": (None, "cross-site", LISTED_ORIGIN, False),
    "47 no header at all": (None, None, None, False),
    "48 cross-site": ("x", "cross-site", None, False),
    "48 same-site": ("x", "same-site", None, False),
    "48 typed address": ("x", "none", None, False),
    "48 unknown word": ("x", "same-originx", None, False),
    "48 upper case": ("x", "SAME-ORIGIN", None, False),
    "48 empty": ("x", "", None, False),
    "49 foreign origin": ("x", "cross-site", FOREIGN_ORIGIN, False),
    "49 old browser, foreign origin": ("x", None, FOREIGN_ORIGIN, False),
    "49 null": ("x", "cross-site", "null", False),
    "49 old browser, null": ("x", None, "null", False),
    "49 listed origin, other scheme": ("x", None, LISTED_ORIGIN.replace("https", "http"), False),
    "49 listed origin, other port": ("x", None, LISTED_ORIGIN + ":444", False),
    "49 listed origin as a prefix": ("x", None, LISTED_ORIGIN + ".evil.example", False),
    "49 listed origin as a suffix": ("x", None, "https://evil-app.example.test", False),
    "49 subdomain of a listed origin": ("x", None, "https://x.app.example.test", False),
    "49 listed origin with a user": ("x", None, "https://evil@app.example.test", False),
    "49 two origins": ("x", None, f"{LISTED_ORIGIN} {FOREIGN_ORIGIN}", False),
    "49 empty origin": ("x", None, "", False),
}


def headers_of(stack, caller):
    marked, site, origin, _ = caller
    return {"X-Requested-With": marked, "Sec-Fetch-Site": site, "Origin": stack.url if origin == OWN else origin}


@each_route
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_callers(stack, caller, method, route, good):
    browser = log_in(stack)
    cookie = {"Cookie": cookie_header(browser)}
    answer = browser.fetch(method, route, headers={**headers_of(stack, caller), **cookie})
    if caller[-1]:
        assert answer.status_code == good
    else:
        assert_error(answer, 403, "forbidden")
        assert "Set-Cookie" not in answer.headers
        assert browser.session().json()["authenticated"] is True
    assert answer.headers["Vary"] == "Origin"
    if caller[2] == LISTED_ORIGIN:
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    else:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_49_an_origin_sent_twice_is_refused(stack):
    browser = log_in(stack)
    for pair in itertools.permutations([LISTED_ORIGIN, FOREIGN_ORIGIN]):
        # What nginx 1.22 makes of two headers, and what newer ones do.
        joined = ask(stack.services[0], browser, "/session", HTTP_SEC_FETCH_SITE=None, HTTP_ORIGIN=", ".join(pair))
        assert joined.status == 403 and joined.header("Access-Control-Allow-Origin") is None


def test_47_nothing_happens_to_the_session_on_403(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    client = stack.redis.client()
    record = client.get(key)
    client.expire(key, 1000)
    for method, route, _ in ROUTES.values():
        for caller in CALLERS.values():
            if not caller[-1]:
                headers = {**headers_of(stack, caller), "Cookie": cookie_header(browser)}
                answer = browser.fetch(method, route, headers=headers)
                assert answer.status_code == 403 and "Set-Cookie" not in answer.headers
    assert client.get(key) == record and client.ttl(key) <= 1000
    assert refreshes(stack) == 0
    assert browser.token().status_code == 200 and refreshes(stack) == 1


def test_45_a_bad_cookie_is_not_even_cleared_on_403(stack, browser):
    answer = browser.fetch("GET", "/session", headers={"X-Requested-With": None, "Cookie": f"{OWN_COOKIE}=x"})
    assert answer.status_code == 403 and "Set-Cookie" not in answer.headers


# CORS on every status

def listed_answers(stack):
    browser = log_in(stack)
    mine = {"Cookie": cookie_header(browser)}
    nobody = {"Cookie": None}
    stale = {"Cookie": f"{OWN_COOKIE}=" + "A" * 43}

    def call(method, path, headers, **how):
        return browser.fetch(method, path, headers=headers, origin=LISTED_ORIGIN, **how)
    yield 200, call("GET", "/session", mine)
    yield 200, call("GET", "/session", nobody)
    yield 200, call("GET", "/token", mine)
    yield 200, call("HEAD", "/token", mine)
    yield 200, call("POST", "/refresh", mine)
    yield 400, call("GET", "/token?a=1&a=2", mine)
    yield 400, call("POST", "/logout", mine, data={"all": "perhaps"})
    yield 401, call("GET", "/token", nobody)
    yield 401, call("POST", "/refresh", stale)
    yield 403, call("GET", "/token?scope=streaming", mine)
    yield 403, call("GET", "/token", {**mine, "X-Requested-With": None})
    yield 405, call("GET", "/logout", mine)
    yield 405, call("DELETE", "/session", mine)
    yield 415, call("POST", "/logout", {**mine, "Content-Type": "text/plain"}, data="x")
    with redis_away(stack, "killed"):
        for method, route, _ in ROUTES.values():
            yield 503, call(method, route, mine)
    yield 204, call("POST", "/logout", nobody)
    yield 204, call("POST", "/logout", mine)


def test_49_a_listed_origin_may_read_every_answer(stack):
    for status, answer in listed_answers(stack):
        assert answer.status_code == status, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN, status
        assert answer.headers["Access-Control-Allow-Credentials"] == "true", status
        assert answer.headers["Vary"] == "Origin", status


def test_49_a_listed_origin_may_read_that_spotify_is_away(stack):
    browser = log_in(stack, expires_in=1)
    stack.spotify.behave("token", status=503)
    cookie = {"Cookie": cookie_header(browser)}
    answer = browser.token(origin=LISTED_ORIGIN, headers=cookie)
    while answer.status_code == 200:  # the last second of the old token
        answer = browser.token(origin=LISTED_ORIGIN, headers=cookie)
    assert answer.status_code == 503
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@each_route
def test_all_answers_vary_by_origin(stack, browser, method, route, good):
    for answer in (browser.fetch(method, route), browser.fetch(method, route, origin=FOREIGN_ORIGIN),
                   browser.fetch("PATCH", route), browser.fetch("OPTIONS", route, origin=FOREIGN_ORIGIN)):
        assert answer.headers["Vary"] == "Origin", answer.status_code


# Preflights

def preflight(browser, route, origin, **headers):
    return browser.fetch("OPTIONS", route, origin=origin, cookies=False, headers={
        "X-Requested-With": None, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-requested-with", **headers})


@each_route
def test_50_a_listed_origin_gets_its_preflight(stack, browser, method, route, good):
    answer = preflight(browser, route, LISTED_ORIGIN)
    assert answer.status_code == 204 and answer.content == b""
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
    assert "x-requested-with" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "*" not in answer.headers["Access-Control-Allow-Methods"] + answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Vary"] == "Origin"
    assert "Set-Cookie" not in answer.headers


@each_route
@pytest.mark.parametrize("origin", [FOREIGN_ORIGIN, "null", "", LISTED_ORIGIN + "/", LISTED_ORIGIN + ".evil.example"])
def test_50_other_origins_are_refused_their_preflight(stack, browser, method, route, good, origin):
    answer = preflight(browser, route, origin)
    assert_error(answer, 403, "forbidden")
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_50_a_preflight_without_an_origin_is_refused(stack, browser):
    assert ask(stack.services[0], log_in(stack), "/token", "OPTIONS").status == 403


def test_50_a_preflight_touches_no_session(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    client = stack.redis.client()
    client.expire(key, 1000)
    record = client.get(key)
    for _, route, _ in ROUTES.values():
        answer = browser.fetch("OPTIONS", route, origin=LISTED_ORIGIN, headers={"Cookie": cookie_header(browser)})
        assert answer.status_code == 204
    assert client.get(key) == record and client.ttl(key) <= 1000
    assert refreshes(stack) == 0


def test_77_headers_that_a_proxy_might_set_have_no_effect(stack):
    browser = log_in(stack)
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example",
              "X-Real-IP": "127.0.0.1", "Proxy": "http://127.0.0.1:9", "Authorization": "Bearer x",
              "X-Original-URL": "/healthz"}
    plain = Browser(stack).session().json()
    assert Browser(stack).session(headers=forged).json() == plain
    assert Browser(stack).session(headers={**forged, "Host": "evil.example"}).json() == plain
    assert browser.session(headers=forged).json()["authenticated"] is True
    assert browser.session(headers={"Host": "evil.example", "Origin": "http://evil.example",
                                    "Sec-Fetch-Site": None}).status_code == 403


def test_without_listed_origins_there_is_no_cors(make_stack):
    stack = make_stack(workers=1)
    browser = log_in(stack)
    assert_error(browser.session(origin=LISTED_ORIGIN), 403, "forbidden")
    assert_error(browser.fetch("OPTIONS", "/token", origin=LISTED_ORIGIN), 403, "forbidden")
    reply = ask(stack.services[0], browser, "/session", HTTP_ORIGIN=stack.url)
    assert reply.status == 200 and json.loads(reply.body)["authenticated"] is True
