"""The program as a process: how it starts, where it listens, what signals do, and what it logs."""

import contextlib
import datetime
import errno
import json
import os
import re
import resource
import signal
import socket
import stat
import time

import pytest

import traffic
from browser import Browser
from fastcgi import Closed, Connection, ask, request, variables
from stack import Redis, Service, Stack, find_program, new_session_key, reserve_port, wait_until

HANGS = {"UPSTREAM_TIMEOUT_MS": 8000, "DRAIN_TIMEOUT_S": 1}


def settings_for(redis, listen, **changes):
    settings = {
        "SPOTIFY_CLIENT_ID": "process", "SPOTIFY_CLIENT_SECRET": "secret-of-process",
        "SPOTIFY_REDIRECT_URI": "http://127.0.0.1:8080/auth/callback",
        "SPOTIFY_ACCOUNTS_URL": "http://127.0.0.1:9", "SPOTIFY_API_URL": "http://127.0.0.1:9",
        "REDIS_URL": redis.url, "SESSION_KEYS": new_session_key(), "WORKERS": 1,
        "LISTEN": listen, **changes,
    }
    return {name: value for name, value in settings.items() if value is not None}


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


class Inheriting(Service):
    """The program, started by somebody who hands it the listening socket."""

    def __init__(self, settings, log_path, starter):
        super().__init__(settings, log_path)
        self.starter = starter

    def launch(self, argv, env=None, cwd=None):
        super().launch([*self.starter, *argv], env, cwd)


@pytest.fixture
def make_service(redis, tmp_path):
    """A service without nginx and Spotify; where it listens, when not said otherwise: .path."""
    with contextlib.ExitStack() as services:
        def make(listen=None, kind=Service, ready=True, starter=None, **changes):
            path = tmp_path / "s.sock"
            settings = settings_for(redis, listen or f"unix:{path}", **changes)
            log = tmp_path / "service.log"
            service = Inheriting(settings, log, starter) if starter else kind(settings, log)
            service.path = path
            services.callback(service.end_now)
            return service.start() if ready else service
        yield make


def ended(service, number=signal.SIGTERM):
    """Its exit code after a signal, and how many seconds it took."""
    return traffic.seconds(lambda: service.stop(number))


def log_has(service, event, **members):
    return [line for line in service.log_lines() if line.get("event") == event and
            all(line.get(name) == value for name, value in members.items())]


def when(line):
    return datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


# The start


@pytest.mark.parametrize("count", [1, 3])
def test_starts_as_many_workers_as_set(make_service, count):
    service = make_service(WORKERS=count)
    assert len(service.workers()) == count
    assert log_has(service, "service started", workers=count)


def test_80_core_dumps_are_off(make_service):
    service = make_service()
    for pid in (service.pid, *service.workers()):
        # 0 would not stop a kernel.core_pattern that is a pipe (core(5)).
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (1, 1)


def test_starts_a_worker_for_each_cpu(make_service):
    assert len(make_service(WORKERS=None).workers()) == os.cpu_count()


def test_dead_worker_is_restarted_at_once_while_the_other_serves(make_service):
    service = make_service(WORKERS=2)
    before = service.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(service.workers()) - {before[0]}) == 2, 2, "a new worker")
    assert before[1] in service.workers()
    assert ask(service.path).status == 200
    line, = log_has(service, "worker ended")
    assert (line["worker"], line["signal"], line["level"]) == (before[0], 9, "error")


def test_worker_that_dies_again_and_again_is_restarted_later_and_later(make_service):
    service = make_service(WORKERS=1)
    for count in range(1, 6):
        pid, = wait_until(service.workers, 5, "a worker")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda count=count: len(log_has(service, "worker ended")) == count, 5, "its end")
    wait_until(lambda: len(log_has(service, "worker started")) == 6, 5, "a worker")
    gaps = [when(start) - when(end) for end, start in zip(
        log_has(service, "worker ended"), log_has(service, "worker started")[1:])]
    assert gaps[0] < 0.1
    assert all(later > earlier * 1.5 for earlier, later in zip(gaps[1:], gaps[2:])), gaps
    assert gaps[-1] > 0.5
    wait_until(lambda: ask(service.path).status == 200, 5, "service")


