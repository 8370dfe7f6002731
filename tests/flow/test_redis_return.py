"""A Redis that is away for long: who asks meanwhile is told so in time, and the first who asks afterwards is served."""

import contextlib
import functools
import os
import signal
import time

import pytest

import fastcgi
import traffic
from browser import Browser
from redis_proxy import RedisProxy
from sessions import OWN_COOKIE, assert_unavailable, for_session, log_in
from stack import Redis, wait_until

AWAY_S = 10
ANSWER_S = 0.6
BUSY_MACHINE_S = 0.7  # what may pass outside of the service before an answer is seen
JSON = {"Accept": "application/json"}


def paced(call, results):
    """One call and the time it took, some ten of them a second."""
    def run():
        answer, took = traffic.seconds(call)
        results.append((answer, took))
        time.sleep(0.05)
    return run


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_redis_away_for_10_s_is_503_within_600_ms_and_the_first_request_afterwards_is_good(make_stack, way):
    stack = make_stack(workers=2)
    people = [log_in(stack, user) for user in ("ada", "bob")]
    cookies = [browser.cookie(OWN_COOKIE).value for browser in people]
    stranger, results = Browser(stack), []
    calls = [people[0].session, people[0].token, people[1].token, people[1].refresh, people[1].logout,
             lambda: stranger.authorize(headers=JSON)]
    if way == "killed":
        stack.redis.kill()
    else:
        stack.redis.pause()
    lines = len(stack.services[0].log_lines())
    with traffic.steady(*[paced(call, results) for call in calls]) as errors:
        time.sleep(AWAY_S)
    assert [error for error in errors if error] == []
    stack.redis.start() if way == "killed" else stack.redis.cont()
    for browser in people:  # at once, and each worker: nobody is asked twice
        assert browser.token().status_code == 200
    assert [browser.cookie(OWN_COOKIE).value for browser in people] == cookies
    assert traffic.times(8, people[0].session)[0].json()["authenticated"] is True

    assert len(results) > 50
    for answer, _ in results:
        assert_unavailable(answer)
    assert max(took for _, took in results) < ANSWER_S + BUSY_MACHINE_S
    served = [line["us"] for line in stack.services[0].log_lines()[lines:] if line.get("status") == 503]
    assert len(served) >= len(results)
    assert max(served) < ANSWER_S * 1e6


@pytest.fixture
def behind_proxy(tmp_path):
    redis = Redis(tmp_path / "redis").start()
    proxy = RedisProxy(tmp_path / "proxy.sock", redis.socket_path)
    proxy.redis = redis
    proxy.url = f"unix://{proxy.path}"
    with contextlib.closing(proxy):
        yield proxy
    redis.stop()


@contextlib.contextmanager
def connection_to_each_worker(service):
    """A FastCGI connection that each worker has taken. Those that have one stand still until the others have theirs."""
    with contextlib.ExitStack() as held:
        connections, stopped = [], []
        try:
            for number in range(len(service.workers())):
                connection = held.enter_context(fastcgi.Connection(service.listen.removeprefix("unix:")))
                request_id = f"to-each-worker-{number}"
                connection.send(fastcgi.request(fastcgi.variables(SCRIPT_NAME="/readyz", REQUEST_ID=request_id)))
                connection.reply()
                line = wait_until(lambda wanted=request_id: next(
                    (line for line in service.log_lines() if line.get("request_id") == wanted), None), 5, "the log")
                os.kill(line["pid"], signal.SIGSTOP)
                stopped.append(line["pid"])
                connections.append(connection)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert len(set(stopped)) == len(service.workers())
        yield connections


def test_workers_that_lost_redis_do_not_come_back_in_lockstep(make_stack, behind_proxy):
    """Connections are taken and closed again for a while. In the end the pauses are 125 to 250 ms."""
    stack = make_stack(workers=8, redis=behind_proxy.redis,
                       settings={"REDIS_URL": behind_proxy.url, "LOG_LEVEL": "debug"})
    browser, service = log_in(stack), stack.services[0]
    asked = fastcgi.request(for_session(browser, "/session"))

    def ask_again(connection):
        connection.send(asked)
        return connection.reply()
    with connection_to_each_worker(service) as connections:
        for connection in connections:
            assert ask_again(connection).status == 200
        behind_proxy.end_all()
        with traffic.steady(*[functools.partial(ask_again, connection) for connection in connections]) as answers:
            time.sleep(1.5)  # the pauses grow
            behind_proxy.accepted.clear()
            time.sleep(2)
            accepted = list(behind_proxy.accepted)
            behind_proxy.refusing = False
    assert {answer.status for answer in answers} <= {200, 503}
    by_worker = {}
    for moment, pid in accepted:
        by_worker.setdefault(pid, []).append(moment)
    assert set(by_worker) == set(service.workers())
    gaps = [later - earlier for moments in by_worker.values() for earlier, later in zip(moments, moments[1:])]
    assert min(gaps) > 0.1
    assert max(gaps) - min(gaps) > 0.03
    together = max(sum(1 for moment, _ in accepted if begin <= moment < begin + 0.01) for begin, _ in accepted)
    assert together < len(by_worker)
    wait_until(service.ready, 5, "readiness")
    assert browser.token().status_code == 200


def test_connection_that_is_lost_is_replaced_at_once(make_stack, behind_proxy):
    """A good connection that ends is no sign that Redis has: nobody waits for the next."""
    stack = make_stack(workers=1, redis=behind_proxy.redis, settings={"REDIS_URL": behind_proxy.url})
    browser = log_in(stack)
    for _ in range(3):
        time.sleep(1.1)  # for so long a connection has to hold to be a good one
        count = len(behind_proxy.accepted)
        behind_proxy.end_all(refuse=False)
        wait_until(lambda: not behind_proxy.open, 5, "the end")
        time.sleep(0.05)
        answer, took = traffic.seconds(browser.token)
        assert answer.status_code == 200
        assert took < 0.5
        assert len(behind_proxy.accepted) == count + 1
