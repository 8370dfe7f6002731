"""GET /callback: a login ends in the browser that began it, once, whatever else is delivered
(API.md section 3; the numbers are those of contract C.3)."""

import base64
import concurrent.futures
import contextlib
import os
import re
import secrets
import signal
import time
import urllib.parse

import pytest

from browser import Browser, Cookie, redirect_of
from conftest import LISTED_ORIGIN, running
from sessions import assert_login_required, log_in, redis_away, refreshes
from spotify.certificates import make as make_certificates
from stack import Stack, start_spotify, wait_until

URL_SAFE_256_BITS = re.compile(r"[A-Za-z0-9_-]{43}")
JSON = {"Accept": "application/json"}
REPLAY_S = 60
LOGIN_TTL_S = 600
BRIEF_S = 2


def begin(browser, user="ada", **parameters):
    """A login up to Spotify's redirect: the URL of the callback."""
    return browser.approve(redirect_of(browser.authorize(**parameters)), user)


def changed(url, **changes):
    """url with other parameters; None takes one out."""
    parts = urllib.parse.urlsplit(url)
    query = {**dict(urllib.parse.parse_qsl(parts.query)), **changes}
    query = {name: value for name, value in query.items() if value is not None}
    return parts._replace(query=urllib.parse.urlencode(query)).geturl()


def query_of(url):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True))


def sessions(stack):
    """The session keys in Redis."""
    with stack.redis.client() as redis:
        return set(redis.scan_iter("spotify-auth:session:*", count=1000))


def session_cookies(answer):
    cookies = map(Cookie, answer.raw.headers.getlist("Set-Cookie"))
    return [cookie for cookie in cookies if cookie.name.endswith("spotify-session")]


def redemptions(stack):
    return stack.spotify.calls(grant="authorization_code")


def expect_refused(stack, answer, error, calls=0):
    """400 without a session and without a call to Spotify."""
    assert answer.status_code == 400
    assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers
    if answer.headers["Content-Type"].startswith("application/json"):
        assert answer.json()["error"] == error
    else:
        assert f"<code>{error}</code>" in answer.text
    assert redemptions(stack) == calls


def expect_good(stack, browser, answer, return_to="/"):
    """303 to return_to, with a session that works."""
    assert (answer.status_code, redirect_of(answer)) == (303, stack.url + return_to)
    assert len(session_cookies(answer)) == 1
    assert browser.session().json()["authenticated"] is True


