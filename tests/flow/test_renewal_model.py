"""What spin found in the model of the renewal protocol (tests/model/), played with real workers: a worker that stands
still at the wrong moment, and answers of Spotify's that are written in another order than they were given."""

import os
import signal
import threading

from redis_proxy import RedisTap
from sessions import ask, keys, log_in, meanwhile, refreshes
from stack import wait_until
from test_renewal import forget_leases, let_expire, token_of, wait_for_call

SETTINGS = {"UPSTREAM_TIMEOUT_MS": 700, "STORE_TIMEOUT_MS": 300}


class StopAtLease(RedisTap):
    """Once armed, it stops the worker when the answer that grants it a lease comes by."""

    def __init__(self, redis, path):
        self.pid, self.stopped = None, threading.Event()
        super().__init__(redis, path)

    def arm(self, pid):
        self.pid = pid

    def on_answer(self, data):
        if self.pid and b"\r\ntaken\r\n" in data:
            os.kill(self.pid, signal.SIGSTOP)
            self.pid = None
            self.stopped.set()


def test_a_worker_that_stood_still_with_its_lease_does_not_call_after_it(make_stack, tmp_path):
    stack = make_stack(services=2, workers=1, settings=SETTINGS)
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    service, before = stack.services[0], StopAtLease(stack.redis, tmp_path / "redis.sock")
    service.settings["REDIS_URL"] = f"unix://{before.path}"
    service.restart()
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    worker = service.workers()[0]
    before.arm(worker)
    with meanwhile(lambda: ask(service, browser, "/token")) as late:
        try:
            assert before.stopped.wait(10)
            wait_until(lambda: not keys(stack, "lease"), 10, "the end of its lease")
            newer = token_of(ask(stack.services[1], browser, "/token"))
        finally:
            os.kill(worker, signal.SIGCONT)
        answer = late.result(20)
    assert refreshes(stack) == 1, "the refresh token was not sent a second time"
    assert answer.status == 503
    assert {token_of(ask(each, browser, "/token")) for each in stack.services} == {newer}
    before.close()


def test_a_rotated_token_is_kept_though_an_earlier_answer_without_one_was_written_first(make_stack):
    stack = make_stack(services=2, workers=1, settings=SETTINGS)
    stack.spotify.behave("token", rotation="new", kill_grant_on_reuse=True)
    stack.spotify.next(1, grant="refresh_token", rotation="omit", answer_delay=0.4)
    stack.spotify.next(1, grant="refresh_token", hang="after", expires_in=4)
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(stack.services[0], browser, "/token")) as first:
        wait_for_call(stack)
        forget_leases(stack)  # it has run out
        with meanwhile(lambda: ask(stack.services[1], browser, "/token")) as second:
            wait_for_call(stack, 2)
            assert not first.done()
            earlier = token_of(first.result(10))
            stack.spotify.release()
            rotated = token_of(second.result(10))
    assert rotated != earlier
    assert {token_of(ask(each, browser, "/token")) for each in stack.services} == {rotated}
    let_expire(browser)
    assert token_of(ask(stack.services[0], browser, "/token")) != rotated
    assert refreshes(stack) == 3


def test_who_came_too_late_with_its_tokens_leaves_no_lease_behind(make_stack):
    stack = make_stack(services=2, workers=1, settings=SETTINGS)
    stack.spotify.next(1, grant="refresh_token", answer_delay=0.4)
    stack.spotify.next(1, grant="refresh_token", hang="after")
    browser = log_in(stack, expires_in=1)
    let_expire(browser)
    with meanwhile(lambda: ask(stack.services[0], browser, "/token")) as first:
        wait_for_call(stack)
        forget_leases(stack)  # it has run out
        with meanwhile(lambda: ask(stack.services[1], browser, "/token")) as second:
            wait_for_call(stack, 2)
            written = token_of(first.result(10))
            assert keys(stack, "lease"), "the second still has one"
            stack.spotify.release()
            assert token_of(second.result(10)) == written
    assert not keys(stack, "lease")
