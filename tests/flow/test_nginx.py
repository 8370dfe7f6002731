"""nginx before the service: what it shows to nobody, its own errors, what it logs and repeats, and
that a client's headers have no effect behind it."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import time

import pytest

import traffic
from browser import Browser
from conftest import WITNESS
from spotify import certificates
from stack import TREE, Nginx, Service, Stack, reserve_port, wait_until


def exchange(stack, data, timeout_s=10):
    """Bytes to nginx as they are, and what it answers: (status, headers, body)."""
    host, _, port = stack.url.partition("://")[2].rpartition(":")
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(socket.create_connection((host, int(port)), timeout_s))
        if stack.url.startswith("https:"):
            context = ssl.create_default_context(cafile=stack.nginx.authority)
            client = opened.enter_context(context.wrap_socket(client, server_hostname=host))
        client.sendall(data)
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    if headers.get("transfer-encoding") == "chunked":
        size, _, body = body.partition(b"\r\n")
        body = body[:int(size, 16)]
    if getattr(stack, "described", True):
        WITNESS.hear_raw(data, int(status.split()[1]), headers, body)
    return int(status.split()[1]), headers, body


def get(stack, target, *headers, method="GET", body=b""):
    lines = [f"{method} {target} HTTP/1.1", "Connection: close", *headers]
    if not any(line.lower().startswith("host:") for line in lines):
        lines.append("Host: 127.0.0.1")
    return exchange(stack, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def assert_json_error(answer, status):
    got, headers, body = answer
    assert got == status
    assert headers["content-type"].startswith("application/json")
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    error = json.loads(body)
    assert isinstance(error["error"], str) and isinstance(error["error_description"], str)
    return error


# What is not public


@pytest.mark.parametrize("target", [
    "/auth/healthz", "/auth/readyz", "/auth/metrics", "/auth/verify", "/auth/verify/app", "/auth/verify/preflight",
    "/auth/healthz/", "/auth/verify/", "/auth/metrics/", "/auth/verify/app/",
    "/auth/%68ealthz", "/auth/metric%73", "/auth/%76erify", "/auth%2Fhealthz", "/auth/verify%2Fapp",
    "/auth/./healthz", "/auth/x/../readyz", "/auth/verify/./app", "/auth/%2e/healthz",
    "/auth/HEALTHZ", "/auth/Metrics", "/auth/Verify", "//auth/healthz", "/auth//metrics",
    "/auth///verify//app", "/auth/healthz?x=1", "/auth/metrics;x", "/auth/healthz%00",
    "/auth/healthz%0a", "/auth/healthz%20", "/auth/.error/502", "/auth/.error/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_internal_routes_are_not_public(stack, target, method):
    status, headers, body = get(stack, target, "Content-Length: 0", method=method)
    assert status in (400, 404)
    assert headers["content-type"].startswith("application/json")
    assert isinstance(json.loads(body)["error"], str)
    assert b"redis" not in body and b"spotify_auth_" not in body and b'"status"' not in body


def test_internal_routes_are_on_the_admin_socket(stack):
    assert stack.nginx.admin("/healthz") == (200, '{"status":"ok"}')
    status, body = stack.nginx.admin("/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)


@pytest.mark.parametrize("target", ["/auth", "/auth/", "/auth/nothing", "/auth/token/", "/auth/Token",
                                    "/auth/session/x", "/auth/%00"])
def test_unknown_path_is_404_json(stack, target):
    status, headers, body = get(stack, target)
    assert status in ((400,) if "%00" in target else (404,))
    assert headers["content-type"].startswith("application/json")
    assert isinstance(json.loads(body)["error"], str)


@pytest.mark.parametrize("route, methods, allow", [
    ("/authorize", ("POST", "PUT", "DELETE", "PATCH"), "GET, HEAD, OPTIONS"),
    ("/callback", ("POST", "PUT", "DELETE"), "GET, HEAD, OPTIONS"),
    ("/session", ("POST", "PUT"), "GET, HEAD, OPTIONS"),
    ("/token", ("POST", "DELETE"), "GET, HEAD, OPTIONS"),
    ("/refresh", ("GET", "HEAD", "PUT"), "POST, OPTIONS"),
    ("/logout", ("GET", "HEAD", "QUERY"), "POST, OPTIONS")])
def test_wrong_method_is_405_json_with_allow(stack, route, methods, allow):
    for method in methods:
        status, headers, body = get(stack, "/auth" + route, "Content-Length: 0", method=method)
        assert (status, headers.get("allow")) == (405, allow), method
        if method != "HEAD":
            assert isinstance(json.loads(body)["error"], str)


# nginx's own errors


@pytest.mark.parametrize("route, status", [("session", 503), ("callback?code=c&state=s", 502)])
def test_service_down_is_json_to_try_again_but_for_the_callback(make_stack, route, status):
    stack = make_stack()
    stack.services[0].stop()
    answer = get(stack, "/auth/" + route)
    assert assert_json_error(answer, status)["error"] == "temporarily_unavailable"
    assert answer[1]["retry-after"]
    stack.services[0].start()


def test_body_too_large_is_413_json(stack):
    answer = get(stack, "/auth/logout", "Content-Length: 65537", method="POST", body=bytes(65537))
    assert_json_error(answer, 413)


def test_bad_content_length_is_400(stack):
    assert_json_error(get(stack, "/auth/logout", "Content-Length: x", method="POST"), 400)


def test_too_long_address_is_414_json(stack):
    assert_json_error(get(stack, "/auth/callback?code=" + "x" * 40000), 414)


@pytest.mark.parametrize("headers", [["Host: a b"], ["Host: a", "Host: b"]])
def test_bad_headers_are_400_json(stack, headers):
    assert_json_error(get(stack, "/auth/session", *headers), 400)


@pytest.mark.parametrize("name", ["X-Long", "Cookie"])
def test_too_long_headers_are_431_json(stack, name):
    assert_json_error(get(stack, "/auth/session", f"{name}: " + "x" * 40000), 431)
    status, headers, _ = get(stack, "/other", f"{name}: " + "x" * 40000)
    assert status == 400 and headers["content-type"].startswith("text/html")


def test_unknown_transfer_coding_is_501_json(stack):
    answer = get(stack, "/auth/logout", "Transfer-Encoding: gzip", method="POST")
    assert_json_error(answer, 501)


def test_errors_of_other_paths_stay_nginx_own(stack):
    status, headers, _ = get(stack, "/other?" + "x" * 40000)
    assert status == 414
    assert headers["content-type"].startswith("text/html")


def test_chunked_body_reaches_the_service(stack):
    browser = logged_in(stack)
    data = iter([b"all=", b"true"])
    answer = browser.fetch("POST", "/logout", data=data,
                           headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 204


# The logs


def logged_in(stack, **token):
    if token:
        stack.spotify.behave("token", grant="authorization_code", **token)
    browser = Browser(stack)
    assert browser.login().status_code == 303
    return browser


def test_41_access_log_has_requests_and_no_query(stack):
    browser = Browser(stack)
    marker = "/marker" + os.urandom(6).hex()
    browser.login(return_to=marker)
    browser.fetch("GET", marker + "?secret=query-of-marker")
    log = wait_until(lambda: marker in (text := stack.nginx.access_log.read_text()) and text, 5,
                     "the log line")
    assert "/auth/authorize" in log
    assert "?" not in log and "query-of-marker" not in log
    assert "code=" not in log and "state=" not in log


def test_41_error_log_shows_no_callback_query(make_stack):
    stack = make_stack()
    stack.services[0].stop()
    assert get(stack, "/auth/callback?code=visible-code&state=visible-state")[0] == 502
    assert get(stack, "/auth/callback?code=visible-code&state=" + "x" * 40000)[0] == 414
    assert "visible" not in "".join(stack.logs().values())
    stack.services[0].start()


def test_request_id_is_the_same_in_nginx_service_and_answer(stack):
    identifier = Browser(stack).session().headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", identifier)
    wait_until(lambda: identifier in stack.nginx.access_log.read_text(), 5, "nginx's log line")
    assert any(identifier in service.log_text() for service in stack.services)


def test_77_a_clients_request_id_is_not_taken(stack):
    browser = Browser(stack)
    answer = browser.session(headers={"X-Request-Id": "f" * 32, "Request-Id": "f" * 32})
    assert answer.headers["X-Request-Id"] != "f" * 32


# HTTPS


class OverTls(Nginx):
    def write_config(self):
        super().write_config()
        folder = self.directory / "tls"
        certificate, key = certificates.make(folder)["good"]
        self.authority = folder / "ca.pem"
        text = self.config.read_text().replace(
            f"listen {self.listen} backlog=4096;",
            f"listen {self.listen} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};")
        self.config.write_text(text)


@pytest.fixture(scope="module")
def over_tls():
    stack = Stack(workers=1)
    stack.nginx.__class__ = OverTls
    stack.url = stack.url.replace("http:", "https:")
    stack.redirect_uri = stack.url + "/auth/callback"
    with stack:
        yield stack


HSTS = "strict-transport-security"
CALLED = ["X-Requested-With: x", "Sec-Fetch-Site: same-origin"]
ANSWERS = [  # of the service, and of nginx itself
    ("GET", "/auth/session", CALLED, 200), ("GET", "/auth/session", [], 403),
    ("GET", "/auth/authorize", [], 302), ("GET", "/auth/nothing", [], 404),
    ("GET", "/auth/healthz", [], 404), ("GET", "/auth", [], 404),
    ("POST", "/auth/logout", ["Content-Length: 65537"], 413),
    ("POST", "/auth/logout", ["Content-Length: x"], 400),
    ("POST", "/auth/logout", ["Transfer-Encoding: gzip"], 501),
    # Long enough, and short enough for one TLS record: nginx closes without reading further ones.
    ("GET", "/auth/session", ["X-Long: " + "x" * 10000], 431),
    ("GET", "/auth/session?" + "x" * 10000, [], 414)]


@pytest.mark.parametrize("method, target, headers, status", ANSWERS, ids=lambda _: "")
def test_79_answers_over_https_say_to_use_nothing_else(over_tls, method, target, headers, status):
    got, found, _ = get(over_tls, target, *headers, method=method, body=bytes(65537 * (status == 413)))
    assert (got, found.get(HSTS)) == (status, "max-age=31536000")


def test_79_nginx_says_so_while_the_service_is_down(over_tls):
    over_tls.services[0].stop()
    got, found, _ = get(over_tls, "/auth/session")
    assert (got, found.get(HSTS)) == (503, "max-age=31536000")
    over_tls.services[0].start()


@pytest.mark.parametrize("method, target, headers, status", ANSWERS, ids=lambda _: "")
def test_79_answers_over_plain_http_say_nothing_of_https(stack, method, target, headers, status):
    got, found, _ = get(stack, target, *headers, method=method, body=bytes(65537 * (status == 413)))
    assert (got, HSTS in found) == (status, False)


def test_nginx_waits_longer_than_the_service_can_take():
    """A callback makes two calls to Spotify and eight to Redis."""
    conf = (TREE / "nginx" / "spotify-auth.conf").read_text()
    waits = re.findall(r"fastcgi_read_timeout (\d+)s;", conf)
    table = Service({}, "").run("--help").stdout
    upstream, = re.findall(r"`UPSTREAM_TIMEOUT_MS` \| `(\d+)`", table)
    store, = re.findall(r"`STORE_TIMEOUT_MS` \| `(\d+)`", table)
    assert len(waits) == 1
    assert 60 > int(waits[0]) > (2 * int(upstream) + 8 * int(store)) / 1000 + 10


# What is sent twice, and over which connection


def test_40_callback_of_a_killed_worker_is_not_sent_again(make_stack):
    stack = make_stack(services=2, workers=1)
    browser = Browser(stack)
    url = browser.approve(browser.authorize().headers["Location"])
    stack.spotify.hang()
    with traffic.background() as submit:
        answer = submit(browser.callback, url)
        wait_until(lambda: stack.spotify.calls("token") == 1, 5, "the call")
        for service in stack.services:
            os.kill(service.workers()[0], signal.SIGKILL)
        assert answer.result().status_code == 502
    for service in stack.services:
        wait_until(service.ready, 5, "a new worker")
    assert stack.spotify.calls("token") == 1
    assert not [line for service in stack.services for line in service.log_lines()
                if line.get("route") == "/callback"]
    stack.spotify.release()


def test_callback_that_reached_nobody_goes_to_the_other_service(make_stack):
    """With its query, its method and its cookie; and nginx's own error when there is no other."""
    stack = make_stack(services=2, workers=1)
    browser = Browser(stack)
    urls = [browser.approve(browser.authorize().headers["Location"]) for _ in range(4)]
    stack.services[0].stop()
    for url in urls:
        assert browser.callback(url).status_code == 303
        assert browser.callback(url, method="POST").status_code == 405
    lines = [line for line in stack.services[1].log_lines() if line.get("route") == "/callback"]
    assert [(line["method"], line["status"]) for line in lines] == [("GET", 303), ("POST", 405)] * 4
    assert get(stack, "/auth/.callback?code=x&state=y")[0] == 404
    stack.services[1].stop()
    answer = get(stack, "/auth/callback?code=x&state=y")
    assert_json_error(answer, 502)
    assert answer[1]["retry-after"] == "5"


