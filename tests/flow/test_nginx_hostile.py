"""What a client can make of a request that a browser would not send: nothing gets past nginx to where it should not,
one request stays one, and no header of a client's is taken for nginx's own word."""

import contextlib
import http.client
import json
import socket
import urllib.parse

import pytest

from browser import Browser
from conftest import LISTED_ORIGIN
from sessions import cookie_header, log_in
from stack import wait_until
from test_nginx import assert_json_error, exchange, get

CALLED = ["X-Requested-With: x", "Sec-Fetch-Site: same-origin"]
INTERNAL = ("/healthz", "/readyz", "/metrics", "/verify", "/verify/app", "/.log-in", "/.error", "/.preflight",
            "/.callback")


def raw(stack, data, timeout_s=10):
    """All that nginx answers to these bytes; the connection is closed for writing behind them."""
    host, _, port = stack.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout_s) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return b"".join(iter(lambda: client.recv(65536), b""))
    return b""


def routes_seen(stack, call):
    """The routes that the services logged while call() ran, and what it gave."""
    before = [len(service.log_lines()) for service in stack.services]
    result = call()
    mark = get(stack, "/auth/session", *CALLED)[1]["x-request-id"]
    wait_until(lambda: any(mark in service.log_text() for service in stack.services), 5, "the log")
    lines = [line for service, count in zip(stack.services, before) for line in service.log_lines()[count:]]
    return result, [line["route"] for line in lines if line.get("event") == "request" and line["request_id"] != mark]


# One request is one request


HIDDEN = b"POST /auth/logout HTTP/1.1\r\nHost: x\r\nX-Requested-With: x\r\nContent-Length: 0\r\n\r\n"
SMUGGLED = {
    "length and coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 90\r\n\r\n",
    "equal lengths": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list of lengths": b"Content-Length: 0, 90\r\n\r\n",
    "signed length": b"Content-Length: +0\r\n\r\n",
    "negative length": b"Content-Length: -1\r\n\r\n",
    "hexadecimal length": b"Content-Length: 0x0\r\n\r\n",
    "huge length": b"Content-Length: 18446744073709551616\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "list of codings": b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a header": b"X-A: b\0c\r\n\r\n",
    "carriage return in a header": b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk that is too long": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "chunk that is none": b"Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
}


