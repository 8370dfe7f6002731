"""Requests that run beside a test: in the background once, or over and over."""

import concurrent.futures
import contextlib
import threading
import time

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
