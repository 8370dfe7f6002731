"""The Web API through nginx (nginx/spotify-api.conf): /spotify/v1/ with the user's token, /catalog/v1/ with the app's,
and none of them in the browser."""

import json
import re
import subprocess
import warnings

import pytest

import traffic
from browser import RECORDER, Browser
from conftest import LISTED_ORIGIN
from sessions import (OWN_COOKIE, Clock, assert_error, assert_login_required, assert_unavailable, cookie_header,
                      forget_failures, log_in, log_in_with_key, redis_away, refreshes)
from spotify import certificates
from stack import TREE, Nginx, start_spotify, wait_until
from test_cross_site import CALLERS, headers_of
from test_nginx import get
from test_verify import snippet

ALBUM = "/v1/albums/4aawyAB9vmqN3uQ7FjRGTy"
BOTH = pytest.mark.parametrize("mount, path", [("/spotify", "/v1/me"), ("/catalog", ALBUM)], ids=["user", "app"])


def api(browser, path, method="GET", **how):
    return browser.fetch(method, browser.origin + path, **how)


def calls_of(stack):
    """What Spotify's Web API was asked since the test began, but for the profile at the login."""
    return [entry for entry in stack.spotify.log("api")][1:]


def assert_safe(answer, stack):
    for kind, values in stack.spotify.secrets_by_kind().items():
        for value in values:
            if len(value) > 16:
                assert value not in answer.text and value not in str(answer.headers), kind


def test_a_user_reads_the_own_profile_without_seeing_a_token(stack):
    browser = log_in(stack)
    answer = api(browser, "/spotify/v1/me")
    assert answer.status_code == 200 and answer.json()["id"] == "ada"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["X-Request-Id"]
    assert_safe(answer, stack)


def test_each_user_reads_the_own(stack):
    people = {user: log_in(stack, user) for user in ("ada", "grace")}
    for user, browser in people.items():
        assert {api(browser, "/spotify/v1/me").json()["id"] for _ in range(3)} == {user}


def test_the_catalogue_is_read_without_a_login(stack):
    answer = Browser(stack).request("GET", stack.url + "/catalog" + ALBUM, {}, "same-origin")
    assert answer.status_code == 200 and answer.json()["name"] == "A simulated album"
    found = Browser(stack).request("GET", stack.url + "/catalog/v1/search?q=a%26b%20%C3%A7&type=track", {}, "same-origin")
    assert found.json()["tracks"]["items"][0]["name"] == "a&b ç"
    assert_safe(answer, stack)


def test_the_catalogue_is_no_way_to_a_users_data(stack):
    browser = log_in(stack)
    for path in ("/catalog/v1/me", "/catalog/v1/me/playlists", "/catalog/v1/users/ada"):
        assert_error(api(browser, path), 404, "not_found")
    assert calls_of(stack) == []


def test_the_readmes_example_works_as_it_is_written(stack):
    text = (TREE / "README.md").read_text()
    path, = re.findall(r'await fetch\("(/spotify/v1/[^"]*)", \{headers: \{"X-Requested-With"', text)
    assert api(log_in(stack), path).status_code == 200


# What goes to Spotify


def test_only_a_few_of_the_clients_headers_go_on(stack):
    browser = log_in(stack)
    headers = {"Authorization": "Bearer of-the-client", "Proxy": "http://evil.example", "X-Forwarded-For": "1.2.3.4",
               "Referer": "https://app.example/secret", "X-Spotify-Access-Token": "of-the-client",
               "Accept-Language": "de", "If-None-Match": '"tag"', "Cookie": cookie_header(browser) + "; other=cookie"}
    assert api(browser, "/spotify/v1/me", headers=headers).status_code == 200
    sent = calls_of(stack)[-1]["headers"]
    assert sent["authorization"] == "Bearer " + browser.token().json()["access_token"]
    assert sent["accept-language"] == "de" and sent["if-none-match"] == '"tag"'
    assert set(sent) <= {"host", "authorization", "accept", "accept-encoding", "accept-language", "if-none-match"}


