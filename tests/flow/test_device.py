"""Login for programs without a browser: /device and its grant at /api/token (RFC 8628)."""

import json
import re
import subprocess

import pytest

import fastcgi
import npm
import sessions
from browser import Browser, redirect_of
from conftest import running
from phone import FORM
from sessions import keys, redis_away, together
from stack import wait_until
from terminal import Terminal, connect, open_page, submit
from test_nginx import get

ON = {"DEVICE_LOGIN": "on"}
CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"
CLOSE = "You can close this page"


def forget_guesses(stack):
    for key in keys(stack, "guesses"):
        stack.redis.client().delete(key)


@pytest.fixture
def terminal(stack):
    forget_guesses(stack)
    yield Terminal(stack).begin()
    forget_guesses(stack)


@pytest.fixture(scope="module")
def shared_brief():
    """Codes that live for a second."""
    with running(services=1, workers=1, settings={**ON, "LOGIN_TTL": 1}) as stack:
        yield stack


@pytest.fixture
def brief(shared_brief):
    shared_brief.spotify.reset("behaviour", "hanging", "clock", "counters", "log")
    forget_guesses(shared_brief)
    return shared_brief


def assert_error(answer, status, word):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert set(answer.json()) == {"error", "error_description"} and answer.json()["error"] == word


def assert_page(page, status, text):
    assert page.status_code == status, page.text
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "frame-ancestors 'none'" in policy
    assert "http" not in policy and page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == "no-store"
    assert "<script" not in page.text and text in page.text


# D1, D2: the codes


def test_a_device_gets_its_codes(stack, terminal):
    codes = terminal.codes
    assert set(codes) == {"device_code", "user_code", "verification_uri", "verification_uri_complete", "expires_in",
                          "interval"}
    assert re.fullmatch("[A-Za-z0-9_-]{43}", codes["device_code"])
    assert re.fullmatch(f"[{CONSONANTS}]{{4}}-[{CONSONANTS}]{{4}}", codes["user_code"])
    assert codes["verification_uri"] == stack.url + "/auth/device"
    assert codes["verification_uri_complete"] == codes["verification_uri"] + "?user_code=" + codes["user_code"]
    assert (codes["expires_in"], codes["interval"]) == (600, 5)


def test_codes_are_all_different_and_use_all_consonants(stack):
    codes = [Terminal(stack).begin().codes for _ in range(40)]
    assert len({code["device_code"] for code in codes}) == len({code["user_code"] for code in codes}) == 40
    assert set("".join(code["user_code"] for code in codes)) == set(CONSONANTS + "-")


def test_a_scope_that_is_not_allowed_is_400(terminal):
    assert_error(terminal.post("/device", {"scope": "user-library-modify"}), 400, "invalid_scope")


def test_a_client_id_is_accepted_and_not_looked_at(terminal):
    assert terminal.post("/device", {"client_id": "my-terminal"}).status_code == 200
    assert_error(terminal.poll(client_id="my-terminal"), 400, "authorization_pending")


@pytest.mark.parametrize("body, status", [("scope=a&scope=b", 400), ("scope=%zz", 400), ("scope=%22", 400)])
def test_a_malformed_request_for_codes_is_400_json(terminal, body, status):
    answer = terminal.post("/device", body, headers={"Content-Type": FORM})
    assert answer.status_code == status and isinstance(answer.json()["error"], str)


def test_a_body_that_is_no_form_is_415(terminal):
    assert_error(terminal.post("/device", "{}", headers={"Content-Type": "application/json"}), 415,
                 "unsupported_media_type")


def test_other_methods_are_405(stack):
    for method in ("PUT", "DELETE", "OPTIONS"):
        status, headers, body = get(stack, "/auth/device", "Content-Length: 0", method=method)
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
        assert json.loads(body)["error"] == "method_not_allowed"


# The whole of it


def test_a_person_connects_a_device(stack, terminal):
    browser = Browser(stack)
    assert_error(terminal.poll(), 400, "authorization_pending")
    assert_page(connect(browser, terminal), 200, CLOSE)
    answer = terminal.poll()
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert body["token_type"] == "Bearer" and 3590 <= body["expires_in"] <= 3600
    assert body["access_token"] in stack.spotify.secrets("access_token")
    assert body["refresh_token"] not in stack.spotify.secrets("refresh_token")
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    assert terminal.refresh(body["refresh_token"]).json()["access_token"] == body["access_token"]


