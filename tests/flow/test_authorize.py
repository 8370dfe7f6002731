"""GET /authorize: what a login begins with, and what it refuses to begin (API.md section 3; the
numbers are those of contract C.3)."""

import base64
import contextlib
import hashlib
import html.parser
import http.client
import json
import re
import urllib.parse

import pytest
import requests

from browser import Browser, Cookie, redirect_of
from conftest import LISTED_ORIGIN
from stack import wait_until

URL_SAFE_256_BITS = re.compile(r"[A-Za-z0-9_-]{43}")
ALLOWED = "user-read-private user-read-email streaming playlist-read-private"

# What a browser would take to another host, or what nobody writes who means well.
FOREIGN = [
    "https://evil.example", "https://evil.example/", "//evil.example", "///evil.example",
    "/\\evil.example", "\\\\evil.example", "/\\/evil.example", "%2f%2fevil.example",
    "/%2fevil.example", "/%252fevil.example", "/%5cevil.example", "/%255Cevil.example",
    "/%09/evil.example", "/\t/evil.example", "/\n/evil.example", "/%0d%0aLocation:%20x",
    "/ok\r\nSet-Cookie: a=b", "/%00", "/a%2500", "/a b", " /a", "javascript:alert(1)",
    "data:text/html,x", "https:evil.example", "https:/evil.example", "http:///evil.example",
    "/..//evil.example", "/a/../b", "/./a", "/a/%2e%2e/b", "/a/%252e%252e/b", "/a//b",
    "https://app.example.test@evil.example/", "https://app.example.test.evil.example/",
    "https://evil.example#https://app.example.test", "http://app.example.test/",
    "https://app.example.test:444/", "https://APP.example.test%2f.evil.example/", "ok", "?a", "#a",
    "https://app.example.test\\@evil.example/", "ftp://app.example.test/", "null", "/a\x7f",
]
OURS = [
    "/", "/ok", "/ok?a=b&c=d", "/ok#part", "/ok?a=b#part", "/a%20b", "/?u=https://evil.example/",
    "/caf%C3%A9", LISTED_ORIGIN, LISTED_ORIGIN + "/app?x=1#y", LISTED_ORIGIN + ":443/app",
]


def query_of(url):
    pairs = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True)
    assert len(pairs) == len(dict(pairs)), "a parameter occurs twice"
    return dict(pairs)


def logins(stack):
    """How many logins Redis holds."""
    with stack.redis.client() as redis:
        return sum(1 for _ in redis.scan_iter("spotify-auth:login:*", count=1000))


def login_cookies(answer):
    lines = answer.raw.headers.getlist("Set-Cookie")
    return [cookie for cookie in map(Cookie, lines) if cookie.name.endswith("spotify-login")]


def expect_nothing_begun(stack, answer, before):
    assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers
    assert logins(stack) == before


# The redirect


def test_01_redirect_has_all_parameters_and_no_others(stack, browser):
    answer = browser.authorize()
    assert answer.status_code == 302
    url, _, _ = answer.headers["Location"].partition("?")
    assert url == stack.spotify.url + "/authorize"
    query = query_of(answer.headers["Location"])
    assert URL_SAFE_256_BITS.fullmatch(query.pop("state"))
    assert URL_SAFE_256_BITS.fullmatch(query.pop("code_challenge"))
    assert query == {
        "client_id": stack.client_id, "response_type": "code", "redirect_uri": stack.redirect_uri,
        "scope": "user-read-private user-read-email", "code_challenge_method": "S256",
        "show_dialog": "false",
    }


def test_02_states_and_challenges_never_repeat(browser):
    queries = [query_of(redirect_of(browser.authorize())) for _ in range(1000)]
    for name in ("state", "code_challenge"):
        assert len({query[name] for query in queries}) == 1000
        assert all(URL_SAFE_256_BITS.fullmatch(query[name]) for query in queries)


def test_03_verifier_sent_later_matches_the_challenge(stack, browser):
    location = redirect_of(browser.authorize())
    assert browser.callback(browser.approve(location)).status_code == 303
    (call,) = stack.spotify.log("token")
    verifier = call["form"]["code_verifier"]
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier)
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert query_of(location)["code_challenge"] == challenge