def test_killed_supervisor_lets_workers_finish_and_end(make_stack):
    stack = make_stack(settings=HANGS)
    service, browser = stack.services[0], logged_in(stack, expires_in=30)
    stack.spotify.behave("token", latency=0.5)
    with traffic.background() as submit:
        answer = submit(browser.token)
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call")
        os.kill(service.pid, signal.SIGKILL)
        assert answer.result().status_code == 200
    wait_until(lambda: not service.group(), 5, "the end of all workers")


# Where it listens


def test_listens_on_tcp_and_nginx_reaches_it():
    with reserve_port() as holder:
        port = holder.getsockname()[1]
        stack = Stack(settings={"LISTEN": f"tcp:127.0.0.1:{port}"})
        stack.nginx.values["servers"] = f"server 127.0.0.1:{port};"
        with stack:
            browser = Browser(stack)
            assert browser.login().status_code == 303
            assert browser.token().status_code == 200


def test_listens_on_ipv6(make_service):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            pytest.skip("no ::1 here")
        port = probe.getsockname()[1]
    service = make_service(f"tcp:[::1]:{port}")
    assert service.run("--health").returncode == 0


def test_replaces_the_socket_that_a_killed_service_left(make_service):
    first = make_service()
    first.kill()
    assert stat.S_ISSOCK(first.path.stat().st_mode)
    second = make_service()
    assert ask(second.path).status == 200


def test_leaves_a_file_alone_that_is_no_socket(make_service):
    service = make_service(ready=False)
    service.path.write_text("letters")
    done = service.run()
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert service.path.read_text() == "letters"


def spawn_fcgi(*where):
    return [find_program("spawn-fcgi"), "-n", *where, "--"]


def test_takes_a_unix_socket_from_spawn_fcgi(make_service, tmp_path):
    path = tmp_path / "spawned.sock"
    service = make_service(f"unix:{path}", starter=spawn_fcgi("-s", path))
    assert ask(path).status == 200
    assert service.run("--health").returncode == 0
    assert service.stop() == 0


def test_takes_a_tcp_socket_from_spawn_fcgi(make_service):
    with reserve_port() as holder:
        port = holder.getsockname()[1]
    service = make_service(f"tcp:127.0.0.1:{port}",
                           starter=spawn_fcgi("-a", "127.0.0.1", "-p", str(port)))
    assert service.run("--health").returncode == 0
    assert service.stop() == 0


HAND_OVER = ("import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
             "s.listen(); os.dup2(s.fileno(), 0); os.execv(sys.argv[2], sys.argv[2:])")


@pytest.mark.parametrize("more", [{}, {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}])
def test_descriptor_0_goes_before_listen_and_cgi(make_service, tmp_path, more):
    given, listen = tmp_path / "given.sock", tmp_path / "listen.sock"
    starter = ["/usr/bin/python3", "-c", HAND_OVER, given]
    service = make_service(f"unix:{listen}", ready=False, starter=starter, **more)
    service.launch([service.program()], env=service.environment())
    wait_until(lambda: log_has(service, "worker started"), 10, "a worker")
    assert ask(given).status == 200
    assert not listen.exists()
    assert service.stop() == 0
    assert given.exists(), "a socket of somebody else was removed"


# --health


def test_health_is_good_when_ready(make_service):
    done = make_service().run("--health")
    assert done.returncode == 0
    assert '"ready":true' in done.stdout


def test_health_is_bad_without_redis_and_says_so(make_service, tmp_path):
    service = make_service(ready=False, REDIS_URL=f"unix://{tmp_path}/none.sock")
    done = service.start(ready=False).run("--health")
    assert done.returncode == 1
    assert '"redis"' in done.stdout


