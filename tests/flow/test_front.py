"""What arrives on the FastCGI socket: every request that is whole is answered, everything else ends
its own connection and nobody else's.

One worker serves all of a test's connections, so that nobody else could help out."""

import array
import contextlib
import fcntl
import os
import resource
import select
import socket
import subprocess
import termios
import time

import pytest

import fastcgi
import stack
from fastcgi import (ABORT_REQUEST, GET_VALUES, PARAMS, STDIN, Connection, ask, begin, pair, record,
                     request, stream, variables)

WHOLE = request(variables())
PAIRS = b"".join(pair(name, value) for name, value in variables())


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    directory = tmp_path_factory.mktemp("front")
    redis = stack.Redis(directory / "redis")
    server = stack.Service({
        "SPOTIFY_CLIENT_ID": "front", "SPOTIFY_CLIENT_SECRET": "secret-of-front",
        "SPOTIFY_REDIRECT_URI": "http://127.0.0.1:8080/auth/callback",
        "SPOTIFY_ACCOUNTS_URL": "http://127.0.0.1:9", "SPOTIFY_API_URL": "http://127.0.0.1:9",
        "REDIS_URL": redis.url, "SESSION_KEYS": stack.new_session_key(),
        "LISTEN": f"unix:{directory}/s.sock", "WORKERS": 1, "LOG_LEVEL": "debug",
    }, directory / "service.log")
    server.path = directory / "s.sock"
    server.redis = redis
    try:
        redis.start()
        server.start()
        yield server
        assert server.stop() == 0
    finally:
        server.end_now()
        redis.end_now()


@pytest.fixture
def path(service):
    """The socket's path; the service is as good after the test as before it."""
    workers = service.workers()
    yield service.path
    assert_served(service.path)
    assert service.workers() == workers


def assert_served(path):
    begun = time.monotonic()
    assert ask(path).status == 200
    assert ask(path, variables(SCRIPT_NAME="/readyz")).status == 200
    assert time.monotonic() - begun < 3


def assert_closed_unanswered(path, data):
    with Connection(path) as connection:
        connection.send(data)
        assert connection.wait_closed() == b""


def test_connection_serves_many_requests(path):
    with Connection(path) as connection:
        for _ in range(50):
            connection.send(WHOLE)
            reply = connection.reply()
            assert (reply.status, reply.app_status, reply.protocol_status) == (200, 0, 0)
            assert reply.stderr == b""


def test_connection_is_closed_after_the_answer_without_keep_conn(path):
    with Connection(path) as connection:
        connection.send(request(variables(), flags=0))
        assert connection.reply().status == 200
        assert connection.wait_closed() == b""


def test_answer_comes_after_the_peer_ends_its_side(path):
    with Connection(path) as connection:
        connection.send(WHOLE)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.reply().status == 200
        assert connection.wait_closed() == b""


def test_input_while_a_request_is_in_hand(service, path):
    """It waits until the answer is out; others are not held up either."""
    with Connection(path) as connection, Connection(path) as leaver:
        service.redis.pause()
        try:
            for waiting in (connection, leaver):
                waiting.send(request(variables(SCRIPT_NAME="/readyz")))
            time.sleep(0.05)
            connection.send(WHOLE)
            leaver.close()
            assert ask(path).status == 200
        finally:
            service.redis.cont()
        assert connection.reply().status in (200, 503)
        assert connection.reply().status == 200
    stack.wait_until(lambda: ask(path, variables(SCRIPT_NAME="/readyz")).status == 200, 10,
                     "Redis found again")


@pytest.mark.parametrize("cut", [1, 7, 8, 15, 16, 20, 60, len(WHOLE) - 8, len(WHOLE) - 1])
def test_half_sent_request_holds_nobody_up_and_can_be_finished(path, cut):
    with Connection(path) as connection:
        connection.send(WHOLE[:cut])
        time.sleep(0.05)
        assert_served(path)
        connection.send(WHOLE[cut:])
        assert connection.reply().status == 200
        connection.send(WHOLE)
        assert connection.reply().status == 200