def test_04_verifier_and_client_secret_are_in_no_answer_and_no_log(stack):
    browser = Browser(stack)
    begun = browser.authorize()
    ended = browser.callback(browser.approve(redirect_of(begun)))
    (call,) = stack.spotify.log("token")
    texts = [str(answer.headers) + answer.text for answer in (begun, ended)]
    texts += stack.logs().values()
    for secret in (call["form"]["code_verifier"], stack.client_secret):
        assert not any(secret in text for text in texts)


def test_05_login_cookie_on_a_loopback_origin(browser):
    (cookie,) = login_cookies(browser.authorize())
    assert cookie.name == "spotify-login" and URL_SAFE_256_BITS.fullmatch(cookie.value)
    assert cookie.attributes == {"httponly": "", "samesite": "Lax", "path": "/", "max-age": "600"}


@pytest.mark.parametrize("return_to", FOREIGN, ids=ascii)
def test_06_foreign_return_to_is_refused(stack, browser, return_to):
    before = logins(stack)
    answer = browser.authorize(return_to=return_to)
    assert answer.status_code == 400
    assert "evil" not in answer.text
    expect_nothing_begun(stack, answer, before)


def test_06_return_to_of_more_than_2048_bytes_is_refused(stack, browser):
    assert browser.authorize(return_to="/" + "a" * 2047).status_code == 302
    before = logins(stack)
    answer = browser.authorize(return_to="/" + "a" * 2048)
    assert answer.status_code == 400
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("return_to", OURS)
def test_07_login_ends_at_return_to(stack, browser, return_to):
    answer = browser.login(return_to=return_to)
    assert answer.status_code == 303
    assert redirect_of(answer) == urllib.parse.urljoin(stack.url, return_to)


def test_07_login_ends_at_return_to_on_the_own_origin_as_url(stack, browser):
    assert redirect_of(browser.login(return_to=stack.url + "/there")) == stack.url + "/there"


def test_07_return_to_beyond_ascii_comes_back_encoded(stack, browser):
    location = browser.login(return_to="/caf\u00e9").headers["Location"]
    assert location.isascii() and urllib.parse.unquote(location).endswith("/caf\u00e9")


def test_07_login_without_return_to_ends_at_the_setting(stack, browser):
    assert redirect_of(browser.login()) == stack.url + "/"


def test_08_parameters_meant_for_spotify_are_ignored(stack, browser):
    forged = {"client_id": "forged", "redirect_uri": "https://evil.example/", "state": "forged",
              "response_type": "token", "code_challenge": "forged", "nonsense": "forged",
              "code_challenge_method": "plain"}
    location = redirect_of(browser.authorize(**forged))
    assert "forged" not in location and "evil" not in location
    assert query_of(location)["redirect_uri"] == stack.redirect_uri
    assert query_of(location)["response_type"] == "code"
    assert query_of(location)["code_challenge_method"] == "S256"


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded",
                                  "X-Forwarded-Prefix", "X-Original-URL", "X-Real-IP"])
def test_09_77_headers_that_name_another_host_change_nothing(stack, browser, name):
    value = "host=evil.example" if name == "Forwarded" else "evil.example"
    answer = browser.authorize(headers={name: value})
    assert answer.status_code == 302
    assert "evil.example" not in str(answer.headers) + answer.text
    assert query_of(answer.headers["Location"])["redirect_uri"] == stack.redirect_uri


@pytest.mark.parametrize("scope", ["user-modify-playback-state", ALLOWED + " user-follow-read",
                                   "user-read", "USER-READ-PRIVATE", "a\"b", "<script>"])
