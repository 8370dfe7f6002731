"""/readyz beyond yes and no: warnings of a Redis that may lose sessions although it answers."""

import json

import pytest

from fastcgi import ask, variables
from stack import Redis, Service, new_session_key, wait_until

EVICTS, FORGETS = "redis_evicts", "redis_forgets"


class Forgetful(Redis):
    options = ("--appendonly", "no")


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    redis = Redis(tmp_path_factory.mktemp("redis")).start()
    yield redis
    redis.stop()


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    redis = Forgetful(tmp_path_factory.mktemp("redis")).start()
    yield redis
    redis.stop()


@pytest.fixture
def start(tmp_path):
    """A service on that Redis, which looks at it as it starts."""
    services = []

    def start(redis, user=""):
        service = Service({
            "SPOTIFY_CLIENT_ID": "readyz", "SPOTIFY_CLIENT_SECRET": "secret-of-readyz",
            "SPOTIFY_REDIRECT_URI": "http://127.0.0.1:8080/auth/callback",
            "REDIS_URL": f"unix://{user}{redis.socket_path}", "SESSION_KEYS": new_session_key(),
            "LISTEN": f"unix:{tmp_path}/s", "WORKERS": 2}, tmp_path / "log")
        services.append(service)
        return service.start()
    yield start
    for service in services:
        assert service.stop() == 0


def readyz(service):
    reply = ask(service.listen.removeprefix("unix:"), variables(SCRIPT_NAME="/readyz"))
    return reply.status, json.loads(reply.body)


def warnings(service):
    """Their words; none of them makes the service less ready."""
    status, body = readyz(service)
    assert status == 200 and body["ready"] is True and body["reasons"] == {}
    assert all(warning["description"].endswith(".") for warning in body["warnings"])
    return [warning["warning"] for warning in body["warnings"]]


def logged(service):
    return [line for line in service.log_lines() if line.get("event") == "redis may lose sessions"]


def test_redis_as_make_run_starts_it_gives_no_warning(start, keeping):
    service = start(keeping)
    assert warnings(service) == []
    assert logged(service) == []


@pytest.mark.parametrize("maxmemory, policy, expected", [
    ("100mb", "noeviction", []), ("0", "allkeys-lru", []), ("100mb", "allkeys-lru", [EVICTS]),
    ("100mb", "allkeys-random", [EVICTS]), ("100mb", "volatile-lru", [EVICTS]), ("100mb", "volatile-ttl", [EVICTS])])
def test_redis_that_may_evict_sessions_gives_a_warning(start, keeping, maxmemory, policy, expected):
    client = keeping.client()
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", maxmemory)
    assert warnings(start(keeping)) == expected
    client.config_set("maxmemory", "0")


@pytest.mark.parametrize("save, expected", [("", [FORGETS]), ("3600 1", [])])
def test_redis_that_writes_nothing_down_gives_a_warning(start, forgetful, save, expected):
    forgetful.client().config_set("save", save)
    assert warnings(start(forgetful)) == expected


def test_warning_is_logged_once_by_each_worker(start, forgetful):
    forgetful.client().config_set("save", "")
    service = start(forgetful)
    wait_until(lambda: len(logged(service)) == 2, 5, "a line of each worker")
    for _ in range(50):
        assert warnings(service) == [FORGETS]
    lines = logged(service)
    assert len({line["pid"] for line in lines}) == len(lines) == 2
    assert {line["level"] for line in lines} == {"warn"}


@pytest.mark.parametrize("denied", [["-info", "-config"], ["-info"], ["-config"]], ids=" ".join)
def test_redis_that_does_not_say_gives_no_warning_and_no_error(start, forgetful, denied):
    client = forgetful.client()
    client.config_set("save", "")
    client.execute_command("ACL", "SETUSER", "quiet", "reset", "on", ">quietly", "~*", "+@all", *denied)
    service = start(forgetful, user="quiet:quietly@")
    for _ in range(5):
        assert warnings(service) == []
    assert not [line for line in service.log_lines() if line.get("level") in ("error", "warn")]


def test_health_checks_do_not_ask_redis_for_its_settings_each_time(start, keeping):
    client = keeping.client()
    service = start(keeping)
    for _ in range(20):
        readyz(service)
    client.config_resetstat()
    for _ in range(20):
        readyz(service)
    calls = client.info("commandstats")
    assert "cmdstat_config|get" not in calls
    assert calls.get("cmdstat_info", {"calls": 0})["calls"] == 0


def test_readyz_leaves_nothing_in_redis(start, keeping):
    service = start(keeping)
    for _ in range(5):
        readyz(service)
    assert keeping.client().keys("*ping*") == []
