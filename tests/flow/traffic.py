"""Requests that run beside a test: in the background once, or over and over."""

import collections
import concurrent.futures
import contextlib
import http.client
import threading
import time
import urllib.parse

POOL_MAX = 64


@contextlib.contextmanager
def background():
    """A submit() whose calls run at the same time; all have ended when the block has."""
    with concurrent.futures.ThreadPoolExecutor(POOL_MAX) as pool:
        yield pool.submit


def times(count, call):
    """The results of count calls at the same time."""
    with background() as submit:
        return [future.result() for future in [submit(call) for _ in range(count)]]


@contextlib.contextmanager
def steady(*calls):
    """Each call in a thread of its own, again and again until the block ends. Yields the list that
    takes the results; an exception is a result, too."""
    results = []
    ended = threading.Event()

    def run(call):
        while not ended.is_set():
            try:
                results.append(call())
            except Exception as error:
                results.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def seconds(call):
    """(result, seconds it took)."""
    begun = time.monotonic()
    result = call()
    return result, time.monotonic() - begun


class Load:
    """Requests by plain connections, as fast as a few threads can: (method, path, headers, body), again and again.

    answers: how often each got which status, as {(path, status): count}; an exception counts as a status."""

    def __init__(self, url, requests, threads):
        self.requests = requests
        self.answers = collections.Counter()
        self._address = urllib.parse.urlsplit(url).netloc
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number):
        connection = http.client.HTTPConnection(self._address, timeout=60)
        at = number
        while not self._ended.is_set():
            method, path, headers, body = self.requests[at % len(self.requests)]
            at += 1
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except Exception as error:
                connection.close()
                status = repr(error)
            self.answers[path.split("?")[0], status] += 1
        connection.close()

    def count(self):
        return self.answers.total()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()