def test_path_query_and_body_arrive_as_they_were(stack):
    browser = log_in(stack)
    body = json.dumps({"ids": ["a", "ç"]}).encode()
    answer = api(browser, "/spotify/v1/me/library?uris=a%2Cb&x=%26", "PUT", data=body,
                 headers={"Content-Type": "application/json"})
    echo = answer.json()
    assert (echo["method"], echo["path"], echo["query"]) == ("PUT", "/v1/me/library", {"uris": "a,b", "x": "&"})
    assert echo["body"].encode() == body
    assert calls_of(stack)[-1]["headers"]["content-type"] == "application/json"


def test_connections_to_spotify_are_kept(make_stack):
    stack = make_stack(workers=1)
    browser = log_in(stack)
    before = stack.spotify.counters()["connections"]
    for _ in range(10):
        assert api(browser, "/spotify/v1/me").status_code == 200
    assert stack.spotify.counters()["connections"] <= before + 1


# What may be asked for


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/spotify/v1/me/playlists", 403), ("HEAD", "/spotify/v1/me", 200), ("PUT", "/spotify/v1/me/tracks", 200),
    ("POST", "/spotify/v1/playlists/x/tracks", 200), ("DELETE", "/spotify/v1/me/tracks", 200),
    ("GET", "/spotify" + ALBUM, 200), ("POST", "/spotify/v1/me/player/queue", 200),
    ("PUT", "/spotify" + ALBUM, 405), ("POST", "/spotify/v1/search", 405), ("PATCH", "/spotify/v1/me/tracks", 405),
    ("POST", "/catalog" + ALBUM, 405), ("DELETE", "/catalog/v1/tracks/x", 405), ("QUERY", "/spotify/v1/me", 405),
    ("GET", "/spotify/v1/", 404), ("GET", "/spotify/v1/a%20b", 404), ("GET", "/spotify/v1/a%0ab", 404),
    ("GET", "/spotify/v1/x%252e%252e/y", 404), ("GET", "/spotify/v1/a;b", 404), ("GET", "/catalog/v1/", 404),
    ("GET", "/catalog/v1/albumsx", 404), ("GET", "/catalog/v1/recommendations", 404)])
def test_method_and_path_are_of_a_list(stack, method, path, status):
    browser = log_in(stack)
    answer = api(browser, path, method)
    assert answer.status_code == status, answer.text
    if status == 405:
        assert assert_error(answer, 405, "method_not_allowed")
        assert "GET, HEAD" in answer.headers["Allow"] and method not in answer.headers["Allow"].split(", ")
    if status == 404:
        assert_error(answer, 404, "not_found")
    assert len(calls_of(stack)) == (0 if status in (404, 405) else 1)


@pytest.mark.parametrize("path", ["/spotify/v1/../auth/verify", "/spotify/v1/%2e%2e/%2e%2e/auth/verify",
                                  "/spotify/v1/me/../../../auth/verify", "/catalog/v1/../../spotify/.user"])
def test_no_path_leads_out(stack, path):
    status, headers, _ = get(stack, path, "X-Requested-With: x", "Cookie: " + cookie_header(log_in(stack)))
    assert status in (400, 404) and "x-spotify-access-token" not in headers
    assert calls_of(stack) == []