def test_half_sent_request_is_dropped_in_time(path):
    with Connection(path, timeout_s=15) as idle, Connection(path, timeout_s=15) as half:
        half.send(WHOLE[:-8])
        begun = time.monotonic()
        assert half.wait_closed() == b""
        assert 8 < time.monotonic() - begun < 13
        idle.send(WHOLE)
        assert idle.reply().status == 200


def test_request_byte_by_byte(path):
    with Connection(path) as connection:
        connection.send_slowly(WHOLE, pause_s=0.001)
        assert connection.reply().status == 200


def test_large_request_in_single_bytes(path):
    """More pieces than the socket's buffer holds."""
    pairs = variables() + [("HTTP_X_LONG", "x" * 20000)]
    with Connection(path) as connection:
        connection.send_slowly(request(pairs))
        assert connection.reply().status == 200


def test_thousand_idle_connections(path):
    with contextlib.ExitStack() as idle:
        connections = [idle.enter_context(Connection(path)) for _ in range(1000)]
        assert_served(path)
        for connection in connections[::100]:
            connection.send(WHOLE)
            assert connection.reply().status == 200


def test_running_out_of_descriptors(service, path):
    """New connections wait in the queue; those that are open are served, and later all are."""
    worker = service.workers()[0]
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        early = opened.enter_context(Connection(path))
        early.send(WHOLE)
        assert early.reply().status == 200
        highest = max(int(name) for name in os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (highest + 4, limits[1]))
        try:
            late = [opened.enter_context(Connection(path)) for _ in range(40)]
            for connection in late:
                connection.send(WHOLE)
            time.sleep(0.3)
            early.send(WHOLE)
            assert early.reply().status == 200
        finally:
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        for connection in late:
            assert connection.reply().status == 200


def test_hundred_half_sent_connections(path):
    with contextlib.ExitStack() as half:
        for cut in range(1, 101):
            half.enter_context(Connection(path)).send(WHOLE[:cut])
        assert_served(path)


def test_connections_that_come_and_go(path):
    for cut in range(0, len(WHOLE), 7):
        with Connection(path) as connection:
            connection.send(WHOLE[:cut])


