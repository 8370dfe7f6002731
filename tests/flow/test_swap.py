"""POST /swap and /swap/refresh: phones with Spotify's SDKs. Numbers are the rules of the contract's C.3."""

import base64
import json
import os
import re
import signal

import pytest

import sessions
from browser import Browser
from conftest import running
from phone import FORM, IOS_HEADERS, IOS_REFRESH, Phone, ios_encode, new_verifier
from sessions import Clock, keys, meanwhile, redis_away, refreshes, together
from stack import TREE, Nginx, wait_until
from test_nginx import get

APP = {"SWAP_REDIRECT_URIS": "my-app://callback"}
LONG_S = 20000000


@pytest.fixture(scope="module")
def shared_clocked(tmp_path_factory):
    clock = Clock(tmp_path_factory.mktemp("clock") / "time")
    settings = {**APP, **clock.settings(), "SESSION_MAX_AGE": LONG_S, "SESSION_IDLE_TTL": LONG_S}
    with running(services=2, workers=1, settings=settings) as stack:
        stack.clock = clock
        yield stack


@pytest.fixture
def clocked(shared_clocked):
    """Two services whose wall clock stack.clock moves on; handles live for LONG_S."""
    shared_clocked.spotify.reset("behaviour", "hanging", "clock", "counters", "log")
    yield shared_clocked
    sessions.forget_failures(shared_clocked)


@pytest.fixture
def phone(stack):
    return Phone(stack)


def token_calls(stack):
    return stack.spotify.calls("token")