def test_an_answer_is_given_once(stack, terminal):
    connect(Browser(stack), terminal)
    assert terminal.poll().status_code == 200
    assert_error(terminal.poll(), 400, "invalid_grant")


def test_an_answer_is_given_once_to_many_at_once(stack, terminal):
    """All of them have seen that it is there, and wait for the token to be renewed."""
    stack.spotify.next(1, grant="authorization_code", expires_in=30)
    connect(Browser(stack), terminal)
    stack.spotify.behave("token", latency=0.5)
    statuses = [answer.status_code for answer in together(20, terminal.poll)]
    assert sorted(statuses) == [200] + [400] * 19


@pytest.mark.parametrize("typing", [str, str.lower, lambda code: code.replace("-", ""),
                                    lambda code: " " + code.replace("-", " ").title() + " "])
def test_a_code_is_typed_in_any_way(stack, terminal, typing):
    assert_page(connect(Browser(stack), terminal, typed=typing(terminal.user_code)), 200, CLOSE)
    assert terminal.poll().status_code == 200


def test_the_browser_stays_as_it_was(stack, terminal):
    """The device gets a login of its own: the browser's session is neither given away nor ended nor replaced."""
    browser = sessions.log_in(stack, "grace")
    cookie = browser.cookie(sessions.OWN_COOKIE).value
    connect(browser, terminal, "ada")
    assert browser.cookie(sessions.OWN_COOKIE).value == cookie
    assert browser.session().json()["user"]["id"] == "grace"
    other = Browser(stack)
    connect(other, Terminal(stack).begin())
    assert other.cookie(sessions.OWN_COOKIE) is None
    handle = terminal.poll().json()["refresh_token"]
    assert browser.logout().status_code == 204
    assert terminal.refresh(handle).status_code == 200


def test_logout_everywhere_ends_a_devices_handle(stack, terminal):
    connect(Browser(stack), terminal)
    handle = terminal.poll().json()["refresh_token"]
    assert sessions.log_in(stack).logout(all=True).status_code == 204
    assert_error(terminal.refresh(handle), 400, "invalid_grant")


def test_a_devices_handle_is_listed_with_the_sessions_of_its_user_and_ended_by_its_id(stack, terminal):
    connect(Browser(stack), terminal, "listed-device")
    handle = terminal.poll().json()["refresh_token"]
    browser = sessions.log_in(stack, "listed-device")
    own, listed = browser.fetch("GET", "/sessions").json()["sessions"]
    assert own["current"] and listed["user_agent"] == "Device" and listed["begun_at"] and listed["last_used_at"]
    assert browser.fetch("POST", "/logout", data={"id": listed["id"]}).status_code == 204
    assert_error(terminal.refresh(handle), 400, "invalid_grant")
    assert browser.session().json()["authenticated"]


def test_the_scope_asked_for_is_the_devices(stack):
    terminal = Terminal(stack).begin(scope="streaming user-read-private")
    connect(Browser(stack), terminal)
    asked = stack.spotify.log("authorize")[0]["query"]
    assert asked["scope"] == "streaming user-read-private"
    assert asked["show_dialog"] == "true"
    assert terminal.poll().json()["scope"] == "streaming user-read-private"


def test_the_same_callback_again_ends_on_the_same_page(stack, terminal):
    browser = Browser(stack)
    to_spotify = redirect_of(submit(browser, open_page(browser, terminal.user_code)))
    url = browser.approve(to_spotify)
    first, second = browser.callback(url), browser.callback(url)
    assert redirect_of(first) == redirect_of(second) == stack.url + "/auth/device?done=true"
    assert stack.spotify.calls("token") == 1
    assert terminal.poll().status_code == 200


# D3: the page


def test_the_page_asks_for_a_code_and_says_what_it_is(stack):
    page = open_page(Browser(stack))
    assert_page(page, 200, "your Spotify account")
    assert "Nobody who calls or writes to you needs it" in page.text
    assert 'name="user_code" value=""' in page.text


def test_the_page_shows_the_code_and_what_is_handed_out(stack):
    terminal = Terminal(stack).begin(scope="streaming playlist-read-private")
    page = open_page(Browser(stack), terminal.user_code.lower())
    assert_page(page, 200, f'value="{terminal.user_code}"')
    assert "<code>streaming</code>" in page.text and "<code>playlist-read-private</code>" in page.text
    assert 'value="decline"' in page.text


