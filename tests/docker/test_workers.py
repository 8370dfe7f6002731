"""Workers come and go behind one nginx while people use the service."""

import base64

import pytest

import traffic
from conftest import docker, inspect, log_in, wait_until

ADDRESSES = 600


@pytest.fixture(scope="module")
def requests(deployment):
    """(what load sends, {path: the one status it is to get}), from so many addresses that nginx's limits are far."""
    browser = log_in(deployment, deployment.spotify, deployment.accounts)
    cookie = browser.cookie("spotify-session")
    called = {"Cookie": f"{cookie.name}={cookie.value}", "X-Requested-With": "x", "Sec-Fetch-Site": "same-origin"}
    login = {"Cookie": "spotify-login=" + browser.cookie("spotify-login").value, "Accept": "application/json"}
    basic = base64.b64encode(f"load:{deployment.service_client}".encode()).decode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    expected = {"/auth/token": 200, "/auth/callback": 400, "/auth/session": 200, "/auth/refresh": 200,
                "/auth/authorize": 200, "/auth/logout": 204, "/auth/api/token": 200}
    sent = []
    for number in range(ADDRESSES):
        sender = {"X-Forwarded-For": f"198.18.{number // 250}.{number % 250}"}
        sent += [("GET", "/auth/token", {**called, **sender}, None),
                 ("GET", "/auth/callback?code=x&state=" + "A" * 43, {**login, **sender}, None),
                 ("GET", "/auth/session", {**called, **sender}, None),
                 ("POST", "/auth/refresh", {**called, **sender}, None),
                 ("GET", "/auth/authorize", {"Accept": "application/json", **sender}, None),
                 ("POST", "/auth/logout", {**called, **sender, "Cookie": ""}, None),
                 ("POST", "/auth/api/token", {"Authorization": "Basic " + basic, **form, **sender},
                  "grant_type=client_credentials")]
    return sent, expected


def wait_for_more(load, count=300):
    begun = load.count()
    wait_until(lambda: load.count() > begun + count, 60, "load")


def lost(load, expected):
    return {key: count for key, count in load.answers.items() if expected[key[0]] != key[1]}


def nginx_errors(deployment):
    """Why, for a failing test to show."""
    lines = docker("logs", deployment.container("nginx"), check=False).stderr.splitlines()
    return "\n".join(line[:400] for line in lines if "[error]" in line or "[crit]" in line or "[alert]" in line)


def assert_none_lost(deployment, load, expected):
    failed = lost(load, expected)
    assert failed == {}, f"{failed}\n{nginx_errors(deployment)[-6000:]}"
    assert {path for path, _ in load.answers} == set(expected)
    print(f"\n{load.count()} requests, none lost")


def served(name):
    return sum('"event":"request"' in line and '"request_id":"health"' not in line
               for line in docker("logs", name, check=False).stderr.splitlines())


def test_one_killed_and_one_added_under_load_loses_no_request(deployment, requests):
    sent, expected = requests
    first = deployment.containers("worker")
    with traffic.Load(deployment.url, sent, threads=8) as load:
        wait_for_more(load)
        deployment.scale(3)
        added = [name for name in deployment.containers("worker") if name not in first]
        assert len(added) == 1
        wait_until(lambda: served(added[0]) > 20, 30, "requests at the new worker")
        for name in first:
            docker("stop", "-t", "40", name)  # as compose does it: SIGTERM
            assert inspect(name)["State"]["ExitCode"] == 0
            docker("rm", name)
            wait_for_more(load)
        deployment.scale(2)
        wait_for_more(load)
    assert_none_lost(deployment, load, expected)


def test_rolling_update_under_load_loses_no_request(deployment, requests):
    sent, expected = requests
    with traffic.Load(deployment.url, sent, threads=8) as load:
        for _ in range(3):
            old = deployment.containers("worker")
            deployment.scale(len(old) + 1)
            docker("stop", "-t", "40", old[0])
            docker("rm", old[0])
            wait_for_more(load, 100)
    assert_none_lost(deployment, load, expected)


def test_a_worker_that_is_killed_without_warning_costs_what_it_had_in_hand(deployment, requests):
    sent, expected = requests
    deployment.scale(2)
    with traffic.Load(deployment.url, sent, threads=8) as load:
        wait_for_more(load)
        victim = deployment.container("worker")
        docker("kill", "-s", "KILL", victim)
        wait_for_more(load)
    failed = lost(load, expected)
    # nginx asks the other worker, but for what must not be sent twice.
    assert {path for path, _ in failed} <= {"/auth/callback", "/auth/api/token"}, load.answers
    assert {status for _, status in failed} <= {502, 503} and sum(failed.values()) <= 8, load.answers
    print(f"\nof {load.count()} requests {sum(failed.values())} failed: {failed}")
    docker("rm", "-f", victim)
    deployment.scale(2)
