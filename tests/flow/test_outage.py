"""Redis or Spotify slow, full, dead or back again: who does not need it is not slowed, who does
gets a 503 in time, and no session is lost."""

import contextlib
import socket
import threading
import time

import pytest
import redis as redis_client

import traffic
from browser import Browser
from fastcgi import ask, variables
from stack import Redis, Service, find_program, new_session_key, reserve_port, wait_until

STORE_TIMEOUT_S = 0.5
MARGIN_S = 0.7  # for a machine that is busy and a program that is slowed by its sanitizers


def logged_in(stack, expires_in=None, user="ada"):
    stack.spotify.behave("token", grant="authorization_code", expires_in=expires_in)
    browser = Browser(stack)
    assert browser.login(user).status_code == 303
    return browser


def assert_unavailable(answer):
    assert answer.status_code == 503
    assert answer.json()["error"] == "temporarily_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in answer.headers


def log_has(stack, event, **members):
    return [line for service in stack.services for line in service.log_lines()
            if line.get("event") == event and
            all(line.get(name) == value for name, value in members.items())]


# Spotify


def slowest(call, count=30):
    times = []
    for _ in range(count):
        answer, took = traffic.seconds(call)
        assert answer.status_code == 200
        times.append(took)
    return max(times)


def test_hanging_spotify_slows_no_request_that_does_not_need_it(stack):
    valid = logged_in(stack, expires_in=3600)
    expired = [logged_in(stack, expires_in=30) for _ in range(40)]
    stack.spotify.hang()
    with traffic.background() as submit:
        answers = [submit(browser.token) for browser in expired]
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 40, 10, "40 calls")
        try:
            for call in (valid.session, valid.token, expired[0].session,
                         lambda: valid.navigate("/")):
                assert slowest(call) < 0.3
            assert valid.authorize().status_code == 302
        finally:
            stack.spotify.release()
        assert {answer.result().status_code for answer in answers} == {200}


def test_hanging_spotify_holds_up_only_callbacks(stack):
    valid, browser = logged_in(stack, expires_in=3600), Browser(stack)
    url = browser.approve(browser.authorize().headers["Location"])
    stack.spotify.hang()
    with traffic.background() as submit:
        answer = submit(browser.callback, url)
        wait_until(lambda: stack.spotify.counters()["hanging"], 5, "the call")
        try:
            assert slowest(valid.session) < 0.3
        finally:
            stack.spotify.release()
        assert answer.result().status_code == 303


def test_more_calls_than_upstream_max_in_flight_get_503_at_once(make_stack):
    stack = make_stack(workers=1, settings={"UPSTREAM_MAX_IN_FLIGHT": 2})
    browsers = [logged_in(stack, expires_in=1) for _ in range(3)]
    wait_until(lambda: browsers[2].session().json()["expires_in"] == 0, 3, "the tokens' end")
    stack.spotify.hang()
    with traffic.background() as submit:
        answers = [submit(browser.token) for browser in browsers[:2]]
        wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 2, 5, "two calls")
        try:
            answer, took = traffic.seconds(browsers[2].token)
        finally:
            stack.spotify.release()
        assert_unavailable(answer)
        assert took < 1
        assert {answer.result().status_code for answer in answers} == {200}
    wait_until(lambda: browsers[2].token().status_code == 200, 5, "the third renewal")


def test_59_hanging_spotify_is_given_up_in_time_and_the_session_stays(make_stack):
    stack = make_stack(settings={"UPSTREAM_TIMEOUT_MS": 500})
    browser = logged_in(stack, expires_in=1)
    wait_until(lambda: browser.session().json()["expires_in"] == 0, 3, "the token's end")
    stack.spotify.hang()
    answer, took = traffic.seconds(browser.token)
    assert_unavailable(answer)
    assert 0.4 < took < 0.5 + MARGIN_S
    stack.spotify.release()
    wait_until(lambda: browser.token().status_code == 200, 5, "recovery")


@pytest.mark.parametrize("mode", ["refused", "silent"])
def test_dead_spotify_ends_a_login_with_temporarily_unavailable(make_stack, mode):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        if mode == "silent":
            dead.listen()
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        stack = make_stack(settings={"SPOTIFY_ACCOUNTS_URL": url, "UPSTREAM_TIMEOUT_MS": 400,
                                     "UPSTREAM_CONNECT_TIMEOUT_MS": 300})
        browser = Browser(stack)
        location = browser.authorize().headers["Location"]
        callback = browser.approve(location.replace(url, stack.spotify.url))
        answer, took = traffic.seconds(lambda: browser.callback(callback))
    assert answer.status_code == 303
    assert "error=temporarily_unavailable" in answer.headers["Location"]
    assert took < 0.4 + MARGIN_S
    assert browser.session().json()["authenticated"] is False


# Redis away


@pytest.fixture
def own(make_stack):
    """A stack whose Redis the test may hurt, with somebody logged in."""
    stack = make_stack(workers=2, settings={"STORE_TIMEOUT_MS": int(STORE_TIMEOUT_S * 1000)})
    stack.browser = logged_in(stack)
    return stack