@pytest.mark.parametrize("url", ["redis://{}", "redis+sentinel://{}/sessions", "redis+cluster://{}"])
def test_redis_that_is_not_there_is_named_in_the_log_once(make_service, url):
    with reserve_port() as holder:
        host = "{}:{}".format(*holder.getsockname())
        service = make_service(ready=False, REDIS_URL=url.format(host)).start(ready=False)
        for _ in range(3):
            assert service.run("--health").returncode == 1
    lost, = log_has(service, "redis lost")
    assert lost["node"] == host and "refused" in lost["error"]


# The end


def logged_in(stack, expires_in=None):
    """A browser with a session; expires_in: of its first token."""
    if expires_in is not None:
        stack.spotify.behave("token", grant="authorization_code", expires_in=expires_in)
    browser = Browser(stack)
    assert browser.login().status_code == 303
    return browser


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_82_end_under_load_finishes_requests_in_hand(make_stack, number):
    stack = make_stack(workers=2)
    browsers = [logged_in(stack, expires_in=30) for _ in range(12)]
    stack.spotify.behave("token", grant="refresh_token", latency=0.7)
    with traffic.background() as submit:
        answers = [submit(browser.token) for browser in browsers]
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 12, 5, "12 calls")
        code, took = ended(stack.services[0], number)
        assert [answer.result().status_code for answer in answers] == [200] * 12
    assert code == 0
    assert took < 3


def test_82_two_services_one_ends_under_load_and_nobody_gets_an_error(make_stack):
    stack = make_stack(services=2, workers=2)
    browser = logged_in(stack)
    with traffic.steady(*[browser.session] * 4, *[browser.token] * 4) as answers:
        wait_until(lambda: len(answers) > 100, 10, "load")
        assert ended(stack.services[0])[0] == 0
        count = len(answers)
        wait_until(lambda: len(answers) > count + 100, 10, "load after the end")
    assert {getattr(answer, "status_code", answer) for answer in answers} == {200}


def test_end_with_a_hanging_spotify_takes_the_drain_timeout(make_stack):
    stack = make_stack(settings=HANGS)
    service, browser = stack.services[0], logged_in(stack, expires_in=30)
    stack.spotify.hang()
    with traffic.background() as submit:
        answer = submit(browser.token)
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call")
        code, took = ended(service)
        assert answer.result().status_code in (502, 503)
    assert code == 0
    assert 0.9 < took < 2
    assert log_has(service, "drain timeout") and not log_has(service, "worker killed")
    stack.spotify.release()
    service.start()
    assert browser.session().json()["authenticated"] is True


def test_end_on_tcp_serves_open_connections_until_the_web_server_closes_them(make_service):
    with reserve_port() as holder:
        address = holder.getsockname()
    service = make_service(f"tcp:{address[0]}:{address[1]}", DRAIN_TIMEOUT_S=20)
    with Connection(address) as idle, Connection(address) as busy:
        for connection in (idle, busy):
            connection.send(request(variables()))
            assert connection.reply().status == 200
        service.signal(signal.SIGTERM)
        wait_until(lambda: not service.accepts(), 5, "the drain")
        for _ in range(3):
            busy.send(request(variables()))
            assert busy.reply().status == 200
        assert service.alive
    assert service.wait(5) == 0


def test_end_on_tcp_does_not_wait_for_a_web_server_that_closes_nothing(make_service):
    with reserve_port() as holder:
        address = holder.getsockname()
    service = make_service(f"tcp:{address[0]}:{address[1]}", DRAIN_TIMEOUT_S=4)
    with Connection(address) as idle:
        begun = time.monotonic()
        service.signal(signal.SIGTERM)
        assert idle.wait_closed() == b""
        assert 1.9 < time.monotonic() - begun < 4
    assert service.wait(5) == 0
    assert not log_has(service, "drain timeout")