@contextlib.contextmanager
def in_background(function, *arguments):
    """function under way in a thread: its future. What hangs at Spotify is let go at the end."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *arguments)


# For the test at the end, which comes after those of all files: by then the login is old enough


def log_in_to_age(stack):
    browser = Browser(stack)
    # Its own user: other tests end all of theirs.
    url = begin(browser, user="methuselah", return_to="/aged")
    answer = browser.callback(url)
    return browser, url, answer, time.monotonic()


@pytest.fixture(scope="session", autouse=True)
def aged_login(shared_stack):
    shared_stack.spotify.reset("behaviour", "hanging", "clock")
    return log_in_to_age(shared_stack)


# A good callback


def test_36_37_good_login_sets_a_session_cookie_and_shows_no_secret(stack, browser):
    url = begin(browser, return_to="/app?x=1#y")
    answer = browser.callback(url)
    expect_good(stack, browser, answer, "/app?x=1#y")
    (cookie,) = session_cookies(answer)
    assert cookie.name == "spotify-session" and URL_SAFE_256_BITS.fullmatch(cookie.value)
    assert cookie.attributes.pop("max-age", "1") != "0"
    assert cookie.attributes == {"httponly": "", "path": "/", "samesite": "Strict"}
    for secret in (*query_of(url).values(), cookie.value):
        assert secret not in answer.headers["Location"] + answer.text


def test_30_token_request_has_exactly_what_it_needs(stack, browser):
    url = begin(browser)
    assert browser.callback(url).status_code == 303
    (call,) = stack.spotify.log("token")
    assert (call["method"], call["path"], call["query"]) == ("POST", "/api/token", {})
    assert call["form"].pop("code_verifier")
    assert call["form"] == {"grant_type": "authorization_code", "code": query_of(url)["code"],
                            "redirect_uri": stack.redirect_uri}
    kind, _, credentials = call["headers"]["authorization"].partition(" ")
    assert kind == "Basic"
    pair = f"{stack.client_id}:{stack.client_secret}"
    assert base64.b64decode(credentials).decode() == pair
    assert call["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_37_each_login_gives_a_new_session_id(stack, browser):
    ids = [session_cookies(browser.login())[0].value for _ in range(3)]
    assert len(set(ids)) == 3


def test_37_session_id_that_the_browser_brings_is_not_taken_over(stack, browser):
    forged = secrets.token_urlsafe(32)
    browser.set_cookie(f"spotify-session={forged}; HttpOnly; Path=/; SameSite=Lax")
    answer = browser.login()
    assert session_cookies(answer)[0].value != forged
    browser.set_cookie(f"spotify-session={forged}; HttpOnly; Path=/; SameSite=Lax")
    assert browser.session().json()["authenticated"] is False


def test_26_unknown_parameters_are_ignored(stack, browser):
    url = changed(begin(browser), unknown="1", session_state="x", scope="streaming")
    expect_good(stack, browser, browser.callback(url))


@pytest.mark.parametrize("order", ["code_first", "state_first"])
@pytest.mark.parametrize("length", [1, 194, 412, 2048])
def test_28_codes_of_any_length_and_order(stack, browser, length, order):
    stack.spotify.behave("authorize", code_length=length, callback_order=order)
    expect_good(stack, browser, browser.callback(begin(browser)))


def test_28_code_is_decoded_once_and_encoded_once(stack, browser):
    code = ("a%2Bb+c/d=e&f%20 g" * 120)[:2048].replace(" ", "_")
    answer = browser.callback(changed(begin(browser), code=code))
    assert query_of(redirect_of(answer)) == {"error": "login_failed"}
    (call,) = stack.spotify.log("token")
    assert call["form"]["code"] == code


def test_11_two_tabs_log_in_one_after_the_other(stack, browser):
    first, second = begin(browser, return_to="/1"), begin(browser, return_to="/2")
    for url, return_to in ((second, "/2"), (first, "/1")):
        expect_good(stack, browser, browser.callback(url), return_to)


def test_11_ten_tabs_log_in_at_once(stack, browser):
    browser.authorize()  # the tabs share the cookie that the first of them got
    urls = [begin(browser, return_to=f"/{number}") for number in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(browser.callback, urls))
    places = [redirect_of(answer) for answer in answers]
    assert places == [f"{stack.url}/{number}" for number in range(10)]
    assert redemptions(stack) == 10
    assert browser.session().json()["authenticated"] is True


# State


def bad_states():
    return {"missing": None, "empty": "", "short": "x", "long": "a" * 2000,
            "not base64url": "!" * 43, "unknown": secrets.token_urlsafe(32)}


@pytest.mark.parametrize("headers", [{}, JSON], ids=["page", "json"])
@pytest.mark.parametrize("kind", bad_states())
def test_16_bad_state_is_refused_without_a_token_call(stack, browser, kind, headers):
    url = begin(browser)
    before = sessions(stack)
    answer = browser.callback(changed(url, state=bad_states()[kind]), headers)
    expect_refused(stack, answer, "invalid_state")
    assert sessions(stack) == before
    expect_good(stack, browser, browser.callback(url))


@pytest.mark.parametrize("kind", ["missing", "empty", "changed"])
def test_16_state_that_spotify_spoilt_is_refused(stack, browser, kind):
    stack.spotify.behave("authorize", callback_state=kind)
    expect_refused(stack, browser.callback(begin(browser), JSON), "invalid_state")


@pytest.mark.parametrize("who", ["without a cookie", "with a cookie of its own", "with a bad cookie"])
def test_17_another_browser_can_neither_use_nor_burn_a_state(stack, browser, who):
    url = begin(browser)
    other = Browser(stack)
    if who == "with a cookie of its own":
        other.authorize()
    elif who == "with a bad cookie":
        other.set_cookie("spotify-login=" + "a" * 50)
    for _ in range(3):
        expect_refused(stack, other.callback(url, JSON), "invalid_state")
    expect_refused(stack, other.callback(changed(url, code=None, error="access_denied"), JSON),
                   "invalid_state")
    expect_good(stack, browser, browser.callback(url))


def test_17_another_browser_gets_nothing_from_a_state_that_was_used(stack, browser):
    url = begin(browser)
    browser.callback(url)
    other = Browser(stack)
    other.authorize()
    expect_refused(stack, other.callback(url, JSON), "invalid_state", calls=1)


@pytest.fixture(scope="module")
def brief():
    """A service whose logins live for BRIEF_S."""
    with running(settings={"LOGIN_TTL": BRIEF_S}, workers=1) as stack:
        yield stack


def test_42_callback_after_login_ttl_is_refused(brief):
    brief.spotify.reset("counters")
    browser = Browser(brief)
    url = begin(browser)
    cookie = browser.cookie("spotify-login")
    assert cookie.attributes["max-age"] == str(BRIEF_S)
    with brief.redis.client() as redis:
        wait_until(lambda: not list(redis.scan_iter("spotify-auth:login:*")), 5, "end of the login")
    answer = browser.callback(url, {**JSON, "Cookie": f"spotify-login={cookie.value}"})
    expect_refused(brief, answer, "invalid_state")


# Parameters


@pytest.mark.parametrize("changes", [
    {"error": "access_denied"}, {"code": None}, {"code": ""}, {"code": "", "error": ""},
    {"code": "a" * 5000}, {"code": "caf\u00e9"}, {"iss": "https://accounts.spotify.example"},
    {"iss": "x"},
], ids=str)
def test_23_25_27_unsound_parameters_are_refused_and_leave_the_state(stack, browser, changes):
    url = begin(browser)
    expect_refused(stack, browser.callback(changed(url, **changes), JSON), "invalid_request")
    expect_good(stack, browser, browser.callback(url))


@pytest.mark.parametrize("name", ["code", "state", "unknown"])
def test_24_repeated_parameter_is_refused_and_leaves_the_state(stack, browser, name):
    url = begin(browser)
    again = urllib.parse.quote(query_of(url).get(name, "1"))
    twice = f"{url}&{name}={again}" if name != "unknown" else f"{url}&unknown=1&unknown=1"
    expect_refused(stack, browser.callback(twice, JSON), "invalid_request")
    expect_good(stack, browser, browser.callback(url))


@pytest.mark.parametrize("tail", ["&a=%00", "&a=%0a", "&%01=b"])
def test_29_control_characters_are_refused_and_leave_the_state(stack, browser, tail):
    url = begin(browser)
    expect_refused(stack, browser.callback(url + tail, JSON), "invalid_request")
    expect_good(stack, browser, browser.callback(url))


def test_27_iss_of_the_accounts_service_is_accepted(stack, browser):
    stack.spotify.behave("authorize", callback_iss="right")
    expect_good(stack, browser, browser.callback(begin(browser)))


# What Spotify says no to


def test_20_declining_ends_at_return_to(stack, browser):
    url = browser.decline(redirect_of(browser.authorize(return_to="/app?x=1#y")))
    answer = browser.callback(url)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/app?x=1&error=access_denied#y"
    assert "Set-Cookie" not in answer.headers and redemptions(stack) == 0


def test_20_declining_ends_at_return_to_on_a_listed_origin(stack, browser):
    url = browser.decline(redirect_of(browser.authorize(return_to=LISTED_ORIGIN + "/app")))
    assert browser.callback(url).headers["Location"] == LISTED_ORIGIN + "/app?error=access_denied"


def test_20_declining_uses_the_state_up(stack, browser):
    declined = browser.decline(redirect_of(browser.authorize()))
    answers = [browser.callback(declined),
               browser.callback(changed(declined, error=None, code="a-code"))]
    for answer in answers:
        assert redirect_of(answer) == stack.url + "/?error=access_denied"
    assert redemptions(stack) == 0


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable", "invalid_scope", "x",
                                   "access_denied2", "ACCESS_DENIED", "<script>alert(1)</script>"])
def test_22_other_errors_are_a_fixed_word_and_never_echoed(stack, browser, error):
    stack.spotify.behave("authorize", callback_error=error,
                         callback_extra={"error_description": "<b>marked-by-test"})
    answer = browser.callback(begin(browser))
    assert answer.headers["Location"] == "/?error=server_error"
    assert "Set-Cookie" not in answer.headers and redemptions(stack) == 0
    seen = str(answer.headers) + answer.text + "".join(stack.logs().values())
    assert "marked-by-test" not in seen and "<script" not in seen


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_21_22_error_with_a_bad_state_is_refused_and_not_echoed(stack, browser, accept):
    url = f"/auth/callback?state={secrets.token_urlsafe(32)}&error=%3Cscript%3Emarked%3C/script%3E"
    answer = browser.callback(url + "&error_description=marked", {"Accept": accept})
    expect_refused(stack, answer, "invalid_state")
    assert "marked" not in answer.text + str(answer.headers)


# Again, and at once


def test_18_same_callback_again_sets_the_same_cookie_without_a_token_call(stack, browser):
    url = begin(browser, return_to="/again")
    first, before = browser.callback(url), sessions(stack)
    for _ in range(3):
        again = browser.callback(url)
        expect_good(stack, browser, again, "/again")
        assert session_cookies(again)[0].value == session_cookies(first)[0].value
    assert redemptions(stack) == 1 and sessions(stack) == before


def test_18_same_callback_again_after_a_failure_fails_alike(stack, browser):
    stack.spotify.behave("token", code_refusal="invalid")
    url = begin(browser)
    answers = [browser.callback(url) for _ in range(2)]
    assert [answer.headers["Location"] for answer in answers] == ["/?error=login_failed"] * 2
    assert redemptions(stack) == 1


def test_19_fifty_deliveries_at_once_make_one_token_call_and_one_session(stack, browser):
    url, before = begin(browser, return_to="/once"), sessions(stack)
    stack.spotify.behave("token", answer_delay=0.3)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: browser.callback(url), range(50)))
    assert {(answer.status_code, redirect_of(answer)) for answer in answers} == {
        (303, stack.url + "/once")}
    assert len({session_cookies(answer)[0].value for answer in answers}) == 1
    assert redemptions(stack) == 1
    assert len(sessions(stack) - before) == 1
    assert browser.session().json()["authenticated"] is True


def wait_for_call(stack, calls=1):
    wait_until(lambda: redemptions(stack) == calls, 10, "a call to Spotify's token endpoint")


@pytest.mark.parametrize("outcome", ["good", "refused"])
def test_second_delivery_waits_for_the_first_one_under_way(stack, browser, outcome):
    url = begin(browser, return_to="/wait")
    stack.spotify.hang("token")
    if outcome == "refused":
        stack.spotify.behave("token", code_refusal="invalid")
    try:
        with in_background(browser.callback, url) as first:
            wait_for_call(stack)
            with in_background(browser.callback, url) as second:
                done, _ = concurrent.futures.wait([first, second], timeout=0.5)
                assert not done
                stack.spotify.release()
                answers = [first.result(20), second.result(20)]
    finally:
        stack.spotify.release()
    assert redemptions(stack) == 1
    if outcome == "good":
        for answer in answers:
            expect_good(stack, browser, answer, "/wait")
        assert len({session_cookies(answer)[0].value for answer in answers}) == 1
    else:
        places = {answer.headers["Location"] for answer in answers}
        assert places == {"/wait?error=login_failed"}


def test_18_same_callback_after_a_short_login_ttl_sets_the_same_cookie(brief):
    brief.spotify.reset("counters")
    browser = Browser(brief)
    url = begin(browser, return_to="/brief")
    login = {"Cookie": f"spotify-login={browser.cookie('spotify-login').value}"}
    first = browser.callback(url, login)
    time.sleep(BRIEF_S + 0.5)
    again = browser.callback(url, login)
    expect_good(brief, browser, again, "/brief")
    assert session_cookies(again)[0].value == session_cookies(first)[0].value
    assert redemptions(brief) == 1


def test_second_delivery_after_a_short_login_ttl_waits_for_the_first_one(brief):
    brief.spotify.reset("counters")
    browser = Browser(brief)
    url = begin(browser, return_to="/brief")
    login = {"Cookie": f"spotify-login={browser.cookie('spotify-login').value}"}
    brief.spotify.hang("token")
    try:
        with in_background(browser.callback, url, login) as first:
            wait_for_call(brief)
            time.sleep(BRIEF_S + 0.5)
            with in_background(browser.callback, url, login) as second:
                done, _ = concurrent.futures.wait([first, second], timeout=0.5)
                brief.spotify.release()
                answers = [first.result(20), second.result(20)]
    finally:
        brief.spotify.release()
    assert not done
    for answer in answers:
        expect_good(brief, browser, answer, "/brief")
    assert len({session_cookies(answer)[0].value for answer in answers}) == 1
    assert redemptions(brief) == 1


def test_18_same_callback_after_another_login_leaves_the_newer_session(stack, browser):
    url = begin(browser, "ada", return_to="/ada")
    expect_good(stack, browser, browser.callback(url), "/ada")
    browser.login("bob")
    newer = browser.cookie("spotify-session").value
    again = browser.callback(url)
    assert (again.status_code, redirect_of(again)) == (303, stack.url + "/ada")
    assert "Set-Cookie" not in again.headers
    assert browser.cookie("spotify-session").value == newer
    assert browser.session().json()["user"]["id"] == "bob"


# Methods


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_39_other_methods_leave_the_state(stack, browser, method):
    url = begin(browser)
    answer = browser.callback(url, JSON, method)
    assert "Set-Cookie" not in answer.headers and "Location" not in answer.headers
    if method == "HEAD":
        assert answer.status_code < 500 and answer.content == b""
    elif method == "OPTIONS":
        assert answer.status_code == 403
    else:
        assert answer.status_code == 405
        assert {"GET", "HEAD"} <= set(answer.headers["Allow"].split(", "))
        assert isinstance(answer.json()["error"], str)
    assert redemptions(stack) == 0
    expect_good(stack, browser, browser.callback(url))


def test_50_preflight_of_a_listed_origin_leaves_the_state(stack, browser):
    url = begin(browser)
    answer = browser.fetch("OPTIONS", url, origin=LISTED_ORIGIN,
                           headers={"Access-Control-Request-Method": "GET"})
    assert answer.status_code == 204
    expect_good(stack, browser, browser.callback(url))


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch"}, {"Purpose": "prefetch"},
                                     {"Sec-Purpose": "prefetch;prerender"}], ids=str)
def test_39_prefetch_leaves_the_state(stack, browser, headers):
    url = begin(browser)
    answer = browser.callback(url, headers)
    assert answer.status_code >= 400
    assert "Set-Cookie" not in answer.headers and redemptions(stack) == 0
    expect_good(stack, browser, browser.callback(url))


# Headers


@pytest.mark.parametrize("kind", ["good", "denied", "bad state", "bad state, json", "head"])
def test_38_headers_of_every_answer(stack, browser, kind):
    url = begin(browser)
    if kind == "denied":
        url = changed(url, code=None, error="access_denied")
    elif kind.startswith("bad state"):
        url = changed(url, state="x")
    answer = browser.callback(url, JSON if kind.endswith("json") else None,
                              "HEAD" if kind == "head" else "GET")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    if kind == "bad state":
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "://" not in answer.text.replace(stack.url, "")


def test_41_code_and_state_are_in_no_log(stack, browser):
    urls = [begin(browser), changed(begin(browser), state=secrets.token_urlsafe(32))]
    for url in urls:
        browser.callback(url)
    values = {value for url in urls for value in query_of(url).values()}
    assert len(values) == 4
    assert not [name for name, text in stack.logs().items() for value in values if value in text]


# The profile is no condition


@pytest.mark.parametrize("behaviour", [
    {"status": 403}, {"status": 429, "retry_after": 30}, {"status": 500}, {"status": 503},
    {"status": 302}, {"api_error": "not_registered"}, {"api_error": "premium"},
    {"api_error": "quota"}, {"api_error": "invalid"}, {"reset": "before"}, {"reset": "body"},
    {"json_shape": "not_json"}, {"json_shape": "array"}, {"json_shape": "empty"},
    {"body_size": 100000}, {"poison": "nul"}, {"images": "hostile"}, {"garbage": True},
    {"content_length": "long"},
], ids=str)
def test_profile_that_cannot_be_read_is_no_failure(stack, browser, behaviour):
    stack.spotify.behave("api", **behaviour)
    answer = browser.callback(begin(browser))
    expect_good(stack, browser, answer)
    assert stack.spotify.calls("api") >= 1  # libcurl may repeat a GET on a kept connection that broke
    assert browser.token().json()["access_token"]


@pytest.fixture(scope="module")
def hasty():
    """A service that waits for Spotify for a second."""
    settings = {"UPSTREAM_TIMEOUT_MS": 1000, "UPSTREAM_CONNECT_TIMEOUT_MS": 500,
                "STORE_TIMEOUT_MS": 300}
    with running(services=2, workers=2, settings=settings) as stack:
        yield stack


@pytest.fixture
def hasty_stack(hasty):
    hasty.spotify.reset("behaviour", "hanging", "counters", "log")
    yield hasty
    hasty.spotify.reset("behaviour", "hanging")


@pytest.mark.parametrize("stage", ["before", "body"])
def test_profile_that_does_not_come_is_no_failure(hasty_stack, stage):
    browser = Browser(hasty_stack)
    hasty_stack.spotify.hang("api", stage)
    expect_good(hasty_stack, browser, browser.callback(begin(browser)))


# Spotify away


def test_spotify_that_does_not_answer_ends_at_return_to(hasty_stack):
    browser = Browser(hasty_stack)
    hasty_stack.spotify.hang("token")
    answer = browser.callback(begin(browser, return_to="/app"))
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/app?error=temporarily_unavailable"
    assert "Set-Cookie" not in answer.headers


def test_spotify_that_is_gone_ends_at_return_to(make_stack):
    stack = make_stack(workers=1)
    browser = Browser(stack)
    url = begin(browser, return_to="/app")
    stack.spotify.stop()
    answer = browser.callback(url)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/app?error=temporarily_unavailable"


def test_60_wait_that_spotify_asked_for_is_kept_by_all_workers(stack, browser):
    stack.spotify.next(1, status=429, retry_after=30)
    with stack.redis.client() as redis:
        try:
            for _ in range(6):
                answer = browser.callback(begin(browser))
                assert answer.headers["Location"] == "/?error=temporarily_unavailable"
            assert redemptions(stack) == 1
        finally:
            redis.delete("spotify-auth:backoff")
    expect_good(stack, browser, browser.login())


# TLS to Spotify


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def over_tls(certificates):
    """A stack, and a function that puts a Spotify with another certificate at the same address."""
    first = start_spotify(cert=certificates["good"][0], key=certificates["good"][1])
    running_now = [first]

    def exchange(name):
        running_now.pop().stop()
        cert, key = certificates[name]
        spotify = start_spotify(listen=first.url.removeprefix("https://"), cert=cert, key=key)
        running_now.append(spotify)
        spotify.register(stack.client_id, stack.client_secret, [stack.redirect_uri])
        stack.spotify = spotify
        return spotify

    settings = {"UPSTREAM_CA_FILE": certificates["ca"], "SPOTIFY_PROFILE": "on"}
    stack = Stack(spotify=first, settings=settings, workers=1)
    try:
        with stack:
            yield stack, exchange
    finally:
        running_now.pop().stop()


def log_in_at(stack, spotify):
    """A login where the scripted browser need not trust Spotify's certificate: browser, answer."""
    browser = Browser(stack)
    location = redirect_of(browser.authorize(return_to="/tls"))
    return browser, browser.callback(spotify.agree(location))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("certificate", ["wrong_name", "expired", "unknown_ca"])