def test_killed_worker_costs_no_other_request_an_error(make_stack):
    stack = make_stack(workers=2)
    service, browser = stack.services[0], logged_in(stack)
    calls = [browser.session] * 3 + [browser.token] * 3 + [browser.refresh] * 3
    with traffic.steady(*calls) as answers:
        wait_until(lambda: len(answers) > 100, 10, "load")
        os.kill(service.workers()[0], signal.SIGKILL)
        count = len(answers)
        wait_until(lambda: len(answers) > count + 100, 10, "load after the kill")
    assert {getattr(answer, "status_code", answer) for answer in answers} == {200}


def connections(service):
    """The connections to its socket, by their inodes; nginx's own ends have no path."""
    path = service.listen.removeprefix("unix:")
    with open("/proc/net/unix") as table:
        lines = [line.split() for line in table]
    return {line[6] for line in lines if line[-1] == path and line[5] == "03"}


def test_connections_to_the_service_are_kept(make_stack):
    stack = make_stack(workers=1)
    browser = logged_in(stack)
    before = wait_until(lambda: connections(stack.services[0]), 5, "a connection that stays")
    for _ in range(60):
        assert browser.session().status_code == 200
    assert connections(stack.services[0]) == before


# What has to fit through


@pytest.mark.parametrize("length", [8192, 3000])
def test_big_token_passes(stack, length):
    browser = logged_in(stack, access_token_length=length)
    answer = browser.token()
    assert answer.status_code == 200
    assert len(answer.json()["access_token"]) == length