def test_readyz_says_draining_on_an_open_connection_and_new_ones_are_refused(make_stack):
    stack = make_stack(workers=1, settings=HANGS | {"DRAIN_TIMEOUT_S": 3})
    service, browser = stack.services[0], logged_in(stack, expires_in=30)
    path = service.listen.removeprefix("unix:")
    readyz = request(variables(SCRIPT_NAME="/readyz"))
    stack.spotify.hang()
    with traffic.background() as submit, Connection(path) as connection:
        connection.send(readyz)
        assert connection.reply().status == 200
        answer = submit(browser.token)
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call")
        service.signal(signal.SIGTERM)
        wait_until(lambda: log_has(service, "service ending"), 2, "the drain")
        time.sleep(0.1)
        connection.send(readyz)
        reply = connection.reply()
        assert reply.status == 503
        assert b'"process"' in reply.body
        with pytest.raises((ConnectionRefusedError, FileNotFoundError, ConnectionResetError)):
            ask(path, timeout_s=1)
        stack.spotify.release()
        assert answer.result().status_code == 200
        assert service.wait(5) == 0


def test_second_signal_changes_nothing(make_stack):
    stack = make_stack(settings=HANGS)
    service, browser = stack.services[0], logged_in(stack, expires_in=30)
    stack.spotify.behave("token", latency=0.6)
    with traffic.background() as submit:
        answer = submit(browser.token)
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call")
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            service.signal(number)
        assert answer.result().status_code == 200
        assert service.wait(5) == 0


def test_workers_that_have_just_started_end_at_once_too(make_service):
    for _ in range(5):
        service = make_service(WORKERS=4)
        service.signal(signal.SIGHUP)
        code, took = ended(service)
        assert code == 0
        assert took < 1
        assert not log_has(service, "worker killed")


# SIGHUP


@pytest.fixture
def keyed(make_stack, tmp_path):
    """A stack whose keys stand in a file: .keys is its path."""
    path = tmp_path / "keys"
    path.write_text(new_session_key("old") + "\n")
    stack = make_stack(settings={"SESSION_KEYS": None, "SESSION_KEYS_FILE": path})
    stack.keys = path
    return stack


def reload(service):
    """SIGHUP, and wait until new workers have taken over and the old ones have ended."""
    before = service.workers()
    service.signal(signal.SIGHUP)
    wait_until(lambda: len(service.workers()) == len(before) and
               not set(service.workers()) & set(before), 10, "new workers")


def test_sighup_opens_old_sessions_and_seals_new_ones_with_the_new_key(keyed):
    service, old_key, new_key = keyed.services[0], keyed.keys.read_text(), new_session_key("new")
    early = logged_in(keyed)
    keyed.keys.write_text(f"{new_key},{old_key}")
    reload(service)
    late = logged_in(keyed)
    assert early.token().status_code == late.token().status_code == 200
    keyed.keys.write_text(new_key)
    reload(service)
    assert late.token().status_code == 200
    assert early.session().status_code != 200 or not early.session().json()["authenticated"]


@pytest.mark.parametrize("broken", ["", "old:short", "two words"])
def test_sighup_with_a_broken_setting_is_refused_and_the_old_one_goes_on(keyed, broken):
    service, browser = keyed.services[0], logged_in(keyed)
    workers = service.workers()
    keyed.keys.write_text(broken)
    service.signal(signal.SIGHUP)
    wait_until(lambda: log_has(service, "reload refused"), 5, "the log line")
    problem, = log_has(service, "bad setting")
    assert problem["problem"].startswith("SESSION_KEYS:")
    assert browser.token().status_code == 200
    assert service.workers() == workers


def test_sighup_with_a_missing_file_is_refused(keyed):
    service, browser = keyed.services[0], logged_in(keyed)
    keyed.keys.unlink()
    service.signal(signal.SIGHUP)
    wait_until(lambda: log_has(service, "reload refused"), 5, "the log line")
    assert browser.token().status_code == 200