@pytest.mark.parametrize("code", ["BBBB-BBBB", "AEIO-UAEI", "B", "<script>alert(1)</script>", "BBBB-BBBB-B", "é" * 8])
def test_an_unknown_code_is_said_on_the_page(stack, terminal, code):
    page = open_page(Browser(stack), code)
    assert_page(page, 400, "unknown, was used already or has expired")
    assert "alert(1)" not in page.text and 'name="user_code" value=""' in page.text


def test_a_used_code_is_said_on_the_page(stack, terminal):
    browser = Browser(stack)
    page = open_page(browser, terminal.user_code)
    connect(browser, terminal)
    for answer in (submit(browser, page), submit(browser, page, "decline"), open_page(browser, terminal.user_code)):
        assert_page(answer, 400, "unknown, was used already or has expired")
    assert terminal.poll().status_code == 200


def test_head_has_no_effect(stack, terminal):
    answer = Browser(stack).navigate(terminal.codes["verification_uri_complete"], method="HEAD")
    assert answer.status_code == 200 and "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("query, text, has_form", [
    ("done=true", "The device is connected", False), ("error=access_denied", "You said no", False),
    ("done=true&error=expired_token", "was used already or has expired", True),
    ("done=true&error=login_failed", "still good: please enter it again", True),
    ("done=true&error=%3Cscript%3Ealert(1)%3C/script%3E", "still good: please enter it again", True)])
def test_the_closing_pages_say_how_it_ended_and_nothing_of_the_request(stack, query, text, has_form):
    page = Browser(stack).navigate(stack.url + "/auth/device?" + query)
    assert_page(page, 200, text)
    assert "alert(1)" not in page.text and ('name="user_code" value=""' in page.text) == has_form


# D4: from our page, in this browser


@pytest.mark.parametrize("changes", [{"form": None}, {"form": "A" * 43}, {"form": "x"}])
def test_a_form_that_is_not_ours_does_nothing(stack, terminal, changes):
    browser = Browser(stack)
    page = open_page(browser, terminal.user_code)
    for action in ("connect", "decline"):
        assert_page(submit(browser, page, action, **changes), 403, "Please try again")
    assert_error(terminal.poll(), 400, "authorization_pending")


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
                                     {"Sec-Fetch-Site": "none"}, {"Origin": "https://evil.example"},
                                     {"Sec-Fetch-Site": None, "Origin": "https://evil.example"}, {"Cookie": ""}])
def test_a_form_from_elsewhere_does_nothing(stack, terminal, headers):
    browser = Browser(stack)
    page = open_page(browser, terminal.user_code)
    assert_page(submit(browser, page, "decline", headers=headers), 403, "Please try again")
    assert_error(terminal.poll(), 400, "authorization_pending")


@pytest.mark.parametrize("headers", [{"Origin": "null"}, {"Origin": None}, {"Sec-Fetch-Site": None, "Origin": "null"}])
def test_our_form_as_browsers_send_it(stack, terminal, headers):
    """With Referrer-Policy: no-referrer they say Origin: null; old ones send no Sec-Fetch-Site."""
    browser = Browser(stack)
    assert submit(browser, open_page(browser, terminal.user_code), headers=headers).status_code == 303


def test_another_browsers_form_does_nothing(stack, terminal):
    mine, foreign = Browser(stack), Browser(stack)
    open_page(mine)
    page = open_page(foreign, terminal.user_code)
    assert_page(submit(mine, page), 403, "Please try again")


def test_the_login_ends_in_the_browser_that_confirmed(stack, terminal):
    browser = Browser(stack)
    url = browser.approve(redirect_of(submit(browser, open_page(browser, terminal.user_code))))
    assert Browser(stack).callback(url).status_code == 400
    assert_error(terminal.poll(), 400, "authorization_pending")
    assert browser.callback(url).status_code == 303
    assert terminal.poll().status_code == 200


# D5, D6: no, and what goes wrong


def test_a_person_declines_on_the_page(stack, terminal):
    browser = Browser(stack)
    assert_page(submit(browser, open_page(browser, terminal.user_code), "decline"), 200, CLOSE)
    for _ in range(2):
        assert_error(terminal.poll(), 400, "access_denied")
    assert stack.spotify.calls("authorize") == 0