def test_big_refresh_token_is_renewed(stack):
    stack.spotify.behave("token", refresh_token_length=4096, rotation="new")
    browser = logged_in(stack, expires_in=30)
    first = stack.spotify.calls(grant="refresh_token")
    assert browser.token().status_code == 200
    assert stack.spotify.calls(grant="refresh_token") == first + 1


def test_callback_with_a_code_of_2048_characters_passes(stack):
    stack.spotify.behave(code_length=2048, endpoint="authorize")
    assert Browser(stack).login().status_code == 303


# The prefix


class AtPrefix(Nginx):
    prefix = "/music/login"

    def write_config(self):
        files = self.directory / "files"
        files.mkdir(exist_ok=True)
        source = self.values["files"]
        for path in source.glob("*.conf"):
            (files / path.name).write_text(path.read_text().replace("/auth", self.prefix))
        (files / "www").mkdir(exist_ok=True)
        text = (files / "nginx.conf").read_text()
        for name, value in {**self.values, "files": files, "api_file": files / "spotify-api.conf"}.items():
            text = text.replace(f"@{name}@", str(value))
        self.config.write_text(text)


def test_another_prefix_works():
    stack = Stack()
    stack.nginx.__class__ = AtPrefix
    stack.redirect_uri = stack.url + AtPrefix.prefix + "/callback"
    with stack:
        browser = Browser(stack)
        browser.mount = stack.url + AtPrefix.prefix
        assert browser.login().status_code == 303
        assert browser.token().status_code == 200
        assert browser.fetch("GET", stack.url + "/spotify/v1/me").json()["id"] == "ada"
        browser.logout()
        login_url = browser.session().json()["login_url"]
        assert login_url == stack.url + AtPrefix.prefix + "/authorize"
        assert_json_error(get(stack, AtPrefix.prefix + "/healthz"), 404)