def test_sighup_under_load_gives_nobody_an_error(keyed):
    service, browser = keyed.services[0], logged_in(keyed)
    calls = [browser.session] * 3 + [browser.token] * 3 + [browser.refresh] * 3
    with traffic.steady(*calls) as answers:
        for _ in range(3):
            reload(service)
    assert len(answers) > 50
    assert {getattr(answer, "status_code", answer) for answer in answers} == {200}


def test_sighup_lets_old_workers_finish_requests_in_hand(make_stack):
    stack = make_stack()
    service, browser = stack.services[0], logged_in(stack, expires_in=30)
    stack.spotify.behave("token", latency=0.8)
    with traffic.background() as submit:
        answer = submit(browser.token)
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the call")
        reload(service)
        assert answer.result().status_code == 200


def test_sighup_takes_other_settings_over(make_stack, tmp_path):
    path = tmp_path / "level"
    path.write_text("error")
    stack = make_stack(settings={"LOG_LEVEL_FILE": path})
    service, browser = stack.services[0], Browser(stack)
    browser.session()
    assert not log_has(service, "request")
    path.write_text("info")
    reload(service)
    browser.session()
    assert log_has(service, "request", route="/session")


# SIGKILL


def test_sigkill_of_workers_at_any_moment_leaves_every_session_usable(make_stack):
    """The renewals begin 4 ms apart, so that the kills meet them in all their steps."""
    stack = make_stack(workers=2, settings={"UPSTREAM_TIMEOUT_MS": 500, "STORE_TIMEOUT_MS": 200})
    service = stack.services[0]
    browsers = [logged_in(stack, expires_in=30) for _ in range(32)]
    stack.spotify.behave("token", grant="refresh_token", latency=0.02, answer_delay=0.02,
                         rotation="new_keep_old")
    with traffic.background() as submit:
        for count, browser in enumerate(browsers):
            submit(browser.token)
            time.sleep(0.004)
            if count in (15, 31):
                os.kill(service.workers()[0], signal.SIGKILL)
    wait_until(lambda: len(service.workers()) == 2, 10, "the workers")
    for browser in browsers:
        assert browser.session().json()["authenticated"] is True
        assert browser.token().status_code == 200
    # A lease of who was killed has run out by then.
    wait_until(lambda: all(browser.token().json()["expires_in"] > 60 for browser in browsers), 20, "all are renewed")


def test_sigkill_of_all_processes_leaves_sessions_to_the_next_start(make_stack):
    stack = make_stack()
    browser = logged_in(stack)
    stack.services[0].kill()
    stack.services[0].start()
    assert browser.token().status_code == 200


# What it logs


def request_lines(stack, **members):
    return [line for service in stack.services for line in log_has(service, "request", **members)]