def test_10_scope_that_is_not_allowed_is_refused(stack, browser, scope):
    before = logins(stack)
    answer = browser.authorize(scope=scope, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("scope", ["streaming", "playlist-read-private user-read-email", ALLOWED])
def test_10_allowed_scope_is_asked_for(browser, scope):
    assert query_of(redirect_of(browser.authorize(scope=scope)))["scope"] == scope


@pytest.mark.parametrize("dest", ["iframe", "frame", "embed", "object", "fencedframe"])
def test_12_framed_login_is_refused(stack, browser, dest):
    before = logins(stack)
    answer = browser.authorize(headers={"Sec-Fetch-Dest": dest})
    assert answer.status_code == 403
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin", "websocket"])
def test_12_fetched_login_is_refused(stack, browser, mode):
    before = logins(stack)
    answer = browser.fetch("GET", "/authorize", headers={"Sec-Fetch-Mode": mode})
    assert answer.status_code == 403
    expect_nothing_begun(stack, answer, before)


def test_12_client_without_fetch_metadata_may_begin_a_login(stack):
    answer = requests.get(stack.url + "/auth/authorize", allow_redirects=False, timeout=10)
    assert answer.status_code == 302


def test_show_dialog_is_passed_on(browser):
    for value in ("true", "false"):
        query = query_of(redirect_of(browser.authorize(show_dialog=value)))
        assert query["show_dialog"] == value


def test_26_unknown_and_empty_parameters_are_as_if_missing(stack, browser):
    answer = browser.authorize(unknown="1", return_to="", scope="", show_dialog="")
    query = query_of(redirect_of(answer))
    assert query["scope"] == "user-read-private user-read-email"
    assert query["show_dialog"] == "false"
    ended = browser.callback(browser.approve(redirect_of(answer)))
    assert redirect_of(ended) == stack.url + "/"


# JSON for a script


def test_json_answer_holds_the_url(stack, browser):
    answer = browser.fetch("GET", "/authorize?return_to=/app", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert list(answer.json()) == ["url"] and len(login_cookies(answer)) == 1
    ended = browser.callback(browser.approve(answer.json()["url"]))
    assert redirect_of(ended) == stack.url + "/app"
    assert browser.session().json()["authenticated"] is True


def test_json_answer_by_navigation(browser):
    assert "url" in browser.authorize(headers={"Accept": "application/json"}).json()


def test_json_answer_for_a_fetch_that_tells_nothing_of_its_origin(stack):
    headers = {"Sec-Fetch-Mode": "cors", "Accept": "application/json"}
    answer = requests.get(stack.url + "/auth/authorize", headers=headers, timeout=10)
    assert answer.status_code == 200 and "url" in answer.json()


def test_json_answer_for_a_listed_origin(browser):
    answer = browser.fetch("GET", "/authorize", origin=LISTED_ORIGIN,
                           headers={"Accept": "application/json"})
    assert answer.status_code == 200 and "url" in answer.json()
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


def test_json_answer_is_no_foreign_origins_to_read(browser):
    answer = browser.fetch("GET", "/authorize", origin="https://evil.example",
                           headers={"Accept": "application/json"})
    assert "Access-Control-Allow-Origin" not in answer.headers


# The login cookie


def test_login_cookie_is_one_for_all_tabs(browser):
    first, second = (login_cookies(browser.authorize())[0].value for _ in range(2))
    assert first == second


@pytest.mark.parametrize("value", ["", "x", "a" * 42, "a" * 44, "a" * 42 + "!", "a" * 5000])
def test_login_cookie_that_is_none_of_ours_is_replaced(stack, value):
    answer = Browser(stack).authorize(headers={"Cookie": f"spotify-login={value}"})
    assert answer.status_code == 302
    assert login_cookies(answer)[0].value != value


@pytest.fixture(scope="module")
def public():
    """A service whose public origin is https, as behind a proxy that ends TLS."""
    from conftest import running
    settings = {"SPOTIFY_REDIRECT_URI": "https://auth.example.test/auth/callback",
                "SPOTIFY_PKCE": "off", "SPOTIFY_PROFILE": "off", "COOKIE_SAMESITE": "Lax",
                "LOGIN_TTL": 120, "RETURN_TO": "/home"}
    with running(settings=settings, workers=1) as stack:
        stack.spotify.register(stack.client_id, stack.client_secret,
                               [settings["SPOTIFY_REDIRECT_URI"]])
        yield stack


def log_in_publicly(stack):
    """A login by hand: the scripted browser keeps no Secure cookies from plain http."""
    browser = Browser(stack)
    begun = browser.authorize()
    (cookie,) = login_cookies(begun)
    url = stack.spotify.agree(redirect_of(begun))
    assert url.startswith("https://auth.example.test/auth/callback?")
    url = browser.mount + "/callback?" + url.partition("?")[2]
    ended = browser.callback(url, headers={"Cookie": f"{cookie.name}={cookie.value}"})
    return cookie, begun, ended


def test_05_43_cookies_on_an_https_origin(public):
    login, _, ended = log_in_publicly(public)
    assert login.name == "__Host-spotify-login"
    assert login.attributes == {"secure": "", "httponly": "", "samesite": "Lax", "path": "/",
                                "max-age": "120"}
    (session,) = map(Cookie, ended.raw.headers.getlist("Set-Cookie"))
    assert session.name == "__Host-spotify-session" and URL_SAFE_256_BITS.fullmatch(session.value)
    assert session.secure and session.http_only and session.attributes["path"] == "/"
    assert session.attributes["samesite"] == "Lax" and "domain" not in session.attributes


def test_login_ends_at_the_return_to_setting(public):
    assert urllib.parse.urlsplit(log_in_publicly(public)[2].headers["Location"]).path == "/home"


def test_without_pkce_no_challenge_and_no_verifier_is_sent(public):
    public.spotify.reset("log")
    _, begun, ended = log_in_publicly(public)
    assert not any(name.startswith("code_challenge") for name in query_of(redirect_of(begun)))
    assert ended.status_code == 303 and "error" not in ended.headers["Location"]
    (call,) = public.spotify.log("token")
    assert sorted(call["form"]) == ["code", "grant_type", "redirect_uri"]


def test_without_profile_spotifys_api_is_not_called(public):
    public.spotify.reset("counters")
    ended = log_in_publicly(public)[2]
    assert ended.status_code == 303 and "error" not in ended.headers["Location"]
    assert public.spotify.calls("api") == 0


# Methods


def test_39_head_has_no_body_and_begins_nothing(stack, browser):
    before = logins(stack)
    answer = browser.navigate("/auth/authorize", method="HEAD")
    assert answer.status_code < 400 and answer.content == b""
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("purpose", ["prefetch", "prefetch;prerender", "prefetch;anonymous-client-ip"])
def test_39_prefetch_begins_nothing(stack, browser, purpose):
    before = logins(stack)
    answer = browser.authorize(headers={"Sec-Purpose": purpose})
    assert answer.status_code == 403
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_wrong_method_is_405_in_json(stack, browser, method):
    before = logins(stack)
    answer = browser.navigate("/auth/authorize", method=method)
    assert answer.status_code == 405
    assert {"GET", "HEAD"} <= set(answer.headers["Allow"].split(", "))
    assert not {"POST", "PUT"} & set(answer.headers["Allow"].split(", "))
    assert isinstance(answer.json()["error"], str)
    expect_nothing_begun(stack, answer, before)


def preflight(browser, origin, path="/authorize"):
    headers = {"Access-Control-Request-Method": "GET", "X-Requested-With": None,
               "Access-Control-Request-Headers": "x-requested-with"}
    return browser.fetch("OPTIONS", path, origin=origin, headers=headers)


def test_50_preflight_of_a_listed_origin(stack, browser):
    before = logins(stack)
    answer = preflight(browser, LISTED_ORIGIN)
    assert answer.status_code == 204 and answer.content == b""
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert "x-requested-with" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "Origin" in answer.headers["Vary"]
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.test.evil",
                                    "http://app.example.test", "https://app.example.test:444"])
