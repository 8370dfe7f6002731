"""What Redis may answer, or not: on every route, and that the first request afterwards is good with the same cookie.
Where Redis itself can be brought to it, it is; a proxy answers in its place for the rest."""

import contextlib
import re
import socket
import threading
import time

import pytest
import redis as redis_client

import traffic
from browser import Browser
from phone import Phone
from redis_proxy import RedisProxy
from sessions import OWN_COOKIE, PREFIX, assert_unavailable, keys, log_events, log_in, log_in_with_key
from stack import TREE, Redis, Stack, wait_until
from terminal import Terminal, connect, open_page

USER, PASSWORD = "service", "hunter2-of-the-service"
JSON = {"Accept": "application/json"}


class OpenRedis(Redis):
    """A Redis of which a test may change everything."""

    options = ("--enable-protected-configs", "yes")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A stack before whose Redis stands a proxy; the service is a user of its own there."""
    directory = tmp_path_factory.mktemp("faulty")
    redis = OpenRedis(directory / "redis").start()
    redis.client().acl_setuser(USER, enabled=True, passwords=["+" + PASSWORD], keys=["*"], commands=["+@all"])
    proxy = RedisProxy(directory / "proxy.sock", redis.socket_path)
    url = f"unix://{USER}:{PASSWORD}@{proxy.path}"
    settings = {"REDIS_URL": url, "SWAP_REDIRECT_URIS": "my-app://callback", "DEVICE_LOGIN": "on"}
    with Stack(redis=redis, workers=2, settings=settings) as stack:
        stack.proxy = proxy
        stack.spotify.limits(secrets=1_000_000)
        yield stack
        assert PASSWORD not in stack.services[0].log_text()
    redis.stop()
    proxy.close()


# The faults


@contextlib.contextmanager
def config(stack, **values):
    client = stack.redis.client()
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: client.config_get(name)[name] for name in names}
    for name, value in names.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def full(stack):
    return config(stack, maxmemory_policy="noeviction", maxmemory=1)


def without_replicas(stack):
    return config(stack, min_replicas_to_write=1)


@contextlib.contextmanager
def replica(stack):
    client = stack.redis.client()
    client.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextlib.contextmanager
def replica_without_master(stack):
    with config(stack, replica_serve_stale_data="no"), replica(stack):
        yield


@contextlib.contextmanager
def with_a_broken_disk(stack):
    client = stack.redis.client()

    def save(status):
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0 and
                   client.info("persistence")["rdb_last_bgsave_status"] == status, 10, "the snapshot")
    with config(stack, save="3600 1"):
        with config(stack, dir="/proc"):
            save("err")
            yield
        save("ok")


@contextlib.contextmanager
def user(stack, *changes):
    """The service's user is changed; its connections are ended, as an operator would."""
    client = stack.redis.client()
    client.execute_command("ACL", "SETUSER", USER, *changes)
    client.execute_command("CLIENT", "KILL", "USER", USER)
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", USER, "on", "resetpass", ">" + PASSWORD, "+@all")


def with_another_password(stack):
    return user(stack, "resetpass", ">another")


def with_the_user_off(stack):
    return user(stack, "off")


def that_allows_nothing(stack):
    return user(stack, "-@all")


@contextlib.contextmanager
def running(stack, command, error, wake=None):
    """A command of somebody else's that holds Redis up until wake(); error is what others hear."""

    def run():
        with contextlib.suppress(redis_client.RedisError):
            command()

    def hears_it():
        try:
            stack.redis.client().get("x")
        except redis_client.RedisError as said:
            return error in f"{type(said).__name__} {said}"
        return False
    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(hears_it, 10, error)
        yield
    finally:
        if wake:
            wake()
        thread.join()


@contextlib.contextmanager
def with_a_long_script(stack):
    client = stack.redis.client()
    with config(stack, busy_reply_threshold=1):
        with running(stack, lambda: client.eval("while true do end", 0), "script",
                     stack.redis.client().script_kill):
            yield


@contextlib.contextmanager
def loading(stack):
    """DEBUG RELOAD reads everything anew, with a pause at each key; it needs a while of them."""
    client = stack.redis.client()
    client.mset({f"filler:{number}": "x" * 4096 for number in range(400)})
    reader = redis_client.Redis(unix_socket_path=str(stack.redis.socket_path), socket_timeout=60)
    with config(stack, key_load_delay=10000, loading_process_events_interval_bytes=1024):
        with running(stack, lambda: reader.execute_command("DEBUG", "RELOAD"), "BusyLoadingError"):
            yield
    client.delete(*client.keys("filler:*"))


@contextlib.contextmanager
def paused(stack):
    """CLIENT PAUSE holds back the client that would end it, too."""
    client = stack.redis.client()
    client.execute_command("CLIENT", "PAUSE", "3000", "ALL")
    yield
    client.ping()


