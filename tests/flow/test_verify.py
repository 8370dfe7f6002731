"""GET /verify: what nginx's auth_request hears (API.md 3, "For nginx"), and a page that only those see who are logged in."""

import json

import pytest

import fastcgi
from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import (OWN_COOKIE, Clock, ask, cookie_header, forget_failures, keys, log_in, log_in_with_key,
                      redis_away, refreshes, together)
from stack import TREE, Nginx, wait_until
from test_cross_site import CALLERS, headers_of
from test_nginx import get

AS_A_PAGE = {"HTTP_X_REQUESTED_WITH": None, "HTTP_SEC_FETCH_SITE": "none"}


def verify(stack, browser, query="", **changes):
    return ask(stack.services[0], browser, "/verify", QUERY_STRING=query, **changes)


def assert_refused(reply, status, word):
    assert (reply.status, reply.header("X-Auth-Error")) == (status, word)
    body = json.loads(reply.header("X-Auth-Body"))
    assert body["error"] == word and isinstance(body["error_description"], str)
    assert reply.body.decode() == reply.header("X-Auth-Body")
    assert reply.header("X-Spotify-Access-Token") is None
    return body


def assert_unavailable(reply):
    assert_refused(reply, 403, "temporarily_unavailable")
    assert int(reply.header("Retry-After")) >= 1 and reply.header("Set-Cookie") is None


def test_verify_gives_the_token_the_user_and_the_scope(stack):
    browser = log_in(stack)
    reply = verify(stack, browser)
    token = browser.token().json()
    assert reply.status == 204 and reply.body == b""
    assert reply.header("X-Spotify-Access-Token") == token["access_token"]
    assert reply.header("X-Spotify-Scope") == token["scope"]
    assert reply.header("X-Spotify-User") == "ada"
    assert reply.header("X-Spotify-Account") == browser.session().json()["user"]["account_id"]
    assert reply.header("Set-Cookie") is None and reply.header("Cache-Control") == "no-store"


def test_verify_passes_a_name_beyond_ascii(stack):
    reply = verify(stack, log_in(stack, "çağla"))
    assert reply.header("X-Spotify-User").encode("latin-1").decode() == "çağla"


def test_verify_without_a_profile_names_nobody(stack):
    stack.spotify.next(1, endpoint="api", status=503)
    reply = verify(stack, log_in(stack))
    assert reply.status == 204 and reply.header("X-Spotify-Access-Token")
    assert reply.header("X-Spotify-User") is None and reply.header("X-Spotify-Account") is None


@pytest.mark.parametrize("expires_in, renewed", [(30, 1), (3600, 0)])
def test_verify_renews_as_token_does(stack, expires_in, renewed):
    browser = log_in(stack, expires_in=expires_in)
    replies = together(20, lambda: verify(stack, browser))
    assert {reply.status for reply in replies} == {204} and refreshes(stack) == renewed
    assert len({reply.header("X-Spotify-Access-Token") for reply in replies}) == 1


@pytest.mark.parametrize("cookie, cleared", [(None, False), (f"{OWN_COOKIE}=" + "A" * 43, True),
                                             (f"{OWN_COOKIE}=x", True)], ids=["none", "unknown", "malformed"])
def test_verify_without_a_session_is_401(stack, cookie, cleared):
    reply = verify(stack, log_in(stack), HTTP_COOKIE=cookie)
    body = assert_refused(reply, 401, "login_required")
    assert body["login_url"] == stack.url + "/auth/authorize"
    assert bool(reply.header("Set-Cookie")) is cleared


def test_verify_of_a_session_that_spotify_refuses_is_401_and_keeps_the_cookie(stack):
    browser = log_in(stack, expires_in=1)
    stack.spotify.advance(3600)
    stack.spotify.behave("token", refresh_refusal="revoked")
    wait_until(lambda: browser.session().json().get("expires_in", 0) == 0, 5, "the end of the token")
    reply = verify(stack, browser)
    assert_refused(reply, 401, "login_required")
    assert reply.header("Set-Cookie") is None


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_verify_without_redis_is_403_that_says_so(make_stack, how):
    stack = make_stack(workers=1)
    browser = log_in(stack)
    with redis_away(stack, how):
        assert_unavailable(verify(stack, browser))
    assert verify(stack, browser).status == 204


def test_verify_without_spotify_is_403_that_says_so(stack):
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json().get("expires_in", 0) == 0, 5, "the end of the token")
    stack.spotify.behave("token", status=503, retry_after=7)
    reply = verify(stack, browser)
    assert_unavailable(reply)
    stack.spotify.behave("token", status=None, retry_after=None)
    forget_failures(stack)
    assert verify(stack, browser).status == 204


def test_verify_without_spotify_gives_a_token_that_is_still_valid(stack):
    browser = log_in(stack, expires_in=40)
    stack.spotify.behave("token", status=503)
    assert verify(stack, browser).status == 204
    forget_failures(stack)