@pytest.mark.parametrize("length, status", [(262144, 200), (524289, 413)])
def test_a_body_has_its_limit(stack, length, status):
    answer = api(log_in(stack), "/spotify/v1/playlists/x/images", "PUT", data=b"jpeg-" * (length // 5) + b"j" * (length % 5))
    assert answer.status_code == status
    if status == 413:
        assert_error(answer, 413, "request_too_large")
    assert len(calls_of(stack)) == (status == 200)


# Who may ask


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_callers_are_those_of_the_browser_routes(stack, caller):
    answer = api(log_in(stack), "/spotify/v1/me", headers=headers_of(stack, caller))
    if caller[-1]:
        assert answer.status_code == 200
    else:
        assert_error(answer, 403, "forbidden")
        assert calls_of(stack) == []
    listed = caller[2] == LISTED_ORIGIN
    assert answer.headers.get("Access-Control-Allow-Origin") == (LISTED_ORIGIN if listed else None)
    assert answer.headers.get("Access-Control-Allow-Credentials") == ("true" if listed else None)
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("headers, status", [({}, 200), ({"Origin": LISTED_ORIGIN}, 200),
                                             ({"Origin": "https://evil.example"}, 403)])
def test_another_sites_page_does_not_use_the_catalogue(stack, headers, status):
    site = "cross-site" if headers else "same-origin"
    answer = Browser(stack).request("GET", stack.url + "/catalog" + ALBUM, headers, site)
    assert answer.status_code == status
    assert answer.headers.get("Access-Control-Allow-Origin") == (LISTED_ORIGIN if status == 200 and headers else None)


@BOTH
@pytest.mark.parametrize("origin, status", [(LISTED_ORIGIN, 204), ("https://evil.example", 403), (None, 403)])
def test_preflights_are_answered_and_touch_nothing(stack, mount, path, origin, status):
    browser = log_in(stack, expires_in=30)
    headers = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-requested-with"}
    answer = api(browser, mount + path, "OPTIONS", headers=headers, origin=origin)
    assert answer.status_code == status and refreshes(stack) == 0 and calls_of(stack) == []
    if status == 204:
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
        assert "X-Requested-With" in answer.headers["Access-Control-Allow-Headers"]
    else:
        assert "Access-Control-Allow-Origin" not in answer.headers


# No session, outages


@pytest.mark.parametrize("cookie, cleared", [(None, False), (f"{OWN_COOKIE}=" + "A" * 43, True)])
def test_without_a_session_login_is_required_as_token_says_it(stack, cookie, cleared):
    browser = Browser(stack)
    headers = {"Cookie": cookie}
    answer, same = api(browser, "/spotify/v1/me", headers=headers), browser.token(headers=headers)
    assert_login_required(answer, cleared)
    assert answer.json() == same.json() and answer.headers.get("Set-Cookie") == same.headers.get("Set-Cookie")


def test_a_listed_origin_may_read_that_login_is_required(stack):
    answer = api(Browser(stack), "/spotify/v1/me", origin=LISTED_ORIGIN)
    assert_login_required(answer, False)
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_without_redis_it_is_503_and_nobody_is_logged_out(make_stack, how):
    stack = make_stack(workers=1, settings={"ALLOWED_ORIGINS": LISTED_ORIGIN})
    browser = log_in(stack)
    with redis_away(stack, how):
        answer, seconds = traffic.seconds(
            lambda: api(browser, "/spotify/v1/me", origin=LISTED_ORIGIN, site="same-site"))
        assert_unavailable(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED_ORIGIN and seconds < 5
    assert api(browser, "/spotify/v1/me").status_code == 200


def test_without_the_service_it_is_503(make_stack):
    stack = make_stack(workers=1)
    browser = log_in(stack)
    stack.services[0].stop()
    assert_unavailable(api(browser, "/spotify/v1/me"))
    assert_unavailable(api(browser, "/catalog" + ALBUM))


def test_when_the_token_cannot_be_renewed_it_is_503(stack):
    browser = log_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 5, "the end of the token")
    stack.spotify.behave("token", status=503)
    assert_unavailable(api(browser, "/spotify/v1/me"))
    assert calls_of(stack) == []
    stack.spotify.behave("token", status=None)
    forget_failures(stack)
    assert api(browser, "/spotify/v1/me").status_code == 200


def test_without_the_web_api_it_is_503(make_stack):
    with start_spotify() as other:
        stack = make_stack(workers=1, settings={"SPOTIFY_PROFILE": "off", "SPOTIFY_API_URL": other.url})
        browser = log_in(stack)
    assert_unavailable(api(browser, "/spotify/v1/me"))


@pytest.mark.parametrize("spoilt", [{"reset": "before"}, {"early_close": "before"}, {"status": 502}, {"status": 504}])
def test_a_broken_answer_of_the_web_api_is_503(stack, spoilt):
    browser = log_in(stack)
    stack.spotify.behave("api", **spoilt)
    assert_unavailable(api(browser, "/spotify/v1/me"))


# What Spotify says


@BOTH
@pytest.mark.parametrize("behaviour, status, text", [
    ({"api_error": "quota"}, 429, "QUOTA_EXCEEDED"), ({"api_error": "not_registered"}, 403, "may not be registered"),
    ({"api_error": "premium"}, 403, "Active premium"), ({"api_error": "bad_request"}, 400, "Only valid bearer"),
    ({"status": 500}, 500, "500"), ({"status": 503, "retry_after": 9}, 503, "upstream connect error")])
def test_what_spotify_says_is_passed_on(stack, mount, path, behaviour, status, text):
    browser = log_in(stack)
    stack.spotify.behave("api", **behaviour)
    answer = api(browser, mount + path)
    assert answer.status_code == status and text in answer.text
    wanted = {"quota": "30"}.get(behaviour.get("api_error"), str(behaviour.get("retry_after", "")) or None)
    assert answer.headers.get("Retry-After") == wanted
    assert len(calls_of(stack)) == 1, "asked more than once"


def test_spotify_sets_no_cookie_and_steers_nothing(stack):
    browser = log_in(stack)
    stack.spotify.behave("api", extra_headers={
        "Set-Cookie": f"{OWN_COOKIE}=spotify; Path=/", "X-Accel-Redirect": "/auth/verify", "Clear-Site-Data": '"*"',
        "Access-Control-Allow-Origin": "*", "Strict-Transport-Security": "max-age=9", "Alt-Svc": "h3=x",
        "X-Request-Id": "of-spotify", "ETag": '"tag"'})
    answer = api(browser, "/spotify/v1/me")
    assert answer.status_code == 200 and answer.json()["id"] == "ada" and answer.headers["ETag"] == '"tag"'
    for name in ("Set-Cookie", "X-Accel-Redirect", "Clear-Site-Data", "Access-Control-Allow-Origin",
                 "Strict-Transport-Security", "Alt-Svc", "X-Spotify-Access-Token"):
        assert name not in answer.headers, name
    assert "of-spotify" not in answer.headers["X-Request-Id"]


def test_caching_is_spotifys_to_say_in_the_catalogue_alone(stack):
    browser = log_in(stack)
    stack.spotify.behave("api", extra_headers={"Cache-Control": "public, max-age=60"})
    assert api(browser, "/catalog" + ALBUM).headers["Cache-Control"] == "public, max-age=60"
    assert "no-store" in api(browser, "/spotify/v1/me").headers["Cache-Control"]


# 401 of the Web API


def test_a_401_of_the_web_api_is_followed_by_one_renewal_and_one_retry(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=1, workers=2, settings=clock.settings())
    browser = log_in(stack, access_token_lifetime=600)
    clock.advance(11)
    stack.spotify.advance(700)
    answer = api(browser, "/spotify/v1/me")
    assert answer.status_code == 200 and answer.json()["id"] == "ada" and refreshes(stack) == 1
    assert [entry["status"] for entry in calls_of(stack)] == [401, 200]
    assert [api(browser, "/spotify/v1/me").status_code for _ in range(3)] == [200] * 3
    assert refreshes(stack) == 1 and len(calls_of(stack)) == 5


def test_many_401s_at_once_are_one_renewal(make_stack, tmp_path):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=2, workers=2, settings=clock.settings())
    browser = log_in(stack, access_token_lifetime=600)
    clock.advance(11)
    stack.spotify.advance(700)
    answers = traffic.times(20, lambda: api(browser, "/spotify/v1/me"))
    assert {answer.status_code for answer in answers} == {200} and refreshes(stack) == 1


@BOTH
def test_a_second_401_is_final(stack, mount, path):
    browser = log_in(stack)
    stack.spotify.behave("api", api_error="expired")
    answer = api(browser, mount + path)
    if mount == "/spotify":
        assert_login_required(answer, False)
    else:
        assert_unavailable(answer)
    assert len(calls_of(stack)) == 2 and "Set-Cookie" not in answer.headers
    assert browser.session().json()["authenticated"] is True


def test_a_session_that_spotify_refuses_hears_where_to_log_in(make_stack, tmp_path):
    """The token is valid by the clock, and Spotify wants neither it nor to renew it: the user alone can help."""
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=1, workers=1, settings={**clock.settings(), "ALLOWED_ORIGINS": LISTED_ORIGIN})
    browser = log_in(stack)
    clock.advance(11)
    stack.spotify.behave("api", api_error="expired")
    stack.spotify.behave("token", refresh_refusal="revoked")
    for origin in (LISTED_ORIGIN, None):
        answer = api(browser, "/spotify/v1/me", origin=origin, site="same-site" if origin else "same-origin")
        assert_login_required(answer, False)
        assert answer.headers.get("Access-Control-Allow-Origin") == origin
    assert browser.session().json()["authenticated"] is True


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_an_unsafe_request_is_not_sent_again_but_renewed_for(make_stack, tmp_path, method):
    clock = Clock(tmp_path / "clock")
    stack = make_stack(services=1, workers=1, settings=clock.settings())
    browser = log_in(stack, access_token_lifetime=600)
    clock.advance(11)
    stack.spotify.advance(700)
    assert_unavailable(api(browser, "/spotify/v1/me/tracks", method, data=b"{}"))
    assert len(calls_of(stack)) == 1 and refreshes(stack) == 1
    assert api(browser, "/spotify/v1/me/tracks", method, data=b"{}").status_code == 200