@contextlib.contextmanager
def stopped(stack):
    stack.redis.pause()
    try:
        yield
    finally:
        stack.redis.cont()


@contextlib.contextmanager
def answering(stack, reply, hang_up=False, delay_s=0, resets=False):
    stack.proxy.reply, stack.proxy.hang_up, stack.proxy.delay_s = reply, hang_up, delay_s
    try:
        yield
    finally:
        stack.proxy.reply, stack.proxy.hang_up, stack.proxy.delay_s = None, False, 0
        wait_until(lambda: not stack.proxy.held, 5, "what is on its way")
        if resets:  # nothing good can follow on the same connection
            stack.proxy.end_all(refuse=False)
            wait_until(lambda: not stack.proxy.open, 5, "the end of all connections")
            time.sleep(0.05)  # until the workers have seen it


def says(text, **how):
    return lambda stack: answering(stack, None if text is None else text.encode(), **how)


# fault: what /readyz says of it
UNKNOWN = {
    "stopped": (stopped, "slow"),
    "paused": (paused, "slow"),
    "late": (says(None, delay_s=0.8), "slow"),
    "loading": (loading, "loading"),
    "a long script": (with_a_long_script, "busy"),
    "a replica without its master": (replica_without_master, "masterdown"),
    "another password": (with_another_password, "auth"),
    "user off": (with_the_user_off, "auth"),
    "no permission": (that_allows_nothing, "auth"),
    "LOADING": (says("-LOADING Redis is loading the dataset in memory\r\n"), "loading"),
    "NOAUTH": (says("-NOAUTH Authentication required.\r\n"), "auth"),
    "CLUSTERDOWN": (says("-CLUSTERDOWN The cluster is down\r\n"), "clusterdown"),
    "TRYAGAIN": (says("-TRYAGAIN Multiple keys request during rehashing of slot\r\n"), "cluster"),
    "MOVED": (says("-MOVED 3999 127.0.0.1:6381\r\n"), "cluster"),
    "a script of Redis 6": (says("-ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
                                 "-READONLY You can't write against a read only replica.\r\n"), "readonly"),
    "unknown error": (says("-ERR something else\r\n"), "refused"),
    "an error without a text": (says("-\r\n"), "refused"),
    "HTTP": (says("HTTP/1.1 400 Bad Request\r\n\r\n"), "garbled"),
    "half an answer, then silence": (says("$100\r\nab", resets=True), "slow"),
    "half an answer, then the end": (says("$100\r\nab", hang_up=True), "unreachable"),
    "nothing but the end": (says("", hang_up=True), "unreachable"),
    "two answers": (says("-ERR one\r\n+OK\r\n"), None),
}
READS_ONLY = {
    "full": (full, "oom"),
    "a replica": (replica, "readonly"),
    "without replicas": (without_replicas, "noreplicas"),
    "a broken disk": (with_a_broken_disk, "misconf"),
}


class People:
    """Browsers at all stages: with a valid token, with one that has run out, and on the way back from Spotify."""

    def __init__(self, stack):
        stack.spotify.behave("token", grant="refresh_token", expires_in=1)
        self.valid, self.expired, self.stranger = log_in(stack), log_in(stack, expires_in=1), Browser(stack)
        self.cookies = [browser.cookie(OWN_COOKIE).value for browser in (self.valid, self.expired)]
        self.stack = stack

    def prepare(self):
        self.leaving, self.coming = log_in(self.stack), Browser(self.stack)
        self.url = self.coming.approve(self.coming.authorize().headers["Location"])
        wait_until(lambda: self.expired.session().json()["expires_in"] == 0, 5, "the token's end")
        return self

    def reads(self):
        return [self.valid.session, self.valid.token, self.valid.refresh]

    def writes(self):
        return [self.expired.token, lambda: self.stranger.authorize(headers=JSON),
                lambda: self.coming.callback(self.url, headers=JSON)]

    def check_all_is_well(self):
        """Right now, without a second try."""
        for call in self.reads() + [self.expired.token]:
            assert call().status_code == 200
        assert self.stranger.authorize().status_code == 302
        assert self.coming.callback(self.url).status_code == 303
        assert self.coming.token().status_code == 200
        assert self.leaving.logout().status_code == 204
        assert self.cookies == [browser.cookie(OWN_COOKIE).value for browser in (self.valid, self.expired)]


@pytest.fixture(scope="module")
def same_people(faulty):
    return People(faulty)


@pytest.fixture
def people(faulty, same_people):
    wait_until(faulty.services[0].ready, 10, "readiness")
    return same_people.prepare()


def together(calls):
    with traffic.background() as submit:
        return [future.result() for future in [submit(call) for call in calls]]