def test_a_person_declines_at_spotify(stack, terminal):
    browser = Browser(stack)
    url = browser.decline(redirect_of(submit(browser, open_page(browser, terminal.user_code))))
    page = browser.navigate(redirect_of(browser.callback(url)), "cross-site")
    assert_page(page, 200, "You said no")
    assert_error(terminal.poll(), 400, "access_denied")


def test_after_an_outage_of_spotify_the_code_is_still_good(stack, terminal):
    browser = Browser(stack)
    stack.spotify.next(8, status=503)
    page = connect(browser, terminal)
    assert_page(page, 200, "still good")
    assert_error(terminal.poll(), 400, "authorization_pending")
    stack.spotify.reset("behaviour")
    to_spotify = redirect_of(submit(browser, page, typed=terminal.user_code))
    back = browser.callback(browser.approve(to_spotify))
    assert_page(browser.navigate(redirect_of(back), "cross-site"), 200, CLOSE)
    assert terminal.poll().status_code == 200


def test_two_people_with_one_code_are_one_login(stack, terminal):
    before = keys(stack, "session")
    browsers = [Browser(stack), Browser(stack)]
    urls = [browser.approve(redirect_of(submit(browser, open_page(browser, terminal.user_code))), user)
            for browser, user in zip(browsers, ("ada", "grace"))]
    ends = [redirect_of(browser.callback(url)) for browser, url in zip(browsers, urls)]
    assert ends[0].endswith("/auth/device?done=true") and "error=expired_token" in ends[1]
    assert len(keys(stack, "session") - before) == 1
    token = terminal.poll().json()["access_token"]
    me = stack.spotify.session.get(stack.spotify.url + "/v1/me", headers={"Authorization": "Bearer " + token}).json()
    assert me["id"] == "ada"


def test_a_handle_that_nobody_fetches_does_not_stay(stack, terminal):
    before = keys(stack, "session")
    connect(Browser(stack), terminal)
    record, = keys(stack, "session") - before
    assert stack.redis.client().pttl(record) <= 600_000
    terminal.poll()
    wait_until(lambda: stack.redis.client().pttl(record) > 2_000_000_000, 5, "the handle's full life")


# D7: how it stands


def test_slow_down_makes_the_interval_longer_in_all_workers(stack):
    """RFC 8628 3.5: by 5 seconds each time; time passes by moving back when the device was last told to wait."""
    before = keys(stack, "device")
    terminal = Terminal(stack).begin()
    record, = keys(stack, "device") - before
    assert_error(terminal.poll(), 400, "authorization_pending")
    assert_error(terminal.poll(), 400, "slow_down")  # 10 s from here
    for seconds, word in [(6, "slow_down"), (6, "slow_down"), (9, "authorization_pending")]:
        stack.redis.client().hincrby(record, "polled", -1000 * seconds)
        assert_error(terminal.poll(), 400, word)


def test_an_answer_waits_for_no_interval(stack, terminal):
    terminal.poll()
    connect(Browser(stack), terminal)
    assert terminal.poll().status_code == 200


def test_expired_codes(brief):
    terminal = Terminal(brief).begin()
    browser = Browser(brief)
    assert terminal.codes["expires_in"] == 1
    wait_until(lambda: terminal.poll().json()["error"] == "expired_token", 3, "the end of the code", 0.1)
    assert_page(open_page(browser, terminal.user_code), 400, "has expired")
    wait_until(lambda: terminal.poll().json()["error"] == "invalid_grant", 3, "the end of its record", 0.1)
    assert not keys(brief, "device") and not keys(brief, "user-code")


def test_a_login_that_ends_after_its_code_is_not_given_away(brief):
    terminal = Terminal(brief).begin()
    browser = Browser(brief)
    before = keys(brief, "session")
    url = browser.approve(redirect_of(submit(browser, open_page(browser, terminal.user_code))))
    wait_until(lambda: terminal.poll().json()["error"] == "expired_token", 3, "the end of the code", 0.02)
    answer = browser.callback(url)
    if answer.status_code == 303:  # the login itself lives for a second from the click on
        assert "error=expired_token" in redirect_of(answer)
    assert keys(brief, "session") == before