def assert_error(answer, status, word):
    """Flat JSON whatever the status (contract B.2, RFC 6749 5.2), and nothing of a browser's (75)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == word
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", body["error_description"])
    assert "Set-Cookie" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


def assert_unavailable(answer):
    assert_error(answer, 503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def works(stack, answer):
    """Whether the answer has an access token that Spotify takes."""
    token = answer.json()["access_token"]
    me = stack.spotify.session.get(stack.spotify.url + "/v1/me", headers={"Authorization": "Bearer " + token})
    return answer.status_code == 200 and me.status_code == 200


# /swap


def test_68_swap_gives_tokens_and_a_handle(stack, phone):
    answer = phone.swap()
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert body["token_type"] == "Bearer" and 3590 <= body["expires_in"] <= 3600
    assert body["scope"] == "user-read-private streaming"
    assert re.fullmatch("[A-Za-z0-9_-]{43}", body["refresh_token"])
    assert body["refresh_token"] not in stack.spotify.secrets("refresh_token")
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    assert works(stack, answer)


def test_30_68_swap_redeems_the_code_like_the_callback(stack, phone):
    """The iOS body, byte for byte; at Spotify the registered address of the app, and nothing in the URL."""
    code = phone.code()
    answer = phone.post("/swap", f"code={code}")
    assert answer.status_code == 200
    call, = stack.spotify.log("token")
    assert call["form"] == {"grant_type": "authorization_code", "code": code, "redirect_uri": stack.app_uris[0]}
    assert call["query"] == {}
    basic = base64.b64encode(f"{stack.client_id}:{stack.client_secret}".encode()).decode()
    assert call["headers"]["authorization"] == "Basic " + basic


@pytest.mark.parametrize("content_type", [FORM, FORM + "; charset=utf-8", FORM.upper()])
def test_swap_takes_forms_of_any_spelling(phone, content_type):
    assert phone.post("/swap", "code=" + phone.code(), {"Content-Type": content_type}).status_code == 200


def test_swap_ignores_what_older_sdks_add(phone):
    answer = phone.swap(grant_type="authorization_code", client_id="x", session_id="1")
    assert answer.status_code == 200


def test_69_a_verifier_is_passed_on(stack, phone):
    verifier, challenge = new_verifier()
    answer = phone.swap(phone.code(challenge=challenge), code_verifier=verifier)
    assert answer.status_code == 200
    assert stack.spotify.log("token")[-1]["form"]["code_verifier"] == verifier


@pytest.mark.parametrize("verifier", ["x" * 42, "x" * 129, "x" * 42 + "+", "x" * 42 + "=", "x" * 42 + "é"])
def test_69_a_malformed_verifier_is_400_without_a_call(stack, phone, verifier):
    assert_error(phone.swap("any-code", code_verifier=verifier), 400, "invalid_request")
    assert token_calls(stack) == 0


def test_69_a_wrong_verifier_is_invalid_grant(phone):
    _, challenge = new_verifier()
    assert_error(phone.swap(phone.code(challenge=challenge), code_verifier="not-the-verifier-of-this-login-but-another-one"), 400, "invalid_grant")


def test_69_a_missing_verifier_is_the_phones_mistake(phone):
    """Spotify says invalid_request: to try again would not help, and our credentials are fine."""
    _, challenge = new_verifier()
    assert_error(phone.swap(phone.code(challenge=challenge)), 400, "invalid_request")


def test_70_a_listed_redirect_uri_is_used(stack):
    phone = Phone(stack, stack.app_uris[1])
    assert phone.swap(redirect_uri=stack.app_uris[1]).status_code == 200
    assert stack.spotify.log("token")[-1]["form"]["redirect_uri"] == stack.app_uris[1]


@pytest.mark.parametrize("change", [lambda uri: uri + "/", lambda uri: uri + "?x", lambda uri: uri.upper(),
                                    lambda uri: uri[:-1], lambda uri: "https://evil.example/callback"])
def test_70_another_redirect_uri_is_400_without_a_call(stack, phone, change):
    assert_error(phone.swap("any-code", redirect_uri=change(stack.app_uris[0])), 400, "invalid_request")
    assert token_calls(stack) == 0


def test_70_the_services_own_callback_is_no_address_of_an_app(stack, phone):
    assert_error(phone.swap("any-code", redirect_uri=stack.redirect_uri), 400, "invalid_request")


def test_a_code_that_comes_twice_is_invalid_grant(phone):
    code = phone.code()
    assert phone.swap(code).status_code == 200
    assert_error(phone.swap(code), 400, "invalid_grant")
    assert phone.refresh().status_code == 200


@pytest.mark.parametrize("code", ["made-up", "AQ" + "x" * 4094])
def test_an_unknown_code_is_invalid_grant(phone, code):
    assert_error(phone.swap(code), 400, "invalid_grant")


@pytest.mark.parametrize("body", ["", "code=", "cod=x", "code", "code=a&code=b", "code=%zz", "code=a%00b", "code=a%0Ab",
                                  "code=%C3%A9", "code=" + "x" * 4097, "&".join(f"p{i}=1" for i in range(65))])
def test_76_a_malformed_swap_is_400_without_a_call(stack, phone, body):
    assert_error(phone.post("/swap", body), 400, "invalid_request")
    assert token_calls(stack) == 0


@pytest.mark.parametrize("route", ["/swap", "/swap/refresh"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_76_other_methods_are_405(stack, phone, route, method):
    answer = phone.post(route + "?code=x", None, {}, method)
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST"
    if method != "HEAD":
        assert_error(answer, 405, "method_not_allowed")
    assert token_calls(stack) == 0


@pytest.mark.parametrize("route", ["/swap", "/swap/refresh"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", None])
def test_76_a_body_that_is_no_form_is_415(stack, phone, route, content_type):
    answer = phone.post(route, '{"code":"x","refresh_token":"x"}', {"Content-Type": content_type})
    assert_error(answer, 415, "unsupported_media_type")
    assert token_calls(stack) == 0


@pytest.mark.parametrize("route, query", [("/swap", "code"), ("/swap/refresh", "refresh_token")])
def test_76_parameters_in_the_address_are_400(stack, phone, route, query):
    """RFC 6749 2.3.1: addresses end up in logs."""
    for body in ("", f"{query}=x"):
        assert_error(phone.post(f"{route}?{query}=x", body), 400, "invalid_request")
    assert token_calls(stack) == 0


def test_a_swap_without_profile_is_good(stack, phone):
    stack.spotify.behave("api", status=503)
    assert phone.swap().status_code == 200


def test_a_swap_without_scope_in_the_answer_is_good(stack, phone):
    stack.spotify.behave("token", scope="missing")
    assert phone.swap().json()["scope"] == ""


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "retry_after": 1}, {"status": 500}, {"reset": True},
                                   {"json_shape": "html"}, {"refresh_token": "missing"}, {"expires_in": 0},
                                   {"token_error": "invalid_client"}], ids=str)
def test_swap_while_spotify_is_away_is_503(make_stack, fault):
    stack = make_stack(settings=APP)
    phone = Phone(stack)
    stack.spotify.behave("token", **fault)
    assert_unavailable(phone.swap())
    stack.spotify.behave("token", **dict.fromkeys(fault))
    stack.redis.client().delete(sessions.PREFIX + "backoff")
    assert phone.log_in().refresh().status_code == 200


def test_spotifys_retry_after_is_passed_on_and_kept(make_stack):
    stack = make_stack(services=2, settings=APP)
    phone = Phone(stack)
    stack.spotify.next(1, status=429, retry_after=30)
    answer = phone.swap()
    assert_unavailable(answer)
    assert 25 <= int(answer.headers["Retry-After"]) <= 31
    for _ in range(4):
        assert 20 <= int(phone.swap().headers["Retry-After"]) <= 31
    assert token_calls(stack) == 1


def test_swap_while_redis_is_away_keeps_the_code(make_stack):
    stack = make_stack(settings=APP)
    phone = Phone(stack)
    code = phone.code()
    with redis_away(stack, "killed"):
        assert_unavailable(phone.swap(code))
        assert token_calls(stack) == 0
    assert phone.swap(code).status_code == 200


# /swap/refresh


def test_71_refresh_in_the_form_of_ios(stack, phone):
    """Byte for byte: client_id, grant_type, and a handle of which all but letters and digits is encoded."""
    phone.log_in()
    while "-" not in phone.handle or "_" not in phone.handle:
        phone.log_in()
    body = IOS_REFRESH.format(client_id=stack.client_id, handle=ios_encode(phone.handle))
    assert "%2D" in body and "%5F" in body
    answer = phone.post("/swap/refresh", body)
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
    assert works(stack, answer)


def test_refresh_as_documented_needs_the_handle_alone(phone):
    phone.log_in()
    assert phone.post("/swap/refresh", "refresh_token=" + phone.handle).status_code == 200


def test_71_a_foreign_client_id_is_400(stack, phone):
    phone.log_in(expires_in=30)
    body = f"client_id=foreign&refresh_token={phone.handle}"
    assert_error(phone.post("/swap/refresh", body), 400, "invalid_grant")
    assert refreshes(stack) == 0
    assert phone.refresh().status_code == 200


@pytest.mark.parametrize("grant", ["authorization_code", "client_credentials", "Refresh_Token", "x" * 100])
def test_71_another_grant_type_is_400(stack, phone, grant):
    phone.log_in(expires_in=30)
    body = f"grant_type={grant}&refresh_token={phone.handle}"
    assert_error(phone.post("/swap/refresh", body), 400, "unsupported_grant_type")
    assert refreshes(stack) == 0


def test_72_a_changed_cut_or_foreign_handle_is_invalid_grant_without_a_call(stack, phone):
    phone.log_in(expires_in=30)
    handle = phone.handle
    changed = [handle[:at] + ("A" if handle[at] != "A" else "B") + handle[at + 1:] for at in range(0, len(handle), 3)]
    cut = [handle[:at] for at in range(1, len(handle), 5)] + [handle[1:], handle + "A", handle + "=", " " + handle]
    foreign = ["x", "é" * 20, "A" * 43, "A" * 8192, stack.spotify.secrets("refresh_token")[0], handle.swapcase()]
    for bad in changed + cut + foreign:
        assert_error(phone.refresh(bad), 400, "invalid_grant")
    assert refreshes(stack) == 0
    assert phone.refresh().status_code == 200


@pytest.mark.parametrize("body", ["", "refresh_token=", "client_id=x", "refresh_token=a&refresh_token=b",
                                  "refresh_token=%zz", "refresh_token=" + "x" * 8193])
def test_76_a_malformed_refresh_is_400(stack, phone, body):
    answer = phone.post("/swap/refresh", body)
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str)
    assert token_calls(stack) == 0


def test_a_handle_is_no_cookie_and_a_cookie_no_handle(stack, phone):
    phone.log_in()
    browser = sessions.log_in(stack)
    cookie = browser.cookie(sessions.OWN_COOKIE)
    assert_error(phone.refresh(cookie.value), 400, "invalid_grant")
    other = Browser(stack)
    other.set_cookie(f"{cookie.name}={phone.handle}; Path=/; HttpOnly; SameSite=Strict")
    assert other.token().status_code == 401
    assert phone.refresh().status_code == 200


def test_75_cookies_are_neither_read_nor_set(stack, phone):
    browser = sessions.log_in(stack)
    headers = {**IOS_HEADERS, "Cookie": sessions.cookie_header(browser), "Origin": "https://app.example.test"}
    code = phone.code()
    for route, body in (("/swap", "code=" + code), ("/swap", "code=x"), ("/swap/refresh", "refresh_token=x")):
        answer = phone.post(route, body, headers)
        assert "Set-Cookie" not in answer.headers and "Access-Control-Allow-Origin" not in answer.headers
    assert browser.token().status_code == 200


@pytest.mark.parametrize("rotation", ["omit", "empty", "same", "null", "new"])
def test_73_the_handle_stays_whatever_spotify_rotates(clocked, rotation):
    """Each renewal takes the refresh token of the last answer that had one."""
    clocked.spotify.behave("token", rotation=rotation)
    phone = Phone(clocked).log_in()
    for count in range(1, 4):
        clocked.clock.advance(3600)
        answer = phone.refresh()
        assert answer.status_code == 200 and "refresh_token" not in answer.json()
        assert refreshes(clocked) == count
    assert len(clocked.spotify.counters()["refresh_tokens"]) == (3 if rotation == "new" else 1)


def test_a_young_token_is_answered_as_it_is(stack, phone):
    first = phone.swap().json()["access_token"]
    assert phone.refresh().json()["access_token"] == first
    assert refreshes(stack) == 0


def test_an_older_token_is_renewed_at_once(clocked):
    phone = Phone(clocked)
    first = phone.swap().json()["access_token"]
    clocked.clock.advance(11)
    answer = phone.refresh()
    assert answer.json()["access_token"] != first and answer.json()["expires_in"] >= 3590
    assert phone.refresh().json()["access_token"] == answer.json()["access_token"]
    assert refreshes(clocked) == 1


def test_a_young_token_near_its_end_is_renewed(stack, phone):
    phone.log_in(expires_in=30)
    assert phone.refresh().json()["expires_in"] >= 3590


def test_54_parallel_refreshes_are_one_call(stack, phone):
    phone.log_in(expires_in=30)
    stack.spotify.behave("token", rotation="new", latency=0.3)
    answers = together(40, phone.refresh)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert refreshes(stack) == 1


def test_60_a_handle_and_its_renewal_outlive_an_outage_of_spotify(clocked):
    phone = Phone(clocked).log_in()
    clocked.clock.advance(3600)
    for fault in ({"status": 503}, {"status": 502}, {"token_error": "invalid_client"}, {"json_shape": "html"}):
        sessions.forget_failures(clocked)
        clocked.spotify.behave("token", **fault)
        assert_unavailable(phone.refresh())
        clocked.spotify.behave("token", **dict.fromkeys(fault))
    sessions.forget_failures(clocked)
    assert phone.refresh().status_code == 200


def test_59_a_valid_token_is_handed_out_during_an_outage(clocked):
    phone = Phone(clocked)
    first = phone.swap().json()["access_token"]
    clocked.clock.advance(600)
    clocked.spotify.behave("token", status=503)
    answer = phone.refresh()
    assert answer.json()["access_token"] == first and 2900 <= answer.json()["expires_in"] <= 3000


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_handle_outlives_an_outage_of_redis(make_stack, how):
    stack = make_stack(settings={**APP, "STORE_TIMEOUT_MS": 300})
    phone = Phone(stack).log_in()
    with redis_away(stack, how):
        assert_unavailable(phone.refresh())
    assert phone.refresh().status_code == 200


# A refusal of Spotify's (API.md 4.6)


def make_suspect(stack):
    phone = Phone(stack).log_in()
    stack.clock.advance(3600)
    stack.spotify.behave("token", refresh_refusal="revoked")
    assert_error(phone.refresh(), 400, "invalid_grant")
    return phone


def test_57_a_refused_handle_is_invalid_grant_and_kept(clocked):
    before = keys(clocked, "session")
    make_suspect(clocked)
    assert len(keys(clocked, "session") - before) == 1


def test_57_a_refused_handle_is_not_tried_again_within_a_minute(clocked):
    phone = make_suspect(clocked)
    clocked.clock.advance(50)
    for _ in range(4):
        assert_error(phone.refresh(), 400, "invalid_grant")
    assert refreshes(clocked) == 1


def test_57_a_false_refusal_of_a_handle_heals(clocked):
    phone = make_suspect(clocked)
    clocked.spotify.behave("token", refresh_refusal=None)
    clocked.clock.advance(61)
    assert phone.refresh().status_code == 200


def test_57_a_second_refusal_ends_a_handle(clocked):
    before = keys(clocked, "session")
    phone = make_suspect(clocked)
    clocked.clock.advance(301)
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert keys(clocked, "session") <= before
    assert refreshes(clocked) == 2
    clocked.spotify.behave("token", refresh_refusal=None)
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert refreshes(clocked) == 2


def test_57_at_six_months_a_refusal_of_a_handle_is_believed(clocked):
    before = keys(clocked, "session")
    phone = Phone(clocked).log_in()
    clocked.clock.advance(15552000)
    clocked.spotify.behave("token", refresh_refusal="expired")
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert keys(clocked, "session") <= before


# How long a handle lives


def test_63_a_handle_ends_without_use(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(settings={**APP, **clock.settings(), "SESSION_IDLE_TTL": 1000, "SESSION_MAX_AGE": 2500})
    phone = Phone(stack).log_in()
    record, = keys(stack, "session")
    assert 990_000 < stack.redis.client().pttl(record) <= 1000_000
    clock.advance(900)
    assert phone.refresh().status_code == 200
    clock.advance(900)
    assert phone.refresh().status_code == 200
    clock.advance(701)  # past SESSION_MAX_AGE, whatever the use
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert not keys(stack, "session")


def test_logout_everywhere_ends_handles(stack, phone):
    phone.log_in()
    other = Phone(stack, user="grace").log_in()
    browser = sessions.log_in(stack)
    assert browser.logout(all=True).status_code == 204
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert other.refresh().status_code == 200


def test_logout_of_a_browser_leaves_handles(stack, phone):
    phone.log_in()
    assert sessions.log_in(stack).logout().status_code == 204
    assert phone.refresh().status_code == 200


def test_a_handle_is_listed_with_the_sessions_of_its_user_and_ended_by_its_id(stack):
    phone = Phone(stack, user="listed-phone").log_in()
    browser = sessions.log_in(stack, "listed-phone")
    own, listed = browser.fetch("GET", "/sessions").json()["sessions"]
    assert own["current"] and listed["user_agent"] == "Phone app" and listed["begun_at"] and listed["last_used_at"]
    assert phone.handle not in json.dumps(listed)
    assert browser.fetch("POST", "/logout", data={"id": listed["id"]}).status_code == 204
    assert_error(phone.refresh(), 400, "invalid_grant")
    assert browser.session().json()["authenticated"]


def test_handles_are_no_session_of_their_browser(stack, phone):
    """A swap ends nothing: the record of each handle is its own."""
    first = phone.log_in().handle
    phone.log_in()
    assert phone.handle != first
    assert phone.refresh(first).status_code == 200 and phone.refresh().status_code == 200


# Where there is no list


def test_without_a_list_the_routes_are_404(make_stack):
    stack = make_stack(settings={"SWAP_REDIRECT_URIS": None})
    stack.app_uris = ["my-app://callback"]
    phone = Phone(stack)
    for route in ("/swap", "/swap/refresh"):
        for method in ("POST", "GET", "OPTIONS"):
            assert_error(phone.post(route, "code=x&refresh_token=x", method=method), 404, "not_found")


@pytest.mark.parametrize("route", ["/swap/", "/swap/refresh/", "/swap/x", "/Swap"])
def test_other_paths_beside_them_are_404(phone, route):
    assert_error(phone.post(route, "code=x"), 404, "not_found")


# nginx's own errors


def raw(stack, target, *headers, body=b""):
    status, got, text = get(stack, target, "Content-Type: " + FORM, *headers, method="POST", body=body)
    error = json.loads(text)
    assert set(error) == {"error", "error_description"} and isinstance(error["error"], str)
    assert got["content-type"] == "application/json" and got["cache-control"] == "no-store"
    assert "set-cookie" not in got and "access-control-allow-origin" not in got
    return status, got


@pytest.mark.parametrize("route", ["/auth/swap", "/auth/swap/refresh"])
def test_74_errors_of_nginx_are_flat_json(stack, route):
    large = b"code=" + b"x" * 65536
    assert raw(stack, route, f"Content-Length: {len(large)}", body=large)[0] == 413
    assert raw(stack, route, "Content-Length: x")[0] == 400
    assert raw(stack, route, "X-Long: " + "x" * 40000, "Content-Length: 0")[0] == 431
    assert raw(stack, route + "?" + "x" * 40000, "Content-Length: 0")[0] == 414
    assert raw(stack, route, "Transfer-Encoding: gzip")[0] == 501


def test_74_a_service_that_is_down_is_flat_json(make_stack):
    stack = make_stack(settings=APP)
    stack.services[0].stop()
    for route in ("/auth/swap", "/auth/swap/refresh"):
        status, headers = raw(stack, route, "Content-Length: 6", body=b"code=x")
        assert status == 503 and int(headers["retry-after"]) >= 1
    stack.services[0].start()


@pytest.fixture
def impatient(make_stack, monkeypatch):
    """nginx waits for the service for a second."""
    plain = Nginx.write_config

    def write_config(nginx):
        plain(nginx)
        name = TREE / "nginx" / "spotify-auth.conf"
        text, count = re.subn(r"fastcgi_read_timeout \w+;", "fastcgi_read_timeout 1s;", name.read_text())
        own = nginx.directory / name.name
        own.write_text(text)
        whole = nginx.config.read_text()
        assert count and f"include {name};" in whole
        nginx.config.write_text(whole.replace(f"include {name};", f"include {own};"))
    monkeypatch.setattr(Nginx, "write_config", write_config)
    return make_stack(workers=1, settings=APP)


def test_74_a_service_that_does_not_answer_is_flat_json(impatient):
    phone = Phone(impatient).log_in(expires_in=30)
    impatient.spotify.hang("token")
    for answer in (phone.swap(phone.code()), phone.refresh()):
        assert_error(answer, 504, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    impatient.spotify.release("token")
    impatient.spotify.reset("hanging")
    assert phone.refresh().status_code == 200


@pytest.mark.parametrize("route", ["/auth/swap", "/auth/swap/refresh"])
def test_75_too_many_requests_are_429_with_retry_after(make_stack, route):
    """A stack of its own, whose phones have asked nothing yet."""
    stack = make_stack(settings=APP)
    answers = [get(stack, route, "Content-Length: 0", method="POST") for _ in range(40)]
    assert {status for status, _, _ in answers} == {400}
    for _ in range(3000):
        status, headers, text = get(stack, route, "Content-Length: 0", method="POST")
        if status != 400:
            break
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert json.loads(text)["error"] == "rate_limited"
    assert get(stack, "/auth/session", "X-Requested-With: x", "Sec-Fetch-Site: same-origin")[0] == 200


def test_a_swap_is_never_sent_to_a_second_worker(make_stack):
    """A code is redeemed once: when its worker ends, the phone is told so, and not by a second call."""
    stack = make_stack(services=2, workers=1, settings=APP)
    phone = Phone(stack)
    stack.spotify.hang("token")
    with meanwhile(phone.swap) as answer:
        wait_until(lambda: token_calls(stack) == 1, 5, "the call to Spotify")
        for service in stack.services:
            for pid in service.workers():
                os.kill(pid, signal.SIGKILL)
        assert_unavailable(answer.result(30))
    stack.spotify.release("token")
    assert token_calls(stack) == 1


def test_a_service_that_is_down_costs_no_swap(make_stack):
    stack = make_stack(services=2, settings=APP)
    stack.services[0].kill()
    phone = Phone(stack)
    for _ in range(4):
        assert phone.log_in().refresh().status_code == 200