def assert_readyz(stack, word):
    status, body = stack.nginx.admin("/readyz")
    assert status == 503
    if word:
        assert f'"reasons":{{"redis":"{word}"}}' in body


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_is_503_on_every_route_and_the_first_request_afterwards_is_good(faulty, people, name):
    fault, word = UNKNOWN[name]
    with fault(faulty):
        for answer in together(people.reads() + people.writes() + [people.leaving.logout]):
            assert_unavailable(answer)
        assert_readyz(faulty, word)
    people.check_all_is_well()


@pytest.mark.parametrize("name", READS_ONLY)
def test_redis_that_takes_no_writes_refuses_what_needs_them_and_loses_nothing(faulty, people, name):
    fault, word = READS_ONLY[name]
    with fault(faulty):
        for answer in together(people.writes()):
            assert_unavailable(answer)
        for answer in [call() for call in people.reads()]:
            if answer.status_code != 200:  # on the connection that was left for a better one
                assert_unavailable(answer)
        if name != "full":  # which lets go of what it has
            assert_unavailable(people.leaving.logout())
        assert_readyz(faulty, word)
    people.check_all_is_well()


def test_killed_redis_is_503_on_every_route_and_the_first_request_afterwards_is_good(faulty, people):
    faulty.redis.kill()
    for answer in together(people.reads() + people.writes() + [people.leaving.logout]):
        assert_unavailable(answer)
    assert_readyz(faulty, "unreachable")
    faulty.redis.start()
    faulty.redis.client().acl_setuser(USER, enabled=True, passwords=["+" + PASSWORD], keys=["*"], commands=["+@all"])
    people.check_all_is_well()


class ClusterNode(Redis):
    options = ("--cluster-enabled", "yes")


def test_node_of_a_cluster_that_does_not_stand_is_503_until_it_does(make_stack, tmp_path):
    redis = ClusterNode(tmp_path).start()
    try:
        stack = make_stack(redis=redis, start_ready=False)
        assert_unavailable(Browser(stack).authorize(headers=JSON))
        assert_readyz(stack, "clusterdown")
        redis.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(stack.services[0].ready, 10, "readiness")
        assert log_in(stack).token().status_code == 200
    finally:
        redis.stop()


def test_forgotten_scripts_are_not_noticed(faulty, people):
    faulty.redis.client().script_flush()
    people.check_all_is_well()


@pytest.mark.parametrize("reply", ["$-1\r\n", ":7\r\n", "+OK\r\n", "*0\r\n", "*1\r\n$5\r\nnever\r\n", "$2\r\nno\r\n"],
                         ids=["nil", "number", "status", "empty", "list", "text"])
def test_answers_of_another_kind_say_nothing_of_a_session(faulty, people, reply):
    with answering(faulty, reply.encode()):
        for answer in together(people.reads() + [people.expired.token, people.writes()[2]]):
            assert_unavailable(answer)
    people.check_all_is_well()


@pytest.mark.parametrize("script", ["return false", "return 7", "return redis.status_reply('OK')", "return {}",
                                    "return {'never'}", "return {'newer'}", "return 'no'"])
def test_scripts_that_answer_something_else_say_nothing_of_a_session(faulty, people, script):
    ended, key = log_in_with_key(faulty)
    faulty.redis.client().delete(key)
    faulty.proxy.script = script
    try:
        for call in (people.expired.token, ended.session, ended.token, *people.writes()[1:]):
            assert_unavailable(call())
    finally:
        faulty.proxy.script = None
    assert_absent(ended)
    people.check_all_is_well()


def test_answer_that_comes_too_late_is_nobody_elses(faulty, people):
    """The connection goes with the command that got no answer in time."""
    others = [log_in(faulty, user) for user in ("bob", "cy")]
    with answering(faulty, None, delay_s=0.7):
        for answer in together([browser.session for browser in (people.valid, *others)] * 3):
            assert_unavailable(answer)
    names = [[browser.session().json()["user"]["id"] for browser in (people.valid, *others)] for _ in range(10)]
    assert all(found == ["ada", "bob", "cy"] for found in names), names


# What is absent, and what does not open


def assert_absent(browser):
    answer = browser.token()
    assert answer.status_code == 401
    assert answer.json()["error"] == "login_required"
    assert "Max-Age=0" in answer.headers["Set-Cookie"]


def test_evicted_sessions_are_absent(faulty):
    browser = log_in(faulty)
    client = faulty.redis.client()
    with config(faulty, maxmemory_policy="allkeys-lru", maxmemory=1):
        wait_until(lambda: not keys(faulty, "session"), 10, "the eviction")
        client.config_set("maxmemory", 0)
        assert_absent(browser)


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 300], ids=["empty", "short", "long"])
def test_blob_that_does_not_open_is_503_and_keeps_the_cookie(faulty, value):
    browser, key = log_in_with_key(faulty)
    client = faulty.redis.client()
    kept, left_ms = client.dump(key), client.pttl(key)
    client.set(key, value, keepttl=True)
    for call in (browser.session, browser.token, browser.refresh):
        assert_unavailable(call())
    client.restore(key, left_ms, kept, replace=True)
    assert browser.token().status_code == 200