def test_log_line_of_a_request_has_every_member(stack, browser):
    browser.login()
    answer = browser.token()
    line, = request_lines(stack, request_id=answer.headers["X-Request-Id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert abs(when(line) - time.time()) < 10
    assert line["level"] == "info"
    assert (line["route"], line["method"], line["status"]) == ("/token", "GET", 200)
    assert 0 < line["redis_us"] <= line["us"]
    assert line["spotify_us"] == 0
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}", line["session"])
    assert line["session"] not in browser.cookie("spotify-session").value


def test_log_line_of_a_callback_says_what_spotify_took(stack, browser):
    stack.spotify.behave("token", latency=0.1)
    answer = browser.login()
    line, = request_lines(stack, request_id=answer.headers["X-Request-Id"])
    assert line["route"] == "/callback"
    assert 100_000 <= line["spotify_us"] <= line["us"]


def test_log_session_is_the_same_for_one_and_differs_between_two(stack):
    seen = []
    for browser in (logged_in(stack), logged_in(stack)):
        for call in (browser.session, browser.token):
            identifier = call().headers["X-Request-Id"]
            seen.append(request_lines(stack, request_id=identifier)[0]["session"])
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_log_route_of_an_unknown_path_shows_nothing_of_it(stack, browser):
    answer = browser.fetch("GET", "/some/where-secret?code=hidden")
    line, = request_lines(stack, request_id=answer.headers["X-Request-Id"])
    assert line["status"] == 404
    assert "hidden" not in str(line) and "where-secret" not in str(line)


class Unread(Service):
    """The program with a pipe as its stderr; .pipe is the end that nobody reads."""

    def launch(self, argv, env=None, cwd=None):
        self.pipe, write = os.pipe()
        # The shell opens the pipe for itself, so that its flags are those of nobody else.
        target = f"/proc/{os.getpid()}/fd/{write}"
        super().launch(["/bin/sh", "-c", 'exec "$@" 2>' + target, "sh", *argv], env, cwd)
        wait_until(lambda: self.standard_error() == os.readlink(f"/proc/self/fd/{write}"), 5, "exec")
        os.close(write)

    def standard_error(self):
        return os.readlink(f"/proc/{self.pid}/fd/2")

    def read_log(self):
        """What has come through the pipe since the last call, as objects."""
        os.set_blocking(self.pipe, False)
        text = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.pipe, 65536):
                text += part
        return [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]


def test_log_that_nobody_reads_holds_nobody_up(make_service):
    service = make_service(kind=Unread, WORKERS=2)
    with Connection(service.path) as connection:
        for _ in range(2000):
            connection.send(request(variables(SCRIPT_NAME="/session")))
            assert connection.reply().status == 403
    written = [line for line in service.read_log() if line.get("route") == "/session"]
    assert 50 < len(written) < 2000
    ask(service.path, variables(SCRIPT_NAME="/nothing"))
    worker = written[-1]["pid"]
    for _ in range(50):  # until the worker that dropped them is the one that is asked
        lines = [line for line in service.read_log() if line["pid"] == worker]
        if lines:
            break
        ask(service.path, variables(SCRIPT_NAME="/nothing"))
    assert (lines[0]["event"], lines[1]["event"]) == ("log lines dropped", "request")
    assert lines[0]["lines"] == 2000 - len(written)
    assert service.stop() == 0
    os.close(service.pipe)


def test_log_that_nobody_reads_holds_up_no_end(make_service):
    service = make_service(kind=Unread, WORKERS=2)
    with Connection(service.path) as connection:
        for _ in range(2000):
            connection.send(request(variables(SCRIPT_NAME="/session")))
            assert connection.reply().status == 403
    code, took = ended(service)
    assert (code, took < 5) == (0, True)
    os.close(service.pipe)


def test_log_lines_are_json_each(shared_stack):
    ours = [line for service in shared_stack.services for line in service.log_lines()]
    raw = [line["raw"] for line in ours if "raw" in line and not line["raw"].startswith("==")]
    assert [text for text in raw if text.strip()] == []
    assert all({"time", "level", "event"} <= set(line) for line in ours if "raw" not in line)


@pytest.mark.parametrize("level, shown", [
    ("error", {"error"}), ("warn", {"error", "warn"}), ("info", {"error", "warn", "info"}),
    ("debug", {"error", "warn", "info", "debug"})])
def test_log_level_is_honoured(make_service, level, shown):
    service = make_service(LOG_LEVEL=level, WORKERS=2)
    with Connection(service.path) as connection:
        connection.send(b"no FastCGI")
        with contextlib.suppress(Closed):
            connection.reply()
    ask(service.path, variables(SCRIPT_NAME="/session"))
    os.kill(service.workers()[0], signal.SIGKILL)
    wait_until(lambda: log_has(service, "worker ended"), 5, "the log line")
    levels = {line["level"] for line in service.log_lines() if "level" in line}
    assert levels <= shown
    assert {"error"} | (shown & {"info", "debug"}) <= levels