def test_without_path_info_the_script_name_is_the_route():
    """A web server that gives us a host of our own: /session is the route."""
    stack = Stack()
    stack.nginx.__class__ = AtPrefix
    stack.nginx.prefix = ""
    stack.redirect_uri = stack.url + "/callback"

    def write_config():
        stack.nginx.config.write_text(f"""
            {stack.nginx.values['user']}
            daemon off; pid {stack.nginx.directory}/nginx.pid; error_log stderr error;
            events {{}}
            http {{
                access_log off;
                server {{
                    listen {stack.nginx.listen};
                    location / {{
                        fastcgi_param REQUEST_METHOD $request_method;
                        fastcgi_param SCRIPT_NAME $fastcgi_script_name;
                        fastcgi_param QUERY_STRING $query_string;
                        fastcgi_param CONTENT_TYPE $content_type;
                        fastcgi_param CONTENT_LENGTH $content_length;
                        fastcgi_pass {stack.services[0].nginx_address};
                    }}
                }}
            }}""")
    stack.nginx.write_config = write_config
    with stack:
        browser = Browser(stack)
        browser.mount = stack.url
        assert browser.login().status_code == 303
        assert browser.token().status_code == 200
        assert browser.refresh().status_code == 200


# A client's own headers


FOREIGN = {
    "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Prefix": "/evil", "Forwarded": "host=evil.example;proto=https",
    "X-Real-IP": "1.2.3.4", "X-Original-URL": "/auth/healthz", "X-Rewrite-URL": "/auth/healthz",
    "X-HTTP-Method-Override": "POST", "X-Script-Name": "/evil", "Path-Info": "/healthz",
    "Script-Name": "/evil", "Remote-User": "root",
    "Authorization": "Basic " + base64.b64encode(b"root:root").decode(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_9_77_a_clients_header_changes_nothing(stack, name):
    browser = Browser(stack)
    plain = browser.authorize()
    answer = browser.authorize(headers={name: FOREIGN[name]})
    assert answer.status_code == 302
    for text in (answer.headers["Location"], str(answer.headers)):
        assert "evil" not in text
    assert (answer.headers["Location"].split("state=")[0] ==
            plain.headers["Location"].split("state=")[0])
    session = browser.session(headers={name: FOREIGN[name]})
    assert session.json() == {"authenticated": False, "login_url": stack.url + "/auth/authorize"}


def test_9_77_a_foreign_host_changes_nothing(stack):
    status, headers, _ = get(stack, "/auth/authorize", "Host: evil.example")
    assert status == 302
    assert "evil" not in str(headers)
    uri = "redirect_uri=" + stack.redirect_uri.replace(":", "%3A").replace("/", "%2F")
    assert uri.lower() in headers["location"].lower()
    status, headers, body = get(stack, "/auth/session", "Host: evil.example",
                                "X-Requested-With: x", "Sec-Fetch-Site: same-origin")
    assert status == 200
    assert b"evil" not in body


def test_77_httpoxy_a_proxy_header_is_no_proxy(stack):
    with reserve_port() as trap:
        trap.listen()
        trap.setblocking(False)
        proxy = f"http://127.0.0.1:{trap.getsockname()[1]}"
        browser = Browser(stack)
        url = browser.approve(browser.authorize().headers["Location"])
        assert browser.callback(url, headers={"Proxy": proxy}).status_code == 303
        assert browser.token(headers={"Proxy": proxy}).status_code == 200
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_proxy_variables_of_the_service_are_no_proxy(make_stack):
    with reserve_port() as trap:
        trap.listen()
        trap.setblocking(False)
        proxy = f"http://127.0.0.1:{trap.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        stack = make_stack(settings=dict.fromkeys(names, proxy))
        assert logged_in(stack, expires_in=30).token().status_code == 200
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_underscores_and_repeated_headers_are_no_way_around(stack):
    """X_Requested_With is another header for a browser, which sends it to anybody."""
    status, _, _ = get(stack, "/auth/session", "X_Requested_With: x", "Sec-Fetch-Site: same-origin")
    assert status == 403


# What every answer has


@pytest.mark.parametrize("target, headers", [
    ("/auth/authorize", []), ("/auth/callback", []), ("/auth/session", []), ("/auth/nothing", []),
    ("/auth/session", ["X-Requested-With: x", "Sec-Fetch-Site: same-origin"]),
    ("/auth/token", ["X-Requested-With: x", "Sec-Fetch-Site: same-origin"]),
    ("/auth/authorize?scope=foreign", []), ("/auth/logout", []), ("/auth/verify", [])])
def test_13_38_common_headers_are_on_every_answer(stack, target, headers):
    _, got, _ = get(stack, target, *headers)
    assert got["cache-control"] == "no-store"
    assert got["x-content-type-options"] == "nosniff"
    assert got["referrer-policy"] == "no-referrer"
    assert re.fullmatch("[0-9a-f]{32}", got["x-request-id"])
    if got.get("content-type", "").startswith("text/html"):
        assert "frame-ancestors 'none'" in got["content-security-policy"]
        assert "http" not in got["content-security-policy"]
        assert got["x-frame-options"] == "DENY"


def test_15_no_redirect_is_307_or_308(stack):
    assert all(answer.status in (302, 303) for answer in Browser(stack).recorder.answers
               if 300 <= answer.status < 400 and answer.status != 304 and "/auth/" in answer.url)


@pytest.mark.parametrize("target, headers", [
    ("/auth/token", ["X-Requested-With: x", "Sec-Fetch-Site: same-origin"]), ("/auth/token", []),
    ("/auth/nothing", []), ("/auth/authorize?scope=foreign", ["Accept: application/json"]),
    ("/auth/callback?state=x", ["Accept: application/json"]), ("/auth/refresh", [])])
def test_81_errors_are_flat_json_of_allowed_characters(stack, target, headers):
    status, got, body = get(stack, target, *headers)
    assert 400 <= status < 500
    error = json.loads(body)
    allowed = r"[\x20-\x21\x23-\x5b\x5d-\x7e]+"
    assert re.fullmatch(allowed, error["error"])
    assert re.fullmatch(allowed, error["error_description"])
    assert "www-authenticate" not in got


def test_idle_client_connection_is_kept(stack):
    """Two requests over one connection of a browser."""
    host, _, port = stack.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), 5) as client:
        for _ in range(2):
            client.sendall(b"GET /auth/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.05)
            assert client.recv(65536).startswith(b"HTTP/1.1 404")