def test_stopped_redis_is_503_in_time_and_the_first_request_after_is_good(own):
    own.redis.pause()
    try:
        for call in (own.browser.session, own.browser.token, own.browser.refresh,
                     lambda: own.browser.authorize(headers={"Accept": "application/json"})):
            answer, took = traffic.seconds(call)
            assert_unavailable(answer)
            assert took < STORE_TIMEOUT_S + MARGIN_S
    finally:
        own.redis.cont()
    time.sleep(0.1)
    assert own.browser.token().status_code == 200


def test_stopped_redis_holds_up_nobody_twice(own):
    """Requests that come while Redis is silent wait at the same time, not one after another."""
    own.redis.pause()
    try:
        answers, took = traffic.seconds(lambda: traffic.times(30, own.browser.session))
    finally:
        own.redis.cont()
    assert {answer.status_code for answer in answers} == {503}
    assert took < STORE_TIMEOUT_S + 2 * MARGIN_S


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_redis_that_ends_and_starts_is_found_again_with_every_session(own, way):
    getattr(own.redis, way)()
    for call in (own.browser.session, own.browser.token):
        answer, took = traffic.seconds(call)
        assert_unavailable(answer)
        assert took < MARGIN_S
    own.redis.start()
    time.sleep(0.1)
    assert own.browser.session().json()["authenticated"] is True
    assert own.browser.token().status_code == 200
    assert log_has(own, "redis lost") and log_has(own, "redis connected")


def test_redis_restarted_between_two_requests_is_not_noticed(own):
    own.redis.restart()
    time.sleep(0.1)
    assert own.browser.token().status_code == 200


def test_14_login_without_redis_is_503_and_goes_not_to_spotify(own):
    own.redis.kill()
    answer = own.browser.authorize()
    assert answer.status_code == 503
    assert "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")


def test_callback_without_redis_is_503_and_good_afterwards(own):
    browser = Browser(own)
    url = browser.approve(browser.authorize().headers["Location"])
    own.redis.kill()
    assert browser.callback(url).status_code == 503
    assert own.spotify.calls(grant="authorization_code") == 1
    own.redis.start()
    time.sleep(0.1)
    assert browser.callback(url).status_code == 303
    assert browser.session().json()["authenticated"] is True


def test_start_before_redis_serves_when_redis_comes(make_stack, tmp_path):
    stack = make_stack()
    service = stack.services[0]
    service.stop()
    stack.redis.stop()
    service.start(ready=False)
    assert_unavailable(Browser(stack).authorize(headers={"Accept": "application/json"}))
    stack.redis.start()
    wait_until(service.ready, 5, "readiness")
    assert logged_in(stack).token().status_code == 200


def test_readyz_names_redis_and_healthz_stays_good(own):
    assert own.nginx.admin("/readyz")[0] == 200
    own.redis.kill()
    status, body = own.nginx.admin("/readyz")
    assert status == 503
    assert '"reasons":{"redis":' in body
    assert own.nginx.admin("/healthz")[0] == 200
    own.redis.start()
    wait_until(lambda: own.nginx.admin("/readyz")[0] == 200, 3, "readiness")


# Redis that answers something else


def test_script_flush_is_not_noticed(own):
    with own.redis.client() as client:
        client.script_flush()
    assert own.browser.token().status_code == 200
    assert logged_in(own).token().status_code == 200


def test_full_redis_refuses_logins_and_loses_no_session(own):
    with own.redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        answer = Browser(own).authorize(headers={"Accept": "application/json"})
        assert_unavailable(answer)
        assert own.browser.session().status_code in (200, 503)
        assert log_has(own, "redis error") or "OOM" in own.services[0].log_text()
        client.config_set("maxmemory", "0")
    assert own.browser.token().status_code == 200
    assert logged_in(own).token().status_code == 200


def test_full_redis_hands_a_renewed_token_out_and_keeps_it(make_stack):
    stack = make_stack(workers=1)
    browser = logged_in(stack, expires_in=30)
    stack.spotify.behave("token", grant="refresh_token", rotation="new")
    with stack.redis.client() as client:
        client.config_set("maxmemory", "1")
        browser.token()
        client.config_set("maxmemory", "0")
    wait_until(lambda: (answer := browser.token()).status_code == 200 and
               answer.json()["expires_in"] > 60, 5, "the renewed token")


def test_read_only_redis_is_503_until_it_is_master_again(own):
    with own.redis.client() as client:
        client.replicaof("127.0.0.1", 1)
        assert_unavailable(Browser(own).authorize(headers={"Accept": "application/json"}))
        client.replicaof("NO", "ONE")
    time.sleep(0.1)
    assert logged_in(own).token().status_code == 200
    assert own.browser.token().status_code == 200