@pytest.mark.parametrize("head", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_of_unclear_length_is_refused_and_nothing_behind_it_is_read(stack, head):
    data = b"POST /auth/refresh HTTP/1.1\r\nHost: x\r\n" + head + HIDDEN
    answer, routes = routes_seen(stack, lambda: raw(stack, data))
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.split()[1] in (b"400", b"501"), answer
    assert routes == []


def test_a_request_in_a_body_is_no_request(stack):
    head = "POST /auth/refresh HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head = f"{head}Content-Length: {len(HIDDEN)}\r\n\r\n".encode()
    answer, routes = routes_seen(stack, lambda: raw(stack, head + HIDDEN))
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 403")
    assert routes == ["/refresh"]
    chunked = head.replace(f"Content-Length: {len(HIDDEN)}".encode(), b"Transfer-Encoding: chunked")
    body = f"{len(HIDDEN):x}\r\n".encode() + HIDDEN + b"\r\n0\r\n\r\n"
    answer, routes = routes_seen(stack, lambda: raw(stack, chunked + body))
    assert answer.count(b"HTTP/1.1 ") == 1 and routes == ["/refresh"]


def test_requests_in_one_piece_are_answered_in_order(stack):
    two = b"GET /auth/nothing HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = raw(stack, two)
    assert [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [404, 204]


@pytest.mark.parametrize("line", [
    "GET  /auth/session HTTP/1.1 x", "get /auth/session HTTP/1.1", "GET\t/auth/session\tHTTP/1.1",
    "GET /auth/session HTTP/3.1", "GET /auth/session HTTP/1.1.1", "G\x00T /auth/session HTTP/1.1",
    "GET /auth/ses\x01sion HTTP/1.1", "GET auth/session HTTP/1.1", "GET * HTTP/1.1", "GET /auth/a b HTTP/1.1",
    "GET http:/auth/session HTTP/1.1", "\x16\x03\x01\x02"])
def test_a_malformed_request_line_reaches_no_worker(stack, line):
    data = (line + "\r\nHost: x\r\nConnection: close\r\n\r\n").encode("latin-1")
    answer, routes = routes_seen(stack, lambda: raw(stack, data))
    assert routes == [] and b" 200 OK" not in answer


@pytest.mark.parametrize("method, status", [("TRACE", 405), ("CONNECT", 405), ("TRACK", 405), ("PROPFIND", 405)])
def test_methods_of_others_show_nothing_of_the_request(stack, method, status):
    target = "x:443" if method == "CONNECT" else "/auth/token"
    headers = "Host: x\r\nConnection: close\r\nCookie: secret=shown\r\n\r\n"
    answer = raw(stack, f"{method} {target} HTTP/1.1\r\n{headers}".encode())
    assert answer.split()[1] in (str(status).encode(), b"400") and b"shown" not in answer


# Where a path leads


def ways_to(route):
    """Spellings under which some server or other would find the route."""
    name = route.lstrip("/")
    encoded = "".join(f"%{ord(c):02x}" for c in name)
    return [f"/auth//{name}", f"/auth/./{name}", f"/auth/x/../{name}", f"/auth/%2e/{name}", f"/auth/x/%2e%2e/{name}",
            f"/auth/x%2f..%2f{name}", f"/x/../auth/{name}", f"/x/%2e%2e/auth/{name}", f"/auth/{encoded}",
            f"/auth%2f{name}", f"//auth/{name}", f"/auth/{name}/", f"/auth/{name}//", f"/auth/{name}/.",
            f"/auth/{name}%2f",
            f"/auth/{name}/x/..", f"/auth/{name};x=1", f"/auth/;/{name}", f"/auth/..;/auth/{name}", f"/auth/{name}%00",
            f"/auth/{name}%23", f"/auth/{name}#x", f"/auth\\{name}", f"/auth/x\\..\\{name}", f"/auth/{name.upper()}",
            f"/auth/%252e/{name}", f"/auth/session/../{name}", f"/auth/callback/../{name}", f"/auth/{name}%c0%af",
            f"http://127.0.0.1/auth/{name}", f"https://other.example:1/auth/{name}", f"http://u:p@x/auth/{name}"]


@pytest.mark.parametrize("route", INTERNAL)
def test_no_spelling_of_a_path_leads_to_what_is_internal(stack, route):
    cookie = f"Cookie: {cookie_header(log_in(stack))}"
    for target in ways_to(route):
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            if "\\" in target and method != "GET":
                continue
            status, headers, body = get(stack, target, cookie, *CALLED, f"Origin: {LISTED_ORIGIN}", "Content-Length: 0",
                                        method=method)
            assert status in (400, 404, 405), (method, target, status)
            assert not {name for name in headers if name.startswith(("x-spotify", "x-auth", "x-accel"))}
            assert b"spotify_auth_" not in body and b"ready" not in body and b'"status"' not in body
            assert "set-cookie" not in headers and "location" not in headers


@pytest.mark.parametrize("target", ["/auth//session", "//auth/session", "/auth/x/../session", "/auth/%73ession",
                                    "http://evil.example/auth/session", "https://evil.example:1/auth/session"])
def test_another_spelling_of_a_public_path_is_that_path_and_no_more(stack, target):
    """Without a session, and with nothing of what the client made up in the answer."""
    status, headers, body = get(stack, target, *CALLED)
    assert status == 200 and b'"authenticated":false' in body and b"evil" not in body + str(headers).encode()
    assert get(stack, target, "Sec-Fetch-Site: cross-site", "X-Requested-With: x")[0] == 403


@pytest.mark.parametrize("target", ["/spotify//v1/me", "/spotify/v1//me", "//spotify/v1/me", "/spotify/v1/%6de",
                                    "/spotify/x/../v1/me", "http://evil.example/spotify/v1/me"])
def test_what_is_sent_to_the_web_api_is_the_path_that_was_checked(stack, target):
    cookie = f"Cookie: {cookie_header(log_in(stack))}"
    assert get(stack, target, cookie, *CALLED)[0] == 200
    assert stack.spotify.log("api")[-1]["path"] == "/v1/me"


@pytest.mark.parametrize("target", [
    "/spotify/v1%2fme", "/spotify/v1/me%2f..%2f..%2fapi/token", "/spotify/v1/..%2f..%2fapi/token", "/spotify/v1/me%23x",
    "/spotify/v1/me%3fx", "/spotify/v1/@evil.example/", "/spotify/v1/me\\..", "/spotify/v1/%e2%80%ae",
    "/spotify/v1/a%0d%0ab",
    "/spotify/v1/..;/me", "/spotify/v1/.%2e/me", "/catalog/v1/albums/../../v1/me",
    "/catalog/v1/albums/%2e%2e/%2e%2e/v1/me",
    "/catalog/v1/albums/..%2f..%2fme", "/spotify/v1/http://evil.example/", "/spotify/v1/%2f%2fevil.example/x"])
def test_no_spelling_leads_the_token_to_another_place(stack, target):
    cookie = f"Cookie: {cookie_header(log_in(stack))}"
    before = len(stack.spotify.log("api"))
    status, headers, _ = get(stack, target, cookie, *CALLED)
    sent = [entry["path"] for entry in stack.spotify.log("api")[before:]]
    assert status in (200, 400, 403, 404) and "location" not in headers
    # Whatever goes on is a path of the Web API, at Spotify's address, that is on the list.
    assert all(path.startswith("/v1/") and ".." not in path for path in sent), sent
    assert not (target.startswith("/catalog") and "/v1/me" in sent)


# A client's headers


STEERING = ["X-Accel-Redirect: /auth/metrics", "X-Accel-Internal: /auth/verify", "X-Accel-Expires: 100",
            "X-Accel-Buffering: no", "X-Sendfile: /etc/passwd", "X-Original-URI: /auth/metrics",
            "X-Rewrite-URL: /auth/verify",
            "X-HTTP-Method: POST", "X-HTTP-Method-Override: POST", "Content-Location: /auth/verify", "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Destination: /auth/verify", "Range: bytes=0-0",
            "Max-Forwards: 0",
            "Expect: nothing-known", "X-Spotify-Access-Token: of-the-client", "X-Spotify-User: root",
            "X-Auth-Error: none",
            "Authorization: Bearer of-the-client", "Access-Control-Allow-Origin: https://evil.example",
            "Set-Cookie: a=b",
            "Content-Security-Policy: none", "Status: 500 X", "Connection: close, Cookie", "TE: trailers", "Via: 1.1 x"]


@pytest.mark.parametrize("header", STEERING)
def test_no_header_of_a_client_steers_nginx_or_the_service(stack, header):
    browser = log_in(stack)
    cookie = f"Cookie: {cookie_header(browser)}"
    plain, steered = (get(stack, "/auth/token", cookie, *CALLED, *more) for more in ([], [header]))
    same = [name for name in plain[1] if name not in ("date", "x-request-id", "content-length")]
    tokens = [{**json.loads(body), "expires_in": None} for _, _, body in (plain, steered)]
    assert steered[0] == plain[0] == 200 and tokens[0] == tokens[1] and tokens[0]["access_token"]
    assert {name: steered[1].get(name) for name in same} == {name: plain[1][name] for name in same}
    assert set(steered[1]) == set(plain[1])


VARIABLES = ["REQUEST_METHOD: POST", "PATH_INFO: /metrics", "SCRIPT_NAME: /metrics", "REMOTE_ADDR: 6.6.6.6",
             "HTTPS: on",
             "QUERY_STRING: return_to=/evil", "REQUEST_ID: " + "e" * 32, "LOGIN_RETURN_TO: /evil", "CONTENT_LENGTH: 9",
             "GATEWAY_INTERFACE: CGI/1.1", "HTTP_COOKIE: a=b"]
DASHED = [line.partition(":")[0].replace("_", "-") + ":" + line.partition(":")[2] for line in VARIABLES[:-4]
          ] + ["Login-Return-To: /evil", "Http-Login-Return-To: /evil", "Gateway-Interface: CGI/1.1"]


@pytest.mark.parametrize("header", VARIABLES + DASHED)
def test_no_header_becomes_a_variable_of_nginxs(stack, header):
    """Names with an underscore are dropped, and all others begin with HTTP_ behind nginx."""
    browser = Browser(stack)
    name, _, value = header.partition(": ")
    sent = browser.authorize(headers={name: value})
    assert sent.status_code == 302 and sent.headers["X-Request-Id"] != "e" * 32
    asked = urllib.parse.parse_qs(urllib.parse.urlsplit(sent.headers["Location"]).query)
    assert asked["redirect_uri"] == [stack.redirect_uri]
    back = browser.callback(browser.approve(sent.headers["Location"]))
    assert back.status_code == 303 and back.headers["Location"] == "/"


def test_cookies_of_others_are_no_trouble_until_they_are_too_long(stack):
    browser = log_in(stack)
    own = cookie_header(browser)
    for count in (1, 2, 3):  # as many lines as nginx has buffers for, besides the one of the request
        others = ["Cookie: " + f"other{number}=" + "x" * 7000 for number in range(count)]
        assert get(stack, "/auth/token", *others, f"Cookie: {own}", *CALLED)[0] == 200
    assert_json_error(get(stack, "/auth/token", "Cookie: a=" + "x" * 9000, f"Cookie: {own}", *CALLED), 431)
    many = ["Cookie: " + f"other{number}=" + "x" * 7000 for number in range(9)]
    assert_json_error(get(stack, "/auth/token", *many, *CALLED), 431)
    assert browser.token().status_code == 200


def test_many_small_headers_are_served_or_refused(stack):
    for count, statuses in ((200, {200}), (1000, {200, 431, 400}), (20000, {431, 400})):
        lines = [f"X-{number}: {number}" for number in range(count)]
        status, _, _ = get(stack, "/auth/session", *lines, *CALLED)
        assert status in statuses
    assert get(stack, "/auth/session", *CALLED)[0] == 200


def test_a_repeated_host_or_a_foreign_one_has_no_effect_on_a_login(stack):
    browser = Browser(stack)
    sent = browser.authorize(headers={"Host": "evil.example"})
    assert sent.status_code == 302 and "evil" not in str(sent.headers)
    data = b"GET /auth/authorize HTTP/1.1\r\nHost: x\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert exchange(stack, data)[0] == 400


def test_a_connection_is_not_shared_by_what_two_people_send(stack):
    """Through one connection to nginx, as from a proxy: each request has the session of its own cookie alone."""
    people = {user: cookie_header(log_in(stack, user)) for user in ("ada", "grace")}
    connection = http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        for user in ("ada", "grace", None, "grace", "ada", None):
            headers = {"X-Requested-With": "x", **({"Cookie": people[user]} if user else {})}
            connection.request("GET", "/auth/session", headers=headers)
            body = connection.getresponse().read().decode()
            assert (f'"id":"{user}"' in body) if user else ('"authenticated":false' in body)