def test_50_preflight_of_another_origin_is_refused(browser, origin):
    answer = preflight(browser, origin)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


# Bad requests


@pytest.mark.parametrize("query", [
    "return_to=/a&return_to=/a", "scope=streaming&scope=streaming", "show_dialog=true&show_dialog=",
    "return_to=/a&return%5Fto=/b", "other=1&other=2",
])
def test_24_repeated_parameter_is_refused(stack, browser, query):
    before = logins(stack)
    answer = browser.navigate("/auth/authorize?" + query, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    expect_nothing_begun(stack, answer, before)


@pytest.mark.parametrize("query", ["return_to=/%zz", "return_to=/%0", "a=%", "return_to=%00", "a=%0a",
                                   "&".join(f"p{i}=" for i in range(500))])
def test_29_malformed_query_is_refused(stack, query):
    before = logins(stack)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(stack.url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/auth/authorize?" + query)  # sent as it is, unlike by requests
        answer = connection.getresponse()
        assert answer.status == 400 and answer.getheader("Location") is None
    assert logins(stack) == before


def test_29_overlong_query_is_refused(stack, browser):
    answer = browser.navigate("/auth/authorize?a=" + "b" * 20000)
    assert answer.status_code in (400, 414)
    assert "Location" not in answer.headers


# Error pages and headers


class References(html.parser.HTMLParser):
    """Every place that a page would load something from or lead to, and its tags."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.found += [value for name, value in attributes
                       if name in ("href", "src", "action", "data", "srcset", "formaction")]


def expect_page(answer, origin):
    """An error page for a person: no script, nothing from third parties, not to be framed."""
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = dict((part.strip().split(" ", 1) + [""])[:2]
                  for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert "http" not in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    references = References(answer.text)
    assert {"html", "title", "h1"} <= references.tags
    assert not {"script", "img", "link", "iframe"} & references.tags
    assert all(urllib.parse.urljoin(origin, url).startswith(origin + "/")
               for url in references.found)


def test_12_38_error_page_is_a_small_page_of_its_own(stack, browser):
    answer = browser.authorize(return_to="//evil.example")
    assert answer.status_code == 400
    expect_page(answer, stack.url)


def test_style_of_the_error_page_is_what_its_policy_allows(browser):
    answer = browser.authorize(return_to="//evil.example")
    style = re.search(r"<style>(.*?)</style>", answer.text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("accept, kind", [
    ("application/json", "json"), ("application/json, text/html;q=0.9", "json"),
    ("text/html;q=0.1, application/json;q=0.2", "json"), ("application/*", "json"),
    ("text/html", "html"), ("*/*", "html"), (None, "html"), ("", "html"),
    ("text/html, application/json", "html"), ("application/json;q=0.5, text/html", "html"),
    ("application/json;q=0, */*", "html"), ("nonsense;;q=,,", "html"),
])
def test_error_is_json_where_accept_prefers_it(stack, accept, kind):
    answer = Browser(stack).authorize(return_to="//evil.example", headers={"Accept": accept})
    assert answer.status_code == 400
    assert kind in answer.headers["Content-Type"].partition(";")[0]
    if kind == "json":
        assert set(answer.json()) == {"error", "error_description"}
        assert answer.json()["error"] == "invalid_request"
    else:
        expect_page(answer, stack.url)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("name", ["return_to", "scope", "show_dialog", "unknown", "<script>alert(1)"])
def test_22_nothing_of_the_request_is_echoed(browser, name, accept):
    value = "<script>alert('marked-by-test')</script>\"&"
    answer = browser.authorize(headers={"Accept": accept, "User-Agent": value, "X-Test": value},
                               **{name: value, "scope": "<b>marked-by-test"})
    assert answer.status_code == 400
    assert "marked-by-test" not in answer.text and "<script" not in answer.text
    assert "marked-by-test" not in str(answer.headers)


@pytest.mark.parametrize("change", [
    {}, {"return_to": "//evil.example"}, {"scope": "forbidden"}, {"method": "POST"},
    {"Sec-Fetch-Dest": "iframe"}, {"method": "HEAD"}, {"Accept": "application/json"},
], ids=str)
def test_13_headers_of_every_answer(browser, change):
    query = {name: change[name] for name in ("return_to", "scope") if name in change}
    headers = {name: value for name, value in change.items() if name[0].isupper()}
    answer = browser.navigate("/auth/authorize?" + urllib.parse.urlencode(query), headers=headers,
                              method=change.get("method", "GET"))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_15_no_redirect_repeats_a_request_body(stack, browser):
    begun = browser.authorize()
    ended = browser.callback(browser.approve(redirect_of(begun)))
    assert {begun.status_code, ended.status_code} <= {302, 303}


# Redis away


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("how", ["stopped", "stuck"])
def test_14_redis_away_is_503_without_a_redirect(stack, how, accept):
    browser = Browser(stack)
    if how == "stuck":
        stack.redis.pause()
    else:
        stack.redis.kill()
    try:
        answer = browser.authorize(headers={"Accept": accept})
    finally:
        if how == "stuck":
            stack.redis.cont()
        else:
            stack.redis.start()
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers
    if accept == "text/html":
        expect_page(answer, stack.url)
    else:
        assert json.loads(answer.text)["error"] == "temporarily_unavailable"
    for service in stack.services:
        wait_until(service.ready, 10, "Redis found again")
    assert browser.login().status_code == 303
    assert browser.session().json()["authenticated"] is True
