"""What nginx says when it is not the service that answers, as pages on other origins see it; and how long it waits."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import traffic
from conftest import LISTED_ORIGIN as LISTED
from nginx_files import beside
from sessions import cookie_header, log_in
from stack import TREE, Nginx, reserve_port, wait_until
from test_nginx import assert_json_error, get

CALLED = ("X-Requested-With: x", "Sec-Fetch-Site: cross-site")
MISTAKES = {  # of a request: its method, further headers, what is behind the address, the body, the status
    "length": ("POST", ["Content-Length: x"], "", b"", 400),
    "both": ("POST", ["Content-Length: 1", "Transfer-Encoding: chunked"], "", b"0\r\n\r\n", 400),
    "body": ("POST", ["Content-Length: 65537"], "", bytes(65537), 413),
    "address": ("GET", [], "?x=" + "x" * 40000, b"", 414),
    "header": ("GET", ["X-Long: " + "x" * 40000], "", b"", 431),
    "cookies": ("GET", ["Cookie: " + "c=" + "x" * 9000], "", b"", 431),
    "coding": ("POST", ["Transfer-Encoding: gzip"], "", b"", 501),
}
each_mistake = pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
BROWSERS = ["/authorize", "/callback", "/session", "/sessions", "/token", "/refresh", "/logout"]
OTHERS = ["/swap", "/swap/refresh", "/device", "/api/token", "/nothing"]


def send(place, route, mistake, *headers):
    method, own, query, body, _ = mistake
    # The origin first, where it is read before the mistake is.
    return get(place, "/auth" + route + query, *headers, *own, method=method, body=body)


def assert_readable(headers, origin):
    assert headers.get("access-control-allow-origin") == origin
    assert headers.get("access-control-allow-credentials") == ("true" if origin else None)
    assert headers.get("access-control-expose-headers") == ("Retry-After, X-Request-Id" if origin else None)


# Who may read what is wrong with a request


@each_mistake
@pytest.mark.parametrize("route", ["/token", "/logout"])
def test_a_listed_origin_can_read_what_is_wrong_with_its_request(stack, mistake, route):
    # Of an address that is too long nothing else is read, so nobody knows who sent it.
    for origin in (LISTED, "https://evil.example", "null", None):
        answer = send(stack, route, mistake, *([f"Origin: {origin}"] if origin else []))
        assert_json_error(answer, mistake[-1])
        assert_readable(answer[1], LISTED if origin == LISTED and mistake[-1] != 414 else None)
        if mistake[-1] != 414:
            assert answer[1]["vary"] == "Origin"


@pytest.mark.parametrize("route", BROWSERS)
def test_every_route_of_the_browser_has_readable_errors(stack, route):
    answer = send(stack, route, MISTAKES["header"], f"Origin: {LISTED}")
    assert_json_error(answer, 431)
    assert_readable(answer[1], LISTED)
    assert answer[1]["vary"] == "Origin"


@each_mistake
@pytest.mark.parametrize("route", OTHERS)
def test_no_other_route_has(stack, route, mistake):
    answer = send(stack, route, mistake, f"Origin: {LISTED}")
    assert_json_error(answer, mistake[-1])
    assert_readable(answer[1], None)
    assert "vary" not in answer[1]


def test_an_origin_is_compared_as_a_whole(stack):
    for origin in (LISTED + ".evil.example", LISTED + ":444", LISTED + "/", "x" + LISTED,
                   LISTED.replace("https", "http"),
                   f"{LISTED}, {LISTED}", LISTED.replace(".", "x", 1)):
        _, headers, _ = send(stack, "/token", MISTAKES["header"], f"Origin: {origin}")
        assert_readable(headers, None)


def test_without_the_origins_file_nothing_is_missing_but_its_headers(stack):
    """spotify-auth.conf needs what it always needed; that a name is not set is no warning either."""
    def without(name, text):
        if name == "nginx.conf":
            assert "    include @origins@;\n" in text
            text = text.replace("    include @origins@;\n", "").replace("error.log error;", "error.log warn;")
        return text
    with beside(stack, without) as place:
        answer = send(place, "/token", MISTAKES["body"], f"Origin: {LISTED}")
        assert_json_error(answer, 413)
        assert_readable(answer[1], None)
        assert answer[1]["vary"] == "Origin"
        status, headers, _ = get(place, "/spotify/v1/nothing*", f"Origin: {LISTED}")
        assert status == 404
        assert_readable(headers, None)
        assert "uninitialized" not in place.nginx.log_text()


def test_the_origins_file_as_shipped_lists_nobody_and_is_edited_by_a_line(stack):
    def shipped(line):
        def change(name, text):
            if name == "nginx.conf":
                return text.replace("include @origins@;", "include @files@/spotify-auth-origins.conf;")
            if name == "spotify-auth-origins.conf":
                assert text.count("# \"https://app.example.com\" $http_origin;") == 1
                return text.replace("# \"https://app.example.com\"", line)
            return text
        return change
    for line, readable in (('# "https://app.example.com"', None), (f'"{LISTED}"', LISTED)):
        with beside(stack, shipped(line)) as place:
            assert_readable(send(place, "/token", MISTAKES["header"], f"Origin: {LISTED}")[1], readable)


# An outage


@pytest.fixture(scope="module")
def down(shared_stack):
    """nginx before a service that is not there."""
    with beside(shared_stack, lambda _, text: text, [f"unix:{shared_stack.directory}/nobody.sock"]) as place:
        yield place


@pytest.mark.parametrize("route", BROWSERS)
def test_a_listed_origin_can_read_of_an_outage(down, route):
    status, headers, body = get(down, "/auth" + route, f"Origin: {LISTED}", *CALLED)
    assert status == (502 if route == "/callback" else 503)
    assert json.loads(body)["error"] == "temporarily_unavailable" and headers["retry-after"] == "5"
    assert_readable(headers, LISTED)
    assert_readable(get(down, "/auth" + route, "Origin: https://evil.example", *CALLED)[1], None)


@pytest.mark.parametrize("route", OTHERS[:-1])
def test_an_outage_of_the_other_routes_is_for_no_page(down, route):
    answer = get(down, "/auth" + route, f"Origin: {LISTED}", "Content-Length: 0", method="POST")
    assert_json_error(answer, 503)
    assert_readable(answer[1], None)


@pytest.mark.parametrize("route", ["/token", "/refresh", "/session", "/logout"])
@pytest.mark.parametrize("origin, status", [(LISTED, 204), ("https://evil.example", 503)])
def test_the_preflight_passes_in_an_outage_so_that_it_can_be_read(down, route, origin, status):
    asked = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-requested-with")
    got, headers, body = get(down, "/auth" + route, f"Origin: {origin}", *asked, method="OPTIONS")
    assert got == status
    if status == 204:
        assert body == b"" and headers["access-control-allow-origin"] == LISTED
        assert headers["access-control-allow-credentials"] == "true"
        assert "X-Requested-With" in headers["access-control-allow-headers"]
        assert {"GET", "POST"} <= set(headers["access-control-allow-methods"].split(", "))
        assert "access-control-max-age" not in headers  # another answer may be true soon
    else:
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path, method, status, error", [
    ("/spotify/v1/nothing*", "GET", 404, "not_found"), ("/catalog/v1/me", "GET", 404, "not_found"),
    ("/spotify/v1/search", "POST", 405, "method_not_allowed"), ("/spotify/v1/me", "PUT", 413, "request_too_large"),
    ("/spotify/v1/me", "GET", 503, "temporarily_unavailable"),
    ("/catalog/v1/search", "GET", 503, "temporarily_unavailable")])
@pytest.mark.parametrize("origin", [LISTED, "https://evil.example"])
def test_a_listed_origin_can_read_nginxs_errors_of_the_web_api(down, path, method, status, error, origin):
    length = 600_000 if status == 413 else 0
    got, headers, body = get(down, path, f"Origin: {origin}", *CALLED, f"Content-Length: {length}", method=method,
                             body=bytes(length))
    assert (got, json.loads(body)["error"]) == (status, error)
    assert_readable(headers, LISTED if origin == LISTED else None)
    assert headers["vary"] == "Origin"
    assert ("allow" in headers) == (status == 405) and ("retry-after" in headers) == (status == 503)


def test_what_is_not_there_is_said_in_one_way(stack):
    answers = [get(stack, "/auth" + route) for route in ("/nothing", "/metrics")]
    assert {status for status, _, _ in answers} == {404}
    assert len({json.loads(body)["error_description"] for _, _, body in answers}) == 1


def test_errors_of_nginx_are_in_the_access_log_but_for_callbacks(down):
    marks = {}
    for route in ("/token", "/callback", "/session"):
        marks[route] = get(down, f"/auth{route}?code=of{route}")[1]["x-request-id"]
        get(down, f"/auth{route}?code=of{route}", "X-Long: " + "x" * 40000)
    log = wait_until(lambda: marks["/session"] in (text := down.nginx.access_log.read_text()) and text, 5, "the line")
    assert marks["/token"] in log and marks["/callback"] not in log and "/auth/callback" not in log
    # The last field is what nginx was answered: nothing of use, so these are its own.
    assert re.search(r" /auth/token HTTP/1.1 503 .* 502$", log, re.M) and re.search(r" /auth/token HTTP/1.1 431 ", log)
    assert "?" not in log
    assert "code=of/callback" not in down.nginx.log_text()


def test_the_readmes_line_counts_what_nginx_answered_by_itself(down, stack):
    script, = re.findall(r"^awk '(.*)' /var/log/nginx/access.log$", (TREE / "README.md").read_text(), re.M)
    marks = [get(place, "/spotify/v1/me", *CALLED)[1]["x-request-id"] for place in (down, stack)]
    lines = [wait_until(lambda place=place, mark=mark: [line for line in place.nginx.access_log.read_text().splitlines()
                                                        if mark in line], 5, "the line")[0]
             for place, mark in zip((down, stack), marks)]
    counted = subprocess.run(["awk", script], input="\n".join(lines * 2), capture_output=True, text=True, timeout=10)
    assert counted.stdout == "2 503 /spotify/v1/me\n"


# How long it waits


def impatient(name, text):
    """One second where the shipped files wait longer."""
    if name == "spotify-auth.conf":
        for what in ("fastcgi_read_timeout", "client_body_timeout", "fastcgi_connect_timeout"):
            shipped, = re.findall(rf"{what} (\d+)s;", text)
            assert 1 < int(shipped) <= 40
            text = text.replace(f"{what} {shipped}s;", f"{what} 1s;")
    return text


@contextlib.contextmanager
def stopped(service):
    """Its workers as they are when nobody gives them the processor."""
    pids = service.workers()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_worker_that_hangs_is_504_json_to_try_again(make_stack):
    stack = make_stack(workers=1, settings={"ALLOWED_ORIGINS": LISTED})
    browser = log_in(stack)
    cookie = f"Cookie: {cookie_header(browser)}"
    requests = [("GET", "/auth/token"), ("POST", "/auth/refresh"), ("GET", "/auth/authorize"),
                ("GET", "/auth/callback"),
                ("GET", "/spotify/v1/me"), ("GET", "/catalog/v1/search")]
    with beside(stack, impatient) as place:
        def ask(method, path):
            return traffic.seconds(lambda: get(place, path, f"Origin: {LISTED}", cookie, *CALLED, "Content-Length: 0",
                                               method=method))
        with stopped(stack.services[0]), traffic.background() as submit:
            answers = [submit(ask, *request) for request in requests]
            answers = [future.result() for future in answers]
        for (_, path), ((status, headers, body), seconds) in zip(requests, answers):
            assert status == (504 if path.startswith("/auth") else 503), path
            assert json.loads(body)["error"] == "temporarily_unavailable" and headers["retry-after"] == "5"
            assert 0.9 < seconds < 10
            assert_readable(headers, LISTED)
        wait_until(lambda: get(place, "/auth/token", cookie, "X-Requested-With: x")[0] == 200, 20, "the worker again")
    assert browser.token().status_code == 200


def test_a_server_that_takes_no_connection_is_passed_over(stack):
    """A machine that is off answers nothing, not even that; a request that nobody got is sent to the next."""
    with reserve_port() as silent, contextlib.ExitStack() as waiting:
        silent.listen(0)
        address = silent.getsockname()
        for _ in range(3):  # until its queue is full, so that nobody gets a connection any more
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        addresses = [f"127.0.0.1:{address[1]}", stack.services[0].nginx_address]
        with beside(stack, impatient, addresses) as place:
            for method, route in (("GET", "/session"), ("POST", "/logout")) * 2:
                answer, seconds = traffic.seconds(lambda: get(place, "/auth" + route, "X-Requested-With: x",
                                                              "Content-Length: 0", method=method))
                assert answer[0] in (200, 204) and seconds < 8


def test_a_body_that_does_not_come_is_not_waited_for(stack):
    """nginx closes without an answer: 408 is in its log alone."""
    with beside(stack, impatient) as place:
        begun = time.monotonic()
        answer = exchange_raw(place, b"POST /auth/logout HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert answer == b"" and 0.9 < time.monotonic() - begun < 10
        wait_until(lambda: " /auth/logout HTTP/1.1 408 " in place.nginx.access_log.read_text(), 5, "the log line")


def exchange_raw(place, data):
    host, _, port = place.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), 15) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("length, status", [(0, 204), (4, 204), (65536, 400), (65537, 413)])
def test_a_body_has_its_limit(stack, length, status):
    answer = get(stack, "/auth/logout", "X-Requested-With: x", f"Content-Length: {length}",
                 "Content-Type: application/x-www-form-urlencoded", method="POST",
                 body=b"all="[:length] + b"x" * (length - 4))
    assert answer[0] == status


def test_a_chunked_body_has_the_same_limit(stack):
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    assert_json_error(get(stack, "/auth/logout", "Transfer-Encoding: chunked", method="POST", body=chunk * 3), 413)


def test_nginxs_configuration_is_without_a_warning(tmp_path):
    """What `make run` uses, at every start of this suite."""
    nginx = Nginx(tmp_path, ["127.0.0.1:9"], "127.0.0.1:9", api_url="http://127.0.0.1:9")
    nginx.write_config()
    done = nginx.check()
    assert done.returncode == 0 and "[warn]" not in done.stderr, done.stderr
