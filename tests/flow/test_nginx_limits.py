"""How often one address may ask (nginx/spotify-auth-limits.conf), and which address that is behind a proxy
(nginx/spotify-auth-proxy.conf)."""

import contextlib
import http.client
import itertools
import re
import socket

import pytest

import traffic
from conftest import LISTED_ORIGIN as LISTED
from nginx_files import TRUSTED, behind_proxy, beside, narrow
from stack import TREE, wait_until
from test_nginx import assert_json_error, exchange

AT_ONCE = 4  # of `narrow`
FORM = "Content-Type: application/x-www-form-urlencoded"
CALLED = ("X-Requested-With: x", "Sec-Fetch-Site: same-origin")
ROUTES = {  # method, further headers
    "/auth/authorize": ("GET", ()), "/auth/callback": ("GET", ()), "/auth/token": ("GET", CALLED),
    "/auth/refresh": ("POST", CALLED), "/auth/swap": ("POST", (FORM,)), "/auth/swap/refresh": ("POST", (FORM,)),
    "/auth/device": ("GET", ()), "/auth/api/token": ("POST", (FORM,))}
FOR_BROWSERS = ("/auth/authorize", "/auth/callback", "/auth/token", "/auth/refresh")
ANYBODYS = ("/auth/swap", "/auth/swap/refresh", "/auth/device")
each_route = pytest.mark.parametrize("route", ROUTES)
_number = itertools.count(1)


def new_address():
    """One that no test has used."""
    return f"203.0.113.{next(_number)}"


@pytest.fixture(scope="module")
def narrow_nginx(shared_stack):
    with beside(shared_stack, narrow) as place:
        yield place


@pytest.fixture(scope="module")
def proxied(shared_stack):
    """As shipped, but for the proxy."""
    with beside(shared_stack, behind_proxy) as place:
        yield place


def ask(place, route, address=None, *headers, method=None, source=TRUSTED):
    """One request to a route, as a proxy at `source` passes it on for `address`."""
    own_method, own_headers = ROUTES.get(route.split("?")[0], ("GET", ()))
    lines = [f"{method or own_method} {route} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0",
             *own_headers, *headers]
    if address:
        lines.append(f"X-Forwarded-For: {address}")
    data = "\r\n".join([*lines, "", ""]).encode()
    if source == TRUSTED:
        return exchange(place, data)
    return exchange_from(place, source, data)


def exchange_from(place, source, data):
    host, _, port = place.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), 10, (source, 0)) as client:
        client.sendall(data)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    return int(head.split()[1]), headers, body


def statuses(place, route, addresses):
    return [ask(place, route, address)[0] for address in addresses]


def use_up(place, route, address=None, **how):
    got = [ask(place, route, address, **how)[0] for _ in range(AT_ONCE)]
    assert 429 not in got, got


@each_route
def test_an_address_that_asks_too_often_is_429_json_and_others_are_not(narrow_nginx, route):
    address = new_address()
    use_up(narrow_nginx, route, address)
    answer = ask(narrow_nginx, route, address)
    assert assert_json_error(answer, 429)["error"] == "rate_limited"
    assert int(answer[1]["retry-after"]) >= 1
    assert ask(narrow_nginx, route, new_address())[0] != 429


def test_each_route_has_a_limit_of_its_own(narrow_nginx):
    address = new_address()
    for route in ROUTES:
        use_up(narrow_nginx, route, address)
    for route in ROUTES:
        assert ask(narrow_nginx, route, address)[0] == 429


def test_what_is_not_limited_stays_so(narrow_nginx):
    address = new_address()
    for route in ("/auth/session", "/auth/logout", "/auth/nothing"):
        assert 429 not in statuses(narrow_nginx, route, [address] * 10)


def test_the_login_of_a_page_counts_as_any_other(stack):
    def with_a_page(name, text):
        text = narrow(name, text)
        page = "location = /page { auth_request /auth/verify; error_page 401 = /auth/.log-in; try_files /x =404; }\n"
        return text.replace("        location / {", page + "        location / {") if name == "nginx.conf" else text
    with beside(stack, with_a_page) as place:
        address = new_address()
        assert statuses(place, "/page", [address] * 2) == statuses(place, "/auth/authorize", [address] * 2) == [302] * 2
        assert [ask(place, route, address)[0] for route in ("/page", "/auth/authorize")] == [429] * 2
        assert ask(place, "/page", new_address())[0] == 302


def test_a_refused_request_reaches_no_worker(narrow_nginx, stack):
    address = new_address()
    use_up(narrow_nginx, "/auth/token", address)
    answer = ask(narrow_nginx, "/auth/token", address)
    assert answer[0] == 429
    assert not any(answer[1]["x-request-id"] in service.log_text() for service in stack.services)