def test_key_of_another_kind_is_503_and_keeps_the_cookie(faulty):
    browser, key = log_in_with_key(faulty)
    client = faulty.redis.client()
    kept, left_ms = client.dump(key), client.pttl(key)
    client.delete(key)
    client.rpush(key, "x")
    for call in (browser.session, browser.token, browser.refresh):
        assert_unavailable(call())
    client.restore(key, left_ms, kept, replace=True)
    assert browser.token().status_code == 200


@pytest.mark.parametrize("field", ["login", "return"])
def test_login_that_does_not_open_sets_no_cookie_and_calls_nobody(faulty, field):
    browser = log_in(faulty)
    before = keys(faulty, "login")
    url = browser.approve(browser.authorize().headers["Location"])
    key, = keys(faulty, "login") - before
    faulty.redis.client().hset(key, field, b"x" * 100)
    calls = faulty.spotify.calls(grant="authorization_code")
    answer = browser.callback(url, headers=JSON)
    if field == "login":
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_state")
        assert "Set-Cookie" not in answer.headers
        assert faulty.spotify.calls(grant="authorization_code") == calls
    else:
        assert answer.status_code == 303
    assert browser.token().status_code == 200


# What the service may need of Redis


def test_commands_that_the_readme_names_are_enough(faulty):
    readme = (TREE / "README.md").read_text()
    named, = re.findall(r"and the\s+commands `([A-Z |\s]+)`", readme)
    with user(faulty, "-@all", *(f"+{name.lower()}" for name in named.split()), "resetkeys", f"~{PREFIX}*"):
        faulty.redis.client().script_flush()
        faulty.redis.client().acl_log_reset()
        wait_until(lambda: faulty.nginx.admin("/readyz")[0] == 200, 5, "readiness")
        browser, other = log_in(faulty), log_in(faulty, expires_in=1)
        for call in (browser.session, browser.token, browser.refresh, other.token, lambda: browser.fetch("GET", "/sessions")):
            assert call().status_code == 200
        assert Phone(faulty).log_in().refresh().status_code == 200
        terminal = Terminal(faulty).begin()
        assert open_page(browser, "BCDF-GHJK").status_code == terminal.poll().status_code == 400
        connect(browser, terminal)
        assert terminal.poll().status_code == 200
        assert log_in(faulty).logout().status_code == browser.logout(all=True).status_code == 204
        assert browser.token().status_code == 401
    faulty.redis.client().execute_command("ACL", "SETUSER", USER, "allkeys")
    refused = {entry["object"].partition("|")[0] for entry in faulty.redis.client().acl_log()}
    assert refused <= {"info", "config"}  # which the warnings of /readyz do without


# What the log says


def refusals(stack, word):
    return [line for line in stack.services[0].log_lines()
            if line.get("event") == "redis refused" and line.get("error") == word]


def test_wrong_password_is_logged_plainly_and_not_over_and_over(faulty):
    before = len(refusals(faulty, "WRONGPASS"))
    with with_another_password(faulty):
        browser = Browser(faulty)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert_unavailable(browser.authorize(headers=JSON))
    lines = refusals(faulty, "WRONGPASS")
    assert lines[-1]["level"] == "error" and "password in REDIS_URL" in lines[-1]["meaning"]
    assert len(lines) - before <= 2  # one of each worker
    assert PASSWORD not in faulty.services[0].log_text()


@pytest.mark.parametrize("url", ["redis+cluster://localhost:{}", "redis+sentinel://localhost:{}/name"])
def test_a_redis_of_another_kind_than_in_its_url_is_logged_as_such(make_stack, url):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def chat():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    while peer.recv(4096):
                        peer.sendall(b"-ERR foreign-text\r\n")
        threading.Thread(target=chat, daemon=True).start()
        stack = make_stack(services=1, workers=1, start_ready=False,
                           settings={"REDIS_URL": url.format(server.getsockname()[1])})
        assert_unavailable(Browser(stack).authorize(headers=JSON))
        line, = log_events(stack.services[0], "redis refused")
        assert "is it what REDIS_URL says" in line["meaning"]


def test_log_shows_no_foreign_text(faulty):
    with answering(faulty, b"-ERR foreign-text in here\r\n"):
        for _ in range(3):
            faulty.nginx.admin("/readyz")
            assert "foreign-text" not in faulty.nginx.admin("/readyz")[1]
    assert "foreign-text" not in faulty.services[0].log_text()