def test_59_empty_replica_is_503_and_ends_no_session(own):
    """Failover to a replica that has not caught up: what it does not have may be on the way."""
    cookie = own.browser.cookie("spotify-session").value
    with own.redis.client() as client:
        kept = {key: (client.dump(key), max(0, client.pttl(key))) for key in client.scan_iter()}
        client.flushall()
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        # First, while the connections that find it out have not been closed for it.
        assert own.nginx.admin("/readyz")[0] == 503
        for call in (own.browser.session, own.browser.token, own.browser.refresh,
                     own.browser.logout):
            assert_unavailable(call())
        client.execute_command("REPLICAOF", "NO", "ONE")
        for key, (value, ttl_ms) in kept.items():
            client.restore(key, ttl_ms, value)
    wait_until(lambda: own.nginx.admin("/readyz")[0] == 200, 3, "readiness")
    assert own.browser.cookie("spotify-session").value == cookie
    assert own.browser.session().json()["authenticated"] is True
    assert own.browser.token().status_code == 200
    assert logged_in(own).token().status_code == 200


# Redis over TCP, with a password and a database


class TcpRedis(Redis):
    def __init__(self, directory, password):
        super().__init__(directory)
        self.password = password
        with reserve_port() as holder:
            self.port = holder.getsockname()[1]

    def start(self):
        self.launch([find_program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1",
                     "--dir", self.directory, "--save", "", "--requirepass", self.password])
        self.wait_ready(self.answers)
        return self

    def client(self, database=0):
        return redis_client.Redis(port=self.port, password=self.password, db=database,
                                  socket_timeout=5)


@pytest.fixture(scope="module")
def tcp_redis(tmp_path_factory):
    server = TcpRedis(tmp_path_factory.mktemp("tcp-redis"), "hunter2hunter2hunter2")
    yield server.start()
    server.stop()


def test_redis_over_tcp_with_password_and_database(make_stack, tcp_redis):
    url = f"redis://:{tcp_redis.password}@127.0.0.1:{tcp_redis.port}/3"
    stack = make_stack(redis=tcp_redis, settings={"REDIS_URL": url})
    assert logged_in(stack).token().status_code == 200
    keys = {number: tcp_redis.client(number).keys() for number in (0, 3)}
    assert keys[0] == []
    assert keys[3] and all(key.startswith(b"spotify-auth:") for key in keys[3])


def test_redis_with_a_user_and_a_name_as_host(make_stack, tcp_redis):
    tcp_redis.client().acl_setuser("singer", enabled=True, passwords=["+song"], keys=["music:*"],
                                   commands=["+@all"])
    stack = make_stack(redis=tcp_redis, settings={
        "REDIS_URL": f"redis://singer:song@localhost:{tcp_redis.port}/0", "REDIS_PREFIX": "music:"})
    assert logged_in(stack).token().status_code == 200
    assert all(key.startswith(b"music:") for key in tcp_redis.client().keys())


@pytest.mark.parametrize("where", [":wrongwrong1@127.0.0.1", "127.0.0.1", "nobody:x@127.0.0.1"])
def test_wrong_redis_password_is_503_and_said_in_the_log(make_stack, tcp_redis, where):
    url = f"redis://{where}:{tcp_redis.port}/0"
    stack = make_stack(redis=tcp_redis, settings={"REDIS_URL": url}, start_ready=False)
    assert_unavailable(Browser(stack).authorize(headers={"Accept": "application/json"}))
    log = stack.services[0].log_text()
    assert "WRONGPASS" in log or "NOAUTH" in log or "login refused" in log
    assert "wrongwrong1" not in log and tcp_redis.password not in log


# What is slow


class Delay:
    """A unix socket before Redis that holds every answer back for some seconds."""

    def __init__(self, path, target, seconds):
        self.target, self.seconds = str(target), seconds
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                for ends, wait in (((near, far), 0), ((far, near), self.seconds)):
                    threading.Thread(target=self._copy, args=(*ends, wait), daemon=True).start()

    @staticmethod
    def _copy(source, target, wait):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(wait)
                target.sendall(data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.mark.parametrize("delay_s, status", [(0.1, 200), (0.8, 503)])
def test_slow_redis_is_waited_for_until_the_store_timeout(tmp_path, delay_s, status):
    redis = Redis(tmp_path / "redis").start()
    slow = Delay(tmp_path / "slow.sock", redis.socket_path, delay_s)
    service = Service({
        "SPOTIFY_CLIENT_ID": "outage", "SPOTIFY_CLIENT_SECRET": "secret-of-outage",
        "SPOTIFY_REDIRECT_URI": "http://127.0.0.1:8080/auth/callback",
        "REDIS_URL": f"unix://{tmp_path}/slow.sock", "SESSION_KEYS": new_session_key(),
        "LISTEN": f"unix:{tmp_path}/s", "WORKERS": 1}, tmp_path / "log")
    try:
        service.start(ready=False)
        reply, took = traffic.seconds(
            lambda: ask(tmp_path / "s", variables(SCRIPT_NAME="/readyz")))
        assert reply.status == status
        assert min(delay_s, STORE_TIMEOUT_S) - 0.02 < took < STORE_TIMEOUT_S + MARGIN_S
        assert service.stop() == 0
    finally:
        service.end_now()
        slow.close()
        redis.stop()