BROKEN = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "version 2": begin(version=2) + WHOLE[16:],
    "authorizer": begin(role=fastcgi.AUTHORIZER) + WHOLE[16:],
    "unknown role": begin(role=77) + WHOLE[16:],
    "request id 0": WHOLE.replace(b"\1\1\0\1", b"\1\1\0\0", 1),
    "params of another request": WHOLE[:16] + record(PARAMS, PAIRS, request_id=2),
    "begin with padding": begin(padding=8) + WHOLE[16:],
    "begin of 7 bytes": record(1, bytes(7)),
    "no begin": WHOLE[16:],
    "stdin before params": begin() + record(STDIN),
    "abort": begin() + record(ABORT_REQUEST),
    "get values": record(GET_VALUES, pair("FCGI_MAX_CONNS", ""), request_id=0),
    "get values, one name many times":
        record(GET_VALUES, pair("FCGI_MAX_CONNS", "") * 40, request_id=0),
    "get values within a request":
        begin() + record(GET_VALUES, pair("FCGI_MAX_REQS", ""), request_id=0),
    "unknown management record": record(99, request_id=0),
    "second begin": begin() + begin(),
    "second begin of another id": begin() + begin(request_id=2),
    "second begin after params": begin() + stream(PARAMS, PAIRS) + begin(),
    "more after the end": WHOLE + b"x",
    "two requests at once": WHOLE + WHOLE,
    "end of params within a pair": begin() + stream(PARAMS, PAIRS[:-3]) + record(STDIN),
    "end of params within a length": begin() + stream(PARAMS, PAIRS + b"\x80") + record(STDIN),
    "pair longer than all": begin() + record(PARAMS, b"\xff\xff\xff\xff\xff\xff\xff\xffab"),
    "pair of the largest int": begin() + record(PARAMS, b"\x7f\xff\xff\xff\x80\0\0\1ab"),
    "name without end": begin() + record(PARAMS, b"\x81\0\0\0\0" + b"a" * 3000),
    "NUL in a value": request(variables(HTTP_COOKIE="a\0b")),
    "NUL in a name": request(variables() + [("HTTP\0X", "")]),
    "equals sign in a name": request(variables() + [("REMOTE_USER=root", "")]),
    "empty name": request(variables() + [("", "x")]),
    "params over 64 KiB": request(variables() + [("A", "x" * 40000), ("B", "x" * 40000)]),
    "body over 64 KiB":
        request(variables(REQUEST_METHOD="POST", CONTENT_LENGTH="65537"), bytes(65537)),
    "end of params with padding": WHOLE[:-16] + record(PARAMS, padding=8) + record(STDIN),
    "end of stdin with padding": WHOLE[:-8] + record(STDIN, padding=8),
    "no method": request(variables(REQUEST_METHOD=None)),
    "empty method": request(variables(REQUEST_METHOD="")),
    "no params": begin() + record(PARAMS) + record(STDIN),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_is_closed_without_an_answer(path, name):
    assert_closed_unanswered(path, BROKEN[name])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_in_pieces(path, name):
    with Connection(path) as connection:
        for at in range(0, len(BROKEN[name]), 4096):
            connection.send(BROKEN[name][at:at + 4096][:5])
            time.sleep(0.01)
            connection.send(BROKEN[name][at:at + 4096][5:])
        # What follows a whole request is the beginning of a next one, which nobody ends.
        connection.socket.shutdown(socket.SHUT_WR)
        unanswered = connection.wait_closed() == b""
        assert unanswered or name in ("more after the end", "two requests at once")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_on_a_connection_that_was_good(path, name):
    with Connection(path) as connection:
        connection.send(WHOLE)
        assert connection.reply().status == 200
        connection.send(BROKEN[name])
        assert connection.wait_closed() == b""


@pytest.mark.parametrize("cut", ["border of a pair", "within a pair", "after a length"])
def test_params_cut_by_the_end_of_the_connection(path, cut):
    at = {"border of a pair": len(pair("REQUEST_METHOD", "GET")), "within a pair": 20,
          "after a length": 1}[cut]
    with Connection(path) as connection:
        connection.send(begin() + record(PARAMS, PAIRS[:at]))
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.wait_closed() == b""


@pytest.mark.parametrize("length, body", [
    ("5", b"abc"), ("2", b"abc"), ("", b"abc"), (None, b"abc"), ("3", b""), ("-1", b""), ("x", b""),
    ("0x3", b"abc"), (" 3", b"abc"), ("3 ", b"abc"), ("+3", b"abc"), ("3.0", b"abc"),
    ("18446744073709551619", b"abc"), ("99999999999999999999999999", b"")])
def test_body_of_another_length_than_said(path, length, body):
    pairs = variables(REQUEST_METHOD="POST", SCRIPT_NAME="/logout", CONTENT_LENGTH=length)
    assert_closed_unanswered(path, request(pairs, body))


def test_content_length_twice(path):
    pairs = variables(REQUEST_METHOD="POST", CONTENT_LENGTH="3") + [("CONTENT_LENGTH", "3")]
    assert_closed_unanswered(path, request(pairs, b"abc"))


@pytest.mark.parametrize("size", [0, 1, 8176, 8192, 16384, 16385, 65536])
@pytest.mark.parametrize("piece, padding", [(65535, 0), (8192, 0), (1000, 255), (7, 1)])
def test_body_and_params_in_records_of_any_size(path, size, piece, padding):
    """Also where a record ends at the end of libfcgi's buffer: the connection serves on."""
    if size > 20000 and piece < 1000:
        piece, padding = 100, 7
    pairs = variables(REQUEST_METHOD="POST", CONTENT_LENGTH=str(size), HTTP_X="y" * size)
    pairs = [(name, value[:60000]) for name, value in pairs]
    with Connection(path) as connection:
        for _ in range(2):
            connection.send(request(pairs, b"b" * size, size=piece, padding=padding))
            assert connection.reply().protocol_status == 0
        connection.send(WHOLE)
        assert connection.reply().status == 200


