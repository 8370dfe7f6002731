"""What spin found in the model of the renewal protocol (tests/model/), played with real workers: a worker that stands
still at the wrong moment."""

import contextlib
import os
import signal
import socket
import threading

from sessions import ask, keys, log_in, meanwhile, refreshes
from stack import wait_until
from test_renewal import let_expire, token_of

SETTINGS = {"UPSTREAM_TIMEOUT_MS": 700, "STORE_TIMEOUT_MS": 300}


class StopAtLease:
    """A unix socket before Redis. Once armed, it stops the worker when the answer that grants it a lease comes by."""

    def __init__(self, redis, path):
        self.path, self.pid, self.stopped = path, None, threading.Event()
        self._redis, self._listener = redis, socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, pid):
        self.pid = pid

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._redis.socket_path))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.pid and b"\r\ntaken\r\n" in data:
                    os.kill(self.pid, signal.SIGSTOP)
                    self.pid = None
                    self.stopped.set()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


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