@pytest.mark.parametrize("code", ["x", "A" * 43, "A" * 44, "é", "A" * 1024])
def test_an_unknown_device_code_is_invalid_grant(terminal, code):
    assert_error(terminal.poll(device_code=code), 400, "invalid_grant")


def test_the_user_code_is_no_device_code(terminal):
    assert_error(terminal.poll(device_code=terminal.user_code), 400, "invalid_grant")


@pytest.mark.parametrize("fields", [{"device_code": None}, {"device_code": ""}])
def test_a_grant_without_a_device_code_is_400(terminal, fields):
    assert_error(terminal.poll(**fields), 400, "invalid_request")


# Guesses


def guess(stack, address, code="BCDF-GHJK", service=0):
    path = stack.services[service].listen.removeprefix("unix:")
    return fastcgi.ask(path, fastcgi.variables(REQUEST_METHOD="GET", SCRIPT_NAME="/auth", PATH_INFO="/device",
                                               QUERY_STRING="user_code=" + code, REMOTE_ADDR=address), timeout_s=30)


def test_guesses_are_counted_for_each_address_by_all_processes(stack, terminal):
    for number in range(10):
        assert guess(stack, "203.0.113.7", service=number % 2).status == 400
    for service in (0, 1):
        answer = guess(stack, "203.0.113.7", terminal.user_code, service)
        assert answer.status == 429 and b"Too many wrong codes" in answer.body
    assert guess(stack, "203.0.113.8", terminal.user_code).status == 200
    assert all(500_000 < stack.redis.client().pttl(key) <= 600_000 for key in keys(stack, "guesses"))


def test_guesses_of_whoever_has_many_addresses_are_limited_in_all(stack, terminal):
    guess(stack, "203.0.113.20")
    own = keys(stack, "guesses")
    guess(stack, "203.0.113.21")
    assert len(own) == 2 and len(keys(stack, "guesses")) == 3, "one for each address, and one for all"
    client = stack.redis.client()
    everybody, = [key for key in own if client.get(key) == b"2"]
    client.set(everybody, 9_999, keepttl=True)
    assert guess(stack, "203.0.113.22", terminal.user_code).status == 200, "a right one is no guess"
    assert guess(stack, "203.0.113.22").status == 400
    for service in (0, 1):
        assert guess(stack, "203.0.113.23", terminal.user_code, service).status == 429
    assert 500_000 < client.pttl(everybody) <= 600_000


def test_guesses_of_one_ipv6_network_are_counted_together(stack, terminal):
    for number in range(10):
        assert guess(stack, f"2001:db8:1:2::{number:x}").status == 400
    assert guess(stack, "2001:db8:1:2:ffff::1", terminal.user_code).status == 429
    assert guess(stack, "2001:db8:1:3::1", terminal.user_code).status == 200


def test_guesses_at_once_are_counted(stack, terminal):
    statuses = [answer.status for answer in together(40, lambda: guess(stack, "203.0.113.9"))]
    assert statuses.count(400) <= 10 and statuses.count(429) >= 30


def test_right_codes_are_no_guesses(stack, terminal):
    for _ in range(15):
        assert guess(stack, "203.0.113.10", terminal.user_code).status == 200


def test_a_code_that_is_looked_at_too_often_is_void(stack, terminal):
    statuses = [guess(stack, f"203.0.113.{number}", terminal.user_code).status for number in range(60)]
    assert statuses == [200] * 50 + [400] * 10


def test_too_many_requests_are_429_json(make_stack):
    stack = make_stack(settings=ON)
    for _ in range(3000):
        status, headers, body = get(stack, "/auth/device", "Content-Length: 0", method="POST")
        if status != 200:
            break
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert json.loads(body)["error"] == "rate_limited"


# Off, and outages


def test_without_device_login_the_routes_are_404(make_stack):
    stack = make_stack(services=1, workers=1)
    terminal = Terminal(stack)
    terminal.codes = {"device_code": "A" * 43}
    assert_error(terminal.post("/device"), 404, "not_found")
    assert get(stack, "/auth/device")[0] == 404
    assert_error(terminal.poll(), 400, "unsupported_grant_type")