def test_a_forced_renewal_happens_once_and_not_to_a_young_token(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=1, workers=2, settings=clock.settings())
    browser = log_in(stack)
    first = verify(stack, browser, "renew=true").header("X-Spotify-Access-Token")
    assert refreshes(stack) == 0 and first
    clock.advance(11)
    assert verify(stack, browser).header("X-Spotify-Access-Token") == first
    assert verify(stack, browser, "renew=false").header("X-Spotify-Access-Token") == first
    replies = together(20, lambda: verify(stack, browser, "renew=true"))
    assert {reply.status for reply in replies} == {204} and refreshes(stack) == 1
    assert {reply.header("X-Spotify-Access-Token") for reply in replies} != {first}


def test_a_forced_renewal_of_a_clock_that_was_set_back(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=1, workers=1, settings=clock.settings())
    browser = log_in(stack)
    clock.advance(-1000)
    assert verify(stack, browser, "renew=true").status == 204 and refreshes(stack) == 1


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_callers_of_a_script_are_held_to_the_rule_of_the_browser_routes(stack, caller):
    headers = headers_of(stack, caller)
    changes = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
    reply = verify(stack, log_in(stack), "caller=script", **changes)
    if caller[-1]:
        assert reply.status == 204
    else:
        assert_refused(reply, 403, "forbidden")
    listed = caller[2] == LISTED_ORIGIN
    assert reply.header("Access-Control-Allow-Origin") == (LISTED_ORIGIN if listed else None)
    assert reply.header("Vary") == "Origin"


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_callers_of_a_site_need_no_header_of_their_own(stack, caller):
    _, site, origin, allowed = caller
    headers = headers_of(stack, ("x", site, origin, allowed))
    changes = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
    browser = log_in(stack)
    strict = verify(stack, browser, "caller=script", **changes).status
    assert verify(stack, browser, "caller=site", **{**changes, "HTTP_X_REQUESTED_WITH": None}).status == strict


def test_a_page_is_anybodys_to_open(stack):
    assert verify(stack, log_in(stack), **AS_A_PAGE).status == 204
    assert_refused(verify(stack, log_in(stack), "caller=site", **AS_A_PAGE), 403, "forbidden")


def test_a_refused_caller_costs_the_session_nothing(stack):
    browser, key = log_in_with_key(stack, expires_in=30)
    before = stack.redis.client().get(key)
    reply = verify(stack, browser, "caller=script", HTTP_SEC_FETCH_SITE="cross-site",
                   HTTP_COOKIE=cookie_header(browser) + "x")
    assert_refused(reply, 403, "forbidden")
    assert reply.header("Set-Cookie") is None
    assert stack.redis.client().get(key) == before and refreshes(stack) == 0


@pytest.mark.parametrize("query", ["caller=nobody", "renew=yes", "renew=true&renew=true"])
def test_a_question_that_nginx_would_not_ask_is_400(stack, query):
    assert verify(stack, log_in(stack), query).status == 400


def test_head_of_verify_has_no_effect(stack):
    browser = log_in(stack, expires_in=30)
    assert verify(stack, browser, "renew=true", method="HEAD").status == 204
    assert refreshes(stack) == 0