def test_31_spotify_with_a_bad_certificate_gets_no_secret(over_tls, certificate):
    """The good one comes first: neither its connection nor its TLS session may be used again."""
    stack, exchange = over_tls
    spotify = exchange("good")
    log_in_at(stack, spotify)  # may meet the end of a connection to the Spotify before
    expect_good(stack, *log_in_at(stack, spotify), "/tls")
    spotify = exchange(certificate)
    for _ in range(3):
        _, answer = log_in_at(stack, spotify)
        assert answer.status_code == 303
        assert answer.headers["Location"] == "/tls?error=temporarily_unavailable"
        assert "Set-Cookie" not in answer.headers
    assert spotify.log("token") == [] and spotify.log("api") == []


# The session that the browser had


def test_new_login_ends_the_previous_session_of_the_browser(stack, browser):
    browser.login()
    (old,) = [browser.cookie("spotify-session").value]
    assert browser.cookie("spotify-session").same_site == "strict"
    before = sessions(stack)
    browser.login()
    assert len(before - sessions(stack)) == 1 and len(sessions(stack) - before) == 1
    stale = browser.token(headers={"Cookie": f"spotify-session={old}"}, cookies=False)
    assert stale.status_code == 401
    assert browser.session().json()["authenticated"] is True


@pytest.mark.parametrize("method, path", [("GET", "/session"), ("GET", "/token"), ("POST", "/refresh")])
def test_late_request_with_the_old_cookie_leaves_the_new_one(stack, browser, method, path):
    browser.login()
    old = browser.cookie("spotify-session").value
    browser.login()
    late = browser.fetch(method, path, headers={"Cookie": f"spotify-session={old}"})
    assert "Set-Cookie" not in late.headers
    assert late.status_code == (200 if path == "/session" else 401)
    assert browser.session().json()["authenticated"] is True