def test_params_of_60_kib(path):
    pairs = variables() + [(f"HTTP_X_{i}", "x" * 1000) for i in range(60)]
    assert ask(path, pairs).status == 200


def test_three_hundred_variables(path):
    assert ask(path, variables() + [(f"HTTP_X_{i}", "x") for i in range(300)]).status == 200


def test_repeated_variables(path):
    """nginx before 1.23 sends a repeated header as one variable each."""
    pairs = variables(SCRIPT_NAME="/session") + [("HTTP_COOKIE", "a=b"), ("HTTP_COOKIE", "c=d")]
    with Connection(path) as connection:
        connection.send(request(pairs))
        assert connection.reply().protocol_status == 0
        connection.send(WHOLE)
        assert connection.reply().status == 200


def test_head_has_no_body(path):
    reply = ask(path, variables(REQUEST_METHOD="HEAD"))
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("path_info, script_name", [
    ("/healthz", "/anything"), ("", "/healthz"), (None, "/healthz"), ("/healthz", None)])
def test_route_is_path_info_else_script_name(path, path_info, script_name):
    assert ask(path, variables(PATH_INFO=path_info, SCRIPT_NAME=script_name)).status == 200


def test_no_path_at_all_is_not_found(path):
    assert ask(path, variables(SCRIPT_NAME=None)).status == 404


def unread(connection):
    """Bytes that have arrived at our end."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.socket, termios.FIONREAD, count)
    return count[0]


def test_client_that_never_reads(path):
    """Its answers fill the socket; then its connection is closed, and nobody waits for it."""
    answers = 0
    with Connection(path) as connection:
        hung_up = select.poll()
        hung_up.register(connection.socket, select.POLLRDHUP)
        while not hung_up.poll(0):
            before = unread(connection)
            connection.send(WHOLE)
            stack.wait_until(lambda: unread(connection) > before or hung_up.poll(0), 5,
                             "an answer or the end", 0.0002)
            answers += 1
            assert answers < 100000
        assert answers > 100
        assert_served(path)


def test_request_id_is_taken_over_when_harmless(service, path):
    good, bad = "0123456789abcdef-_Z", 'x" bad'
    for given in (good, bad, "x" * 65, ""):
        assert ask(path, variables(REQUEST_ID=given, SCRIPT_NAME="/session")).protocol_status == 0
    ids = {line.get("request_id") for line in service.log_lines()}
    assert good in ids
    assert not {bad, "x" * 65, ""} & ids


def run_cgi(service, stdin=b"", **changes):
    """The program as plain CGI: (status, body, exit code)."""
    environment = dict(variables(GATEWAY_INTERFACE="CGI/1.1", **changes))
    done = subprocess.run([service.program()], input=stdin, capture_output=True, timeout=20,
                          env={**service.environment(), **environment})
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: "), done.stderr
    return int(head.split()[1]), body, done.returncode


def test_plain_cgi(service):
    assert run_cgi(service, PATH_INFO="/healthz", SCRIPT_NAME="/cgi-bin/auth")[::2] == (200, 0)
    assert run_cgi(service, REQUEST_METHOD="HEAD") == (200, b"", 0)
    assert run_cgi(service, SCRIPT_NAME="/nothing/here")[::2] == (404, 0)


@pytest.mark.parametrize("length, status", [
    ("70000", 413), ("99999999999999999999", 413), ("x", 400), ("-1", 400), ("5", 400)])
def test_plain_cgi_with_a_wrong_length(service, length, status):
    post = {"REQUEST_METHOD": "POST", "SCRIPT_NAME": "/logout"}
    assert run_cgi(service, b"a=b", CONTENT_LENGTH=length, **post)[::2] == (status, 0)