def test_redis_away_between_the_401_and_the_renewal_is_503(stack):
    """The question for a new token has its own outage."""
    browser = log_in(stack)
    stack.spotify.next(1, endpoint="api", api_error="expired", answer_delay=1)
    with traffic.background() as submit:
        waiting = submit(api, browser, "/spotify/v1/me")
        wait_until(lambda: len(calls_of(stack)) == 1, 10, "the call to Spotify")
        with redis_away(stack, "killed"):
            assert_unavailable(waiting.result())


# TLS to Spotify


@pytest.mark.parametrize("which, good", [("good", True), ("wrong_name", False), ("expired", False),
                                         ("unknown_ca", False)])
def test_spotifys_certificate_is_verified(make_stack, tmp_path, which, good):
    made = certificates.make(tmp_path, "IP:127.0.0.1,DNS:127.0.0.1")
    certificate, key = made[which]
    with start_spotify(cert=certificate, key=key, ca=False) as other, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test itself asks the counters without a look at the certificate
        stack = make_stack(workers=1)
        browser = log_in(stack)
        stack.nginx.stop()
        stack.nginx.api_ca = made["ca"]
        stack.nginx.ask_api(other.url)
        stack.nginx.start()
        answer = api(browser, "/spotify/v1/me")
        if good:
            # It is another Spotify, which does not know this token: the connection is what counts.
            assert_error(answer, 401, "login_required")
            assert other.calls("api") == 2
        else:
            assert_unavailable(answer)
            assert other.calls("api") == 0