@pytest.mark.parametrize("outcome", ["good", "refused"])
def test_late_renewal_of_the_old_session_leaves_the_new_cookie(stack, outcome):
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "end of the token")
    url = begin(browser)
    stack.spotify.hang("token", grant="refresh_token")
    if outcome == "refused":
        stack.spotify.behave("token", grant="refresh_token", refresh_refusal="revoked")
    with in_background(browser.token) as late:
        try:
            wait_until(lambda: refreshes(stack) == 1, 5, "the renewal")
            expect_good(stack, browser, browser.callback(url))
            new = browser.cookie("spotify-session").value
        finally:
            stack.spotify.release(grant="refresh_token")
        answer = late.result(20)
    assert_login_required(answer, cleared=False)
    assert browser.cookie("spotify-session").value == new
    assert browser.session().json()["authenticated"] is True
    assert browser.token().status_code == 200


def test_session_stays_when_a_new_login_fails(stack, browser):
    browser.login()
    for spoil in ({"code_refusal": "invalid"}, {"status": 500}):
        stack.spotify.next(1, **spoil)
        assert "error=" in browser.login().headers["Location"]
        assert browser.session().json()["authenticated"] is True


def test_other_browsers_of_the_user_keep_their_sessions(stack, browser):
    other = Browser(stack)
    other.login()
    browser.login()
    browser.login()
    assert other.session().json()["authenticated"] is True