# IPv6


@pytest.mark.parametrize("network, other", [
    (["2001:db8:1:2::1", "2001:db8:1:2:0:0:0:2", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2:a::3",
      "2001:db8:1:2:0:a:0:1"], "2001:db8:1:3::1"),
    (["2001:db8::1", "2001:db8:0:0:1::", "2001:db8:0:0:1:2:3:4", "2001:db8::5:0:0:1", "2001:db8::2"],
     "2001:db8:0:1::1"),
    # A newline and other bytes that a pattern could stumble over.
    (["2001:0a0a:0a0d:2500::0a0a", "2001:a0a:a0d:2500:a0a::", "2001:a0a:a0d:2500::7f00:1", "2001:a0a:a0d:2500::2",
      "2001:a0a:a0d:2500::3"], "2001:0a0a:0a0d:2501::0a0a")])
def test_an_ipv6_network_of_64_bits_is_one_address(narrow_nginx, network, other):
    assert 429 not in statuses(narrow_nginx, "/auth/token", network[:4])
    assert statuses(narrow_nginx, "/auth/token", network) == [429] * 5
    assert ask(narrow_nginx, "/auth/token", other)[0] != 429


def test_an_ipv4_address_in_ipv6_form_is_that_address(narrow_nginx):
    first, second = new_address(), new_address()
    use_up(narrow_nginx, "/auth/token", "::ffff:" + first)
    assert statuses(narrow_nginx, "/auth/token", ["::ffff:" + first, first]) == [429] * 2
    assert 429 not in statuses(narrow_nginx, "/auth/token", ["::ffff:" + second, second])


# This machine, preflights


@each_route
def test_this_machine_is_limited_in_what_anybody_may_ask_alone(narrow_nginx, route):
    got = [ask(narrow_nginx, route)[0] for _ in range(AT_ONCE + 1)]
    assert (got[-1] == 429) == (route in ANYBODYS)


