"""The program as plain CGI: one process a request, the environment and stdin in, stdout out."""

import json
import resource
import subprocess
import threading
import time
import urllib.parse

import pytest

from stack import reserve_port, wait_until

FETCH = {"HTTP_X_REQUESTED_WITH": "cgi", "HTTP_SEC_FETCH_SITE": "same-origin"}


class Reply:
    def __init__(self, done):
        head, _, self.body = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        assert lines[0].startswith("Status: "), done.stderr
        self.status = int(lines[0].split()[1])
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
        self.exit_code = done.returncode
        self.log = done.stderr.decode()

    def header(self, name):
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1
        return found[0] if found else None

    def json(self):
        assert self.header("Content-Type").startswith("application/json")
        return json.loads(self.body)


class Cgi:
    """A web server that starts the program for each request, and a browser before it."""

    def __init__(self, stack):
        self.stack = stack
        self.cookies = {}
        self.more = {}  # environment of the web server, or headers that the client sends

    def environment(self, method, route, query="", body=b"", **changes):
        environment = {
            **self.stack.services[0].environment(), "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": method, "QUERY_STRING": query,
            "SCRIPT_NAME": "/cgi-bin/spotify-auth", "PATH_INFO": route,
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            **self.more}
        if body:
            environment["CONTENT_LENGTH"] = str(len(body))
            environment["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        return {**environment, **changes}

    def ask(self, method, route, query="", body=b"", arguments=(), **changes):
        environment = self.environment(method, route, query, body, **changes)
        done = subprocess.run([self.stack.services[0].program(), *arguments], input=body,
                              env=environment, capture_output=True, timeout=30)
        reply = Reply(done)
        assert reply.exit_code == 0
        assert "ERROR: " not in reply.log and "runtime error" not in reply.log
        for name, value in reply.headers:
            if name == "Set-Cookie":
                name, _, value = value.split(";")[0].partition("=")
                self.cookies.pop(name, None)
                if value:
                    self.cookies[name] = value
        return reply

    def log_in(self):
        location = self.ask("GET", "/authorize").header("Location")
        url = self.stack.spotify.agree(location)
        return self.ask("GET", "/callback", urllib.parse.urlsplit(url).query)


@pytest.fixture
def cgi(stack):
    return Cgi(stack)


def test_cgi_authorize(cgi):
    reply = cgi.ask("GET", "/authorize")
    assert reply.status == 302
    assert reply.header("Location").startswith(cgi.stack.spotify.url + "/authorize?")
    assert reply.header("Cache-Control") == "no-store"
    assert reply.header("X-Request-Id")
    assert "spotify-login" in cgi.cookies


def test_cgi_callback(cgi):
    reply = cgi.log_in()
    assert (reply.status, reply.header("Location")) == (303, cgi.stack.url + "/") or (
        reply.status, reply.header("Location")) == (303, "/")
    assert "spotify-session" in cgi.cookies


def test_cgi_session_and_token(cgi):
    cgi.log_in()
    assert cgi.ask("GET", "/session", **FETCH).json()["user"]["id"] == "ada"
    assert cgi.ask("GET", "/token", **FETCH).json()["expires_in"] > 3500


def test_cgi_session_is_the_services_session(cgi, browser):
    """One Redis, one set of keys: it does not matter who serves."""
    cgi.log_in()
    browser.set_cookie(f"spotify-session={cgi.cookies['spotify-session']}; Path=/; HttpOnly")
    assert browser.token().status_code == 200


def test_cgi_token_is_renewed(cgi):
    cgi.stack.spotify.behave("token", grant="authorization_code", expires_in=30)
    cgi.stack.spotify.behave("token", grant="refresh_token", rotation="new")
    cgi.log_in()
    first = cgi.ask("GET", "/token", **FETCH).json()
    assert first["expires_in"] > 60
    assert cgi.stack.spotify.calls(grant="refresh_token") == 1
    assert cgi.ask("GET", "/token", **FETCH).json()["access_token"] == first["access_token"]


def test_cgi_post_reads_its_body(cgi):
    other = Cgi(cgi.stack)
    other.log_in()
    cgi.log_in()
    reply = cgi.ask("POST", "/logout", body=b"all=true", **FETCH)
    assert (reply.status, reply.body) == (204, b"")
    assert other.ask("GET", "/token", **FETCH).status == 401


def test_cgi_reads_no_more_than_content_length(cgi):
    cgi.log_in()
    reply = cgi.ask("POST", "/logout", body=b"all=true&all=true", CONTENT_LENGTH="8", **FETCH)
    assert reply.status == 204


def test_cgi_short_body_has_no_effect(cgi):
    """78: the body is shorter than CONTENT_LENGTH says."""
    cgi.log_in()
    assert cgi.ask("POST", "/logout", body=b"all=true", CONTENT_LENGTH="9", **FETCH).status == 400
    assert cgi.ask("GET", "/token", **FETCH).status == 200


@pytest.mark.parametrize("changes", [
    {"CONTENT_LENGTH": "9"}, {"CONTENT_LENGTH": "70000"}, {"CONTENT_LENGTH": "x"},
    {"REQUEST_METHOD": ""}], ids=str)
def test_cgi_refused_request_has_the_common_headers(cgi, changes):
    reply = cgi.ask("POST", "/logout", body=b"all=true", REQUEST_ID="of-the-web-server",
                    **{**FETCH, **changes})
    assert reply.status in (400, 413)
    assert isinstance(reply.json()["error"], str)
    assert reply.header("Cache-Control") == "no-store"
    assert reply.header("X-Content-Type-Options") == "nosniff"
    assert reply.header("Referrer-Policy") == "no-referrer"
    assert reply.header("X-Request-Id") == "of-the-web-server"
    assert reply.header("Content-Length") == str(len(reply.body))


@pytest.mark.parametrize("arguments", [
    ["--new-key"], ["--check"], ["--help"], ["--version"], ["--health"], ["--new-client", "bob"],
    ["x", "y"]], ids=" ".join)
def test_cgi_takes_no_option_from_a_query_string(cgi, arguments):
    """RFC 3875 4.4: a query string without "=" arrives as arguments."""
    reply = cgi.ask("GET", "/nothing", "+".join(arguments), arguments=arguments)
    assert (reply.status, reply.json()["error"]) == (404, "not_found")


def test_80_core_dumps_are_off_in_cgi(cgi):
    environment = cgi.environment("POST", "/logout", CONTENT_LENGTH="1", **FETCH)
    with subprocess.Popen([cgi.stack.services[0].program()], env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: resource.prlimit(process.pid, resource.RLIMIT_CORE) == (1, 1), 10,
                       "the limit")
        finally:
            process.communicate(b"x", timeout=20)


def test_cgi_answer_ends_before_its_renewal_is_saved(make_stack):
    """The web server does not wait for Redis to come back; the process does."""
    cgi = Cgi(make_stack())
    stack = cgi.stack
    stack.spotify.behave("token", grant="authorization_code", expires_in=30)
    stack.spotify.behave("token", grant="refresh_token", rotation="new", latency=0.5)
    cgi.log_in()
    environment = cgi.environment("GET", "/token", **FETCH)
    with subprocess.Popen([stack.services[0].program()], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        late = threading.Timer(20, process.kill)  # then the answer has no end before Redis is back
        late.start()
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 10, "the call")
        stack.redis.pause()
        try:
            answer = process.stdout.read()
            time.sleep(0.3)
            assert process.poll() is None
        finally:
            stack.redis.cont()
        log = process.stderr.read()
        assert process.wait(20) == 0
        late.cancel()
    assert answer.startswith(b"Status: 200 ")
    assert b"renewal saved late" in log
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert cgi.ask("GET", "/token", **FETCH).json()["access_token"] == body["access_token"]
    assert stack.spotify.calls(grant="refresh_token") == 1


def test_79_cgi_tells_to_use_https_only_where_it_is(cgi):
    assert cgi.ask("GET", "/nothing").header("Strict-Transport-Security") is None
    cgi.more = {"SPOTIFY_REDIRECT_URI": "https://music.example/auth/callback"}
    for reply in (cgi.ask("GET", "/nothing"), cgi.ask("GET", "/session", **FETCH),
                  cgi.ask("GET", "/authorize"), cgi.ask("POST", "/logout", CONTENT_LENGTH="5")):
        assert reply.header("Strict-Transport-Security") == "max-age=31536000"


def test_cgi_errors_are_answers(cgi):
    assert cgi.ask("GET", "/nothing").json()["error"] == "not_found"
    assert cgi.ask("GET", "/token", **FETCH).status == 401
    assert cgi.ask("GET", "/token").status == 403
    assert cgi.ask("PUT", "/token").header("Allow")


def test_cgi_without_redis_is_503(cgi, tmp_path):
    cgi.more = {"REDIS_URL": f"unix://{tmp_path}/none.sock"}
    reply = cgi.ask("GET", "/readyz")
    assert reply.status == 503
    assert cgi.ask("GET", "/authorize").status == 503


def test_cgi_logs_to_stderr_only(cgi):
    reply = cgi.ask("GET", "/session", **FETCH)
    lines = [json.loads(line) for line in reply.log.splitlines() if line.startswith("{")]
    assert [line for line in lines if line["event"] == "request" and line["status"] == 200]
    assert lines[-1]["request_id"] == reply.header("X-Request-Id")
    assert b'"event"' not in reply.body


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "https_proxy", "HTTPS_PROXY",
                                  "ALL_PROXY", "all_proxy"])
def test_77_httpoxy_no_variable_names_a_proxy(cgi, name):
    """A client's `Proxy:` header becomes HTTP_PROXY in CGI."""
    with reserve_port() as trap:
        trap.listen()
        trap.setblocking(False)
        cgi.more = {name: f"http://127.0.0.1:{trap.getsockname()[1]}"}
        assert cgi.log_in().status == 303
        assert "spotify-session" in cgi.cookies
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_cgi_script_name_is_the_route_without_path_info(cgi):
    reply = cgi.ask("GET", "", SCRIPT_NAME="/session", **FETCH)
    assert reply.json()["authenticated"] is False