@pytest.mark.parametrize("target", ["/auth/verify/preflight", "/auth/verify?caller=site", "/auth/verify/preflight/",
                                    "/spotify/.user", "/spotify/.user-again", "/spotify/.app", "/spotify/.error/404"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_the_questions_are_not_public(stack, target, method):
    browser = log_in(stack)
    answer = browser.request(method, stack.url + target, {"X-Requested-With": "x"}, "same-origin")
    assert answer.status_code in (404, 405) and "X-Spotify-Access-Token" not in answer.headers
    assert "Access-Control-Allow-Methods" not in answer.headers


# Pages for those who are logged in: the README's own snippet


def snippet(heading):
    """The first nginx block of the README behind that heading."""
    text = (TREE / "README.md").read_text()
    assert text.count(f"\n{heading}\n") == 1, heading
    return text.partition(f"\n{heading}\n")[2].partition("```nginx\n")[2].partition("```")[0]


@pytest.fixture
def members(make_stack, monkeypatch):
    plain = Nginx.write_config

    def write_config(nginx):
        plain(nginx)
        text = nginx.config.read_text()
        wanted = snippet("## Pages for those who are logged in")
        upstream = f"proxy_pass {nginx.url}/icon.svg?user=$spotify_user;"
        assert "proxy_pass http://127.0.0.1:3000;" in wanted
        wanted = wanted.replace("proxy_pass http://127.0.0.1:3000;", upstream)
        nginx.config.write_text(text.replace("\n        location / {", f"\n{wanted}\n        location / {{", 1))
        assert wanted in nginx.config.read_text()
    monkeypatch.setattr(Nginx, "write_config", write_config)
    return make_stack(workers=1, settings={"COOKIE_SAMESITE": "Lax"})


def test_a_page_for_members_admits_who_is_logged_in_and_leads_others_to_the_login(members):
    browser = Browser(members)
    away = browser.navigate("/members/list")
    assert away.status_code == 302 and away.headers["Location"].startswith(members.spotify.url)
    assert browser.cookie("spotify-login")
    back = browser.callback(browser.approve(away.headers["Location"]))
    assert back.status_code == 303 and back.headers["Location"] == "/members/list"
    page = browser.navigate(back.headers["Location"], "cross-site")
    assert page.status_code == 200 and "<svg" in page.text


@pytest.mark.parametrize("path", [
    "/members/list?x=1&y=a%26b%3D%2F&z=%C3%A7", "/members/a%20b", "/members/%C3%A7a%C4%9Fla/50%25?q=%23",
    "/members/?next=/a//b",
    "/members/a+b;c=d,e?f=$g", "/members/?return_to=https://evil.example/"])
def test_the_login_of_a_page_ends_at_that_very_page(members, path):
    browser = Browser(members)
    away = browser.navigate(path)
    assert away.status_code == 302
    back = browser.callback(browser.approve(away.headers["Location"]))
    assert (back.status_code, back.headers["Location"]) == (303, path)


@pytest.mark.parametrize("path", ["/members/a%2f%2fb", "/members/%5c", "/members/%0d%0aa", "//members/x", "/members//x",
                                  "/x/../members/y", "/members/%252e%252e/x",
                                  pytest.param("/members/x?" + "y" * 2048, id="long")])
def test_a_page_that_no_login_may_end_at_is_400(members, path):
    """The rules are those of return_to; the way back is never guessed."""
    status, headers, body = get(members, path, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert status == 400 and "location" not in headers and b"<!doctype html" in body.lower()


@pytest.mark.parametrize("headers, status", [
    ({"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "application/json"}, 403),
    ({"Sec-Fetch-Dest": "iframe"}, 403), ({"Sec-Purpose": "prefetch"}, 403), ({"Accept": "application/json"}, 302)])
def test_only_a_persons_own_way_to_a_page_begins_a_login(members, headers, status):
    answer = Browser(members).navigate("/members/list", headers=headers)
    assert answer.status_code == status and ("Set-Cookie" in answer.headers) == (status == 302)


@pytest.mark.parametrize("method, body", [("POST", b"a=b"), ("PUT", b"a=b"), ("DELETE", b"a=b"), ("HEAD", None),
                                          pytest.param("POST", bytes(100_000), id="long")])
def test_a_page_that_is_asked_for_in_another_way_leads_to_the_login_too(members, method, body):
    browser = Browser(members)
    answer = browser.request(method, members.url + "/members/form?x=1", {}, "same-origin", True, body)
    assert answer.status_code == 302
    assert browser.callback(browser.approve(answer.headers["Location"])).headers["Location"] == "/members/form?x=1"


@pytest.mark.parametrize("page, query, place", [
    ("/a?b=%26", "", "/a?b=%26"), (LISTED_ORIGIN + "/app?x", "", LISTED_ORIGIN + "/app?x"), ("", "", "/"),
    ("/a", "return_to=%2Fb", "/b"), ("https://evil.example/", "return_to=%2Fb", "/b"),
    ("https://evil.example/", "", None), ("//evil.example/", "", None), ("/a\\b", "", None), ("/a b", "", None),
    ("x", "", None), ("/" + "x" * 2048, "", None)])
def test_what_nginx_says_of_a_page_is_held_to_the_rules_of_return_to(stack, page, query, place):
    browser = Browser(stack)
    reply = fastcgi.ask(stack.services[0].listen.removeprefix("unix:"), fastcgi.variables(
        SCRIPT_NAME="/auth", PATH_INFO="/authorize", QUERY_STRING=query, LOGIN_RETURN_TO=page))
    if place is None:
        assert reply.status == 400 and reply.header("Set-Cookie") is reply.header("Location") is None
        return
    browser.set_cookie(reply.header("Set-Cookie"))
    assert browser.callback(browser.approve(reply.header("Location"))).headers["Location"] == place


def test_the_login_of_a_page_is_nobodys_to_ask_for(members):
    """Neither by its address nor by a header: without the variable, /authorize ends where it always does."""
    assert get(members, "/auth/.log-in")[0] == get(members, "/auth/.log-in?x")[0] == 404
    browser = Browser(members)
    sent = browser.authorize(headers={"Login-Return-To": "/members/x", "LOGIN_RETURN_TO": "/members/x"})
    assert browser.callback(browser.approve(sent.headers["Location"])).headers["Location"] == "/"


def test_the_login_of_a_page_in_an_outage_is_503(members):
    with redis_away(members, "killed"):
        answer = Browser(members).navigate("/members/")
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    members.services[0].stop()
    status, headers, _ = get(members, "/members/")
    assert status == 503 and int(headers["retry-after"]) >= 1
    members.services[0].start()


def test_a_page_for_members_is_503_in_an_outage_and_logs_nobody_out(members):
    browser = log_in(members)
    assert browser.navigate("/members/").status_code == 200
    with redis_away(members, "killed"):
        answer = browser.navigate("/members/")
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
        assert "Set-Cookie" not in answer.headers
    assert browser.navigate("/members/").status_code == 200
    assert keys(members, "session")