def test_redis_away_is_503_and_costs_no_code(make_stack):
    stack = make_stack(settings={**ON, "STORE_TIMEOUT_MS": 300})
    terminal, browser = Terminal(stack).begin(), Browser(stack)
    page = open_page(browser, terminal.user_code)
    with redis_away(stack, "killed"):
        for answer in (terminal.post("/device"), terminal.poll()):
            assert_error(answer, 503, "temporarily_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        for answer in (open_page(browser, terminal.user_code), submit(browser, page)):
            assert_page(answer, 503, "temporarily_unavailable")
    assert_page(connect(browser, terminal), 200, CLOSE)
    with redis_away(stack, "killed"):
        assert terminal.poll().status_code == 503
    assert terminal.poll().status_code == 200


def test_a_dump_of_redis_opens_no_device(stack, terminal):
    """The device code and what was left for it: hashes and sealed bytes only."""
    connect(Browser(stack), terminal)
    client = stack.redis.client()
    for key in [*keys(stack, "device"), *keys(stack, "user-code")]:
        value = client.hgetall(key) if client.type(key) == b"hash" else client.get(key)
        for code in (terminal.codes["device_code"], terminal.user_code, terminal.user_code.replace("-", "")):
            assert code.encode() not in key + repr(value).encode()


# Libraries and browsers of others

AUTHLIB = """
import json, pathlib, sys, time
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
base, kept = sys.argv[1], pathlib.Path(sys.argv[2])
session = OAuth2Session("my-terminal", token_endpoint_auth_method="none")
session.trust_env = False
if kept.exists():
    token = session.refresh_token(base + "/api/token", refresh_token=kept.read_text())
else:
    codes = session.request("POST", base + "/device", withhold_token=True).json()
    print(json.dumps(codes), flush=True)
    while True:
        try:
            token = session.fetch_token(base + "/api/token", device_code=codes["device_code"],
                                        grant_type="urn:ietf:params:oauth:grant-type:device_code")
            break
        except OAuthError as error:
            if error.error not in ("authorization_pending", "slow_down"):
                raise
            time.sleep(0.2)
    kept.write_text(token["refresh_token"])
print(json.dumps(token), flush=True)
"""


def run_terminal(stack, kept, person=None):
    """A terminal program; when it shows a code, person enters it. Its token."""
    command = ["/usr/bin/python3", "-c", AUTHLIB, stack.url + "/auth", str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            if person:
                terminal = Terminal(stack)
                terminal.codes = json.loads(program.stdout.readline())
                assert_page(connect(person, terminal), 200, CLOSE)
            return json.loads(program.stdout.readline())
        finally:
            program.kill()


def test_a_terminal_with_authlib_keeps_the_handle_alone(stack, terminal, tmp_path):
    kept = tmp_path / "handle"
    first = run_terminal(stack, kept, Browser(stack))
    assert re.fullmatch("[A-Za-z0-9_-]{43}", kept.read_text())
    again = run_terminal(stack, kept)
    for token in (first, again):
        assert token["access_token"] in stack.spotify.secrets("access_token")


def test_a_terminal_with_openid_client(stack, terminal, tmp_path):
    kept = tmp_path / "handle"
    with sessions.meanwhile(lambda: npm.node("terminal.mjs", stack.url + "/auth", str(kept))) as token:
        shown = tmp_path / "handle.code"
        terminal.codes = {"user_code": wait_until(lambda: shown.exists() and shown.read_text(), 30, "the code")}
        assert_page(connect(Browser(stack), terminal), 200, CLOSE)
        assert token.result(60)["access_token"] in stack.spotify.secrets("access_token")
    again = npm.node("terminal.mjs", stack.url + "/auth", str(kept))
    assert again["access_token"] in stack.spotify.secrets("access_token")
    assert kept.read_text() not in again.values()


def test_the_page_in_a_real_browser(stack, terminal, page):  # noqa: F811
    """Its policy lets the form lead on to Spotify and back."""
    page.open("/auth/device")
    page.type("input[name=user_code]", terminal.user_code.lower().replace("-", ""))
    page.screenshot("device")
    page.click("button[value=connect]")
    page.wait_text("Simulated Spotify")
    page.click("button[value=agree]")
    page.wait_text("You can close this page")
    assert terminal.poll().status_code == 200
    page.open("/auth/device?user_code=" + Terminal(stack).begin().user_code)
    page.screenshot("device-confirm")
    page.click("button[value=decline]")
    page.wait_text("You said no")