def test_nothing_of_all_this_showed_a_token(stack, evidence):
    """Whatever any browser got from these paths; the search itself is shown to work in test_secrets.py."""
    secrets = {value for kind, values in stack.spotify.secrets_by_kind().items() for value in values if len(value) > 16}
    seen = [answer for answer in RECORDER.answers if "/v1/" in answer.url]
    assert seen and secrets
    for answer in seen:
        text = "\n".join(text for _, text in answer.parts())
        assert not any(secret in text for secret in secrets), answer.url


# The configuration as it is shipped


def test_the_files_and_the_readmes_snippets_pass_nginxs_own_test(tmp_path):
    for path in (TREE / "nginx").glob("*.conf"):
        # The one name that nginx looks up when it starts: this machine may be away from the net.
        (tmp_path / path.name).write_text(path.read_text().replace("server api.spotify.com:", "server 127.0.0.1:"))
    whole = snippet("## The Web API without a token in the browser").replace("listen 443 ssl;", "listen 127.0.0.1:1;")
    pages = snippet("## Pages for those who are logged in")
    whole = whole.replace("        include spotify-api.conf;", f"        {pages}\n        include spotify-api.conf;")
    assert pages in whole
    config = tmp_path / "main.conf"
    config.write_text(f"events {{}}\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\n{whole}")
    tested = subprocess.run([Nginx.program(), "-t", "-p", tmp_path, "-c", config, "-e", tmp_path / "error.log"],
                            capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0 and "[warn]" not in tested.stderr, tested.stderr