# Redis away


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("how", ["killed", "paused"])
def test_state_is_usable_after_redis_was_away(stack, browser, how, accept):
    url = begin(browser, return_to="/back")
    with redis_away(stack, how):
        answers = [browser.callback(url, {"Accept": accept}) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"].startswith(accept)
        assert "Set-Cookie" not in answer.headers and "Location" not in answer.headers
    assert redemptions(stack) == 0
    expect_good(stack, browser, browser.callback(url), "/back")
    assert redemptions(stack) == 1


def test_redis_that_goes_during_the_token_call_ends_at_return_to(stack, browser):
    url = begin(browser, return_to="/lost")
    stack.spotify.hang("token")
    with in_background(browser.callback, url) as first:
        try:
            wait_for_call(stack)
            with redis_away(stack, "killed"):
                stack.spotify.release()
                answer = first.result(20)
        finally:
            stack.spotify.release()
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/lost?error=temporarily_unavailable"
    assert "Set-Cookie" not in answer.headers


# A worker killed


def kill_workers(service):
    """SIGKILL to all workers of a service, which starts new ones."""
    killed = service.workers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(service.workers()) == len(killed)
               and not set(service.workers()) & set(killed), 10, "new workers")


@pytest.mark.parametrize("stage", ["before", "after"])
def test_40_killed_worker_leaves_one_token_call_and_a_reload_that_ends(hasty_stack, stage):
    """The other service process is there for nginx to send the callback to, which it must not."""
    stack, browser = hasty_stack, Browser(hasty_stack)
    url = begin(browser, return_to="/killed")
    stack.spotify.hang("token", stage)
    with in_background(browser.callback, url) as first:
        wait_for_call(stack)
        for service in stack.services:
            if not first.done():
                kill_workers(service)
                concurrent.futures.wait([first], timeout=0.1)
        answer = first.result(10)
    stack.spotify.release()
    assert answer.status_code == 502
    for service in stack.services:
        wait_until(service.ready, 10, "readiness after the kill")
    begun = time.monotonic()
    reload = browser.callback(url)
    assert time.monotonic() - begun < 6
    assert reload.status_code == 303
    assert reload.headers["Location"] == "/killed?error=temporarily_unavailable"
    assert redemptions(stack) == 1
    expect_good(stack, browser, browser.login())