@pytest.mark.parametrize("address", ["127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_each_of_this_machines_addresses_is_it(narrow_nginx, address):
    assert 429 not in statuses(narrow_nginx, "/auth/token", [address] * (AT_ONCE + 1))


def test_a_unix_socket_is_this_machine(narrow_nginx):
    assert 429 not in [narrow_nginx.nginx.admin("/auth/token")[0] for _ in range(AT_ONCE + 1)]


def test_preflights_are_not_counted(narrow_nginx):
    address = new_address()
    for _ in range(AT_ONCE + 2):
        assert ask(narrow_nginx, "/auth/token", address, f"Origin: {LISTED}", method="OPTIONS")[0] == 204
    assert ask(narrow_nginx, "/auth/token", address)[0] != 429


# Who may read it


@each_route
def test_a_listed_origin_can_read_that_it_asks_too_often(narrow_nginx, route):
    address = new_address()
    use_up(narrow_nginx, route, address)
    for origin, listed in ((LISTED, True), ("https://evil.example", False), (None, False)):
        status, headers, _ = ask(narrow_nginx, route, address, *([f"Origin: {origin}"] if origin else []))
        readable = listed and route in FOR_BROWSERS
        assert status == 429
        assert headers.get("access-control-allow-origin") == (LISTED if readable else None)
        assert headers.get("access-control-allow-credentials") == ("true" if readable else None)
        assert headers.get("access-control-expose-headers") == ("Retry-After, X-Request-Id" if readable else None)
        assert headers.get("vary") == ("Origin" if route in FOR_BROWSERS else None)


# The figures as they are shipped


def test_the_readmes_figures_are_those_of_the_files():
    rates = dict(re.findall(r"zone=(\w+):4m rate=(\d+)r/s;", (TREE / "nginx" / "spotify-auth-limits.conf").read_text()))
    text = (TREE / "nginx" / "spotify-auth.conf").read_text()
    locations = re.findall(r"location = /auth(/[\w/]+) \{[^}]*limit_req zone=(\w+) burst=(\d+) nodelay;", text)
    shipped = {route: f"{rates[zone]} ({int(burst):,})" for route, zone, burst in locations}
    assert set(shipped) == {route.removeprefix("/auth") for route in ROUTES}
    said = re.search(r"A second, and at once:(.*?)\. ", (TREE / "README.md").read_text(), re.S)[1]
    for routes, figures in re.findall(r"((?:`[\w/]+`(?: and )?)+) (\d+ \([\d,]+\))", said):
        for route in re.findall("`(.*?)`", routes):
            assert shipped.pop(route) == figures
    assert shipped == {}


@pytest.mark.parametrize("route, count", [("/auth/authorize", 90), ("/auth/callback", 90), ("/auth/token", 500),
                                          ("/auth/refresh", 150), ("/auth/api/token", 500)])
def test_what_a_crowd_behind_one_address_sends_at_once_is_served(proxied, route, count):
    address = new_address()
    method, headers = ROUTES[route]
    sent = {**dict(line.split(": ") for line in headers), "X-Forwarded-For": address}

    def some(number):
        connection = http.client.HTTPConnection(proxied.url.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            got = []
            for _ in range(number):
                connection.request(method, route, headers=sent)
                answer = connection.getresponse()
                answer.read()
                got.append(answer.status)
            return got
    got = [status for part in traffic.times(10, lambda: some(count // 10)) for status in part]
    assert len(got) == count and 429 not in got


def test_wrong_codes_are_counted_by_the_service_as_ever(proxied, stack):
    """Its own limit is tighter, and for the same address that nginx sees."""
    first, second = new_address(), new_address()
    for _ in range(10):
        assert ask(proxied, "/auth/device?user_code=BCDF-GHJK", first)[0] == 400
    status, _, body = ask(proxied, "/auth/device?user_code=BCDF-GHJK", first)
    assert status == 429 and b"Too many wrong codes" in body
    assert ask(proxied, "/auth/device?user_code=BCDF-GHJK", second)[0] == 400


# Which address it is


def logged_address(place, answer):
    """The address in the access log's line of that answer."""
    identifier = answer[1]["x-request-id"]

    def find():
        return [line.split()[0] for line in place.nginx.access_log.read_text().splitlines() if identifier in line]
    address, = wait_until(find, 5, "the log line")
    return address


@pytest.mark.parametrize("sent, source, logged", [
    ("198.51.100.1", TRUSTED, "198.51.100.1"), ("2001:db8:5::1", TRUSTED, "2001:db8:5::1"),
    ("6.6.6.6, 198.51.100.2", TRUSTED, "198.51.100.2"), (f"6.6.6.6, 198.51.100.3, {TRUSTED}", TRUSTED, "198.51.100.3"),
    ("198.51.100.4", "127.0.0.2", "127.0.0.2"), (f"198.51.100.5, {TRUSTED}", "127.0.0.2", "127.0.0.2"),
    ("not an address", TRUSTED, TRUSTED), ("6.6.6.6, not an address", TRUSTED, TRUSTED)])
def test_the_clients_address_is_believed_of_a_listed_proxy_alone(proxied, sent, source, logged):
    assert logged_address(proxied, ask(proxied, "/auth/token", sent, source=source)) == logged


def test_the_last_of_several_forwarded_headers_counts(proxied):
    answer = ask(proxied, "/auth/token", "198.51.100.9", "X-Forwarded-For: 6.6.6.6")
    assert logged_address(proxied, answer) == "198.51.100.9"


def test_other_headers_name_no_address(proxied):
    headers = ("X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "CF-Connecting-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6")
    assert logged_address(proxied, ask(proxied, "/auth/token", None, *headers)) == TRUSTED


def test_a_spoofed_address_is_no_way_around_the_limit(narrow_nginx):
    """Whoever comes past the proxy, and whoever lies to it."""
    for route in ANYBODYS:
        got = [ask(narrow_nginx, route, new_address(), source="127.0.0.3")[0] for _ in range(AT_ONCE + 1)]
        assert got[-1] == 429
    honest = new_address()
    for _ in range(AT_ONCE):
        assert ask(narrow_nginx, "/auth/token", f"{new_address()}, {honest}")[0] != 429
    assert ask(narrow_nginx, "/auth/token", f"{new_address()}, {honest}")[0] == 429


def test_without_the_proxys_file_no_header_names_an_address(stack):
    answer = ask(stack, "/auth/token", "198.51.100.10")
    assert logged_address(stack, answer) == TRUSTED


def test_refused_requests_are_in_the_access_log_but_for_callbacks(narrow_nginx):
    seen = {}
    for route in ROUTES:
        address = new_address()
        use_up(narrow_nginx, route, address)
        answer = ask(narrow_nginx, route + "?code=not-to-be-seen", address)
        assert answer[0] == 429
        seen[route] = answer[1]["x-request-id"], address
    log = wait_until(lambda: seen["/auth/api/token"][0] in (text := narrow_nginx.nginx.access_log.read_text()) and text,
                     5, "the last line")
    for route, (identifier, address) in seen.items():
        line = [line for line in log.splitlines() if identifier in line]
        assert len(line) == (route != "/auth/callback"), route
        assert all(line.split()[0] == address and f" {route} " in line and " 429 " in line for line in line)
    assert "not-to-be-seen" not in "".join(path.read_text() for path in narrow_nginx.nginx.directory.glob("*.log"))