def test_40_after_a_killed_worker_the_first_reload_alone_waits(make_stack):
    call_s, command_s = 0.5, 0.2
    stack = make_stack(workers=1, settings={
        "UPSTREAM_TIMEOUT_MS": int(call_s * 1000), "STORE_TIMEOUT_MS": int(command_s * 1000)})
    browser = Browser(stack)
    url = begin(browser, return_to="/killed")
    stack.spotify.hang("token")
    with in_background(browser.callback, url) as first:
        wait_for_call(stack)
        begun = time.monotonic()
        kill_workers(stack.services[0])
        assert first.result(10).status_code == 502
    stack.spotify.release()
    wait_until(stack.services[0].ready, 10, "readiness after the kill")
    ended = []
    for _ in range(2):
        reload = browser.callback(url)
        ended.append(time.monotonic() - begun)
        assert reload.status_code == 303
        assert reload.headers["Location"] == "/killed?error=temporarily_unavailable"
        assert "Set-Cookie" not in reload.headers
    # Two calls to Spotify and eight commands to Redis are the most that a living worker needs.
    assert ended[0] < 2 * call_s + 8 * command_s + 0.7
    assert ended[1] - ended[0] < 0.5
    assert redemptions(stack) == 1


@pytest.mark.late
def test_18_same_callback_after_a_minute_is_the_redirect_alone(stack, aged_login):
    browser, url, first, at = aged_login
    if time.monotonic() - at > LOGIN_TTL_S / 2:  # a slow run: too old to be known
        browser, url, first, at = log_in_to_age(stack)
        stack.spotify.reset("counters")
    time.sleep(max(0, REPLAY_S + 2 - (time.monotonic() - at)))
    again = browser.callback(url)
    assert (again.status_code, redirect_of(again)) == (303, redirect_of(first))
    assert "Set-Cookie" not in again.headers
    assert redemptions(stack) == 0
    assert browser.session().json()["authenticated"] is True
