"""`make bench`: speed and memory as ratios measured side by side in one run. Prints a table and writes build/bench.md.

(a) GET /auth/token with a valid session against the same front's hello (/healthz: no Redis, no sealing) and against
    nginx's own `return 200`; (b) logins/s of 1,000 people with 0 and 100 ms at the token endpoint; (c) memory of a worker,
    idle and per request that waits for Spotify; (d) /token on valid sessions while 4,096 other requests hang on Spotify;
(e) nginx's `return 200` behind auth_request to /verify against the same behind auth_request to the hello; (f) what a
million sessions take: sizing.py."""

import asyncio
import contextlib
import os
import re
import statistics
import sys
import time

import sizing
from measure import (ECHO_MODULE, HEADERS, HERE, ROOT, ROUNDS, SECONDS, Upstream, bench_stack, log_in, percentile,
                     proportional_set_kib, rate, report, rows, wrk)
import fastcgi
from stack import wait_until

PARKED = 4096


# ---- (a) ----

def bench_share(part, stack, paths, what, base):
    """The rates of paths (name -> path), asked in turn with one session's cookie, and what's share of base."""
    headers = {**HEADERS, "Cookie": log_in(stack)}
    for connections in (16, 64, 256):
        outs = {name: [] for name in paths}
        for _ in range(3 * ROUNDS):
            for name, path in paths.items():
                outs[name].append(wrk(stack.url + path, connections, headers, seconds=2))
        for name, found in outs.items():
            report(f"({part}) {name}, {connections} connections", f"{statistics.median(map(rate, found)):,.0f}/s",
                   f"p50 {statistics.median(percentile(out, 50) for out in found):.2f} ms, "
                   f"p99 {statistics.median(percentile(out, 99) for out in found):.2f} ms")
        share = statistics.median(rate(one) / rate(other) for one, other in zip(outs[what], outs[base]))
        report(f"({part}) {what} / {base}, {connections} connections", f"{share:.0%}", "wanted: 70 %")


def bench_token():
    with bench_stack() as stack:
        paths = {"nginx": "/bench/nginx", "hello": "/bench/hello", "token": "/auth/token"}
        bench_share("a", stack, paths, "token", "hello")


# ---- (b) ----

def logins_per_second(stack):
    # Long against the latency: who is still under way at the end has not logged in.
    out = wrk(stack.url, 1000, script=HERE / "login.lua", seconds=3 * SECONDS)
    good, bad, duration = map(int, re.search(r"logins (\d+) failures (\d+) microseconds (\d+)", out).groups())
    if bad:
        raise RuntimeError(f"{bad} of {good + bad} logins failed")
    return good / duration * 1e6


def bench_logins():
    """Two stacks of the same kind, whose Spotify answers at once or late, measured in turn."""
    if not os.path.exists(ECHO_MODULE):
        raise SystemExit("nginx's echo module is missing: apt-get install libnginx-mod-http-echo")
    rates = {0: [], 0.1: []}
    with bench_stack() as idle, contextlib.ExitStack() as stacks:
        people = {}
        for latency_s in rates:
            folder = idle.directory / f"upstream-{latency_s}"
            folder.mkdir()
            upstream = Upstream(folder, latency_s).start()
            stacks.callback(upstream.stop)
            people[latency_s] = stacks.enter_context(bench_stack(spotify=idle.spotify, settings={
                "LOG_LEVEL": "warn", "SPOTIFY_ACCOUNTS_URL": upstream.url, "SPOTIFY_API_URL": upstream.url}))
            logins_per_second(people[latency_s])
        for _ in range(2 * ROUNDS):
            for latency_s, stack in people.items():
                rates[latency_s].append(logins_per_second(stack))
    for latency_s, found in rates.items():
        report(f"(b) logins of 1,000 people, {latency_s * 1000:.0f} ms at the token endpoint",
               f"{statistics.median(found):,.0f}/s")
    ratio = statistics.median(slow / fast for slow, fast in zip(rates[0.1], rates[0]))
    report("(b) 100 ms / 0 ms", f"{ratio:.0%}", "wanted: 90 %")


# ---- (c) and (d): 4,096 requests that wait for Spotify ----

async def ask(path, pairs):
    """One request on a connection of its own, straight to the service; gives the streams, unread."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(fastcgi.request(pairs))
    return reader, writer


async def answer(path, pairs):
    reader, writer = await ask(path, pairs)
    data = b""
    while fastcgi.record(fastcgi.END_REQUEST, bytes(8))[:2] not in data[-16:]:
        data += await asyncio.wait_for(reader.read(65536), 30)
    writer.close()
    return data


def variables(path, cookie="", query="", **more):
    return fastcgi.variables(PATH_INFO=path, SCRIPT_NAME="/auth", QUERY_STRING=query, HTTP_COOKIE=cookie,
                             HTTP_X_REQUESTED_WITH="bench", HTTP_SEC_FETCH_SITE="same-origin", **more)


async def scripted_login(stack, path, slots):
    """A login whose code the simulator's page gives at once (auto_approve): its session cookie."""
    async with slots:
        data = await answer(path, variables("/authorize"))
        binding = re.search(rb"Set-Cookie: (\S+?);", data)[1].decode()
        location = re.search(rb"Location: (\S+)", data)[1].decode()
        reader, writer = await asyncio.open_connection(*stack.spotify.url.removeprefix("http://").split(":"))
        target = location.removeprefix(stack.spotify.url)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: spotify\r\nConnection: close\r\n\r\n".encode())
        page = await reader.read()
        writer.close()
        query = re.search(rb"Location: [^?\s]+\?(\S+)", page)[1].decode()
        data = await answer(path, variables("/callback", binding, query))
        return re.search(rb"Set-Cookie: (\S*spotify-session=\S+?);", data)[1].decode()


class Parked:
    """PARKED sessions whose token has run out, and requests for them that hang on Spotify."""

    def __init__(self, stack):
        self.stack = stack
        self.path = str(stack._socket(0))
        self.loop = asyncio.new_event_loop()
        self.streams = []
        stack.spotify.behave("authorize", auto_approve="ada")
        stack.spotify.behave("token", expires_in=1)
        self.cookies = self.loop.run_until_complete(self._log_in())
        time.sleep(2)

    async def _log_in(self):
        slots = asyncio.Semaphore(64)
        return await asyncio.gather(*(scripted_login(self.stack, self.path, slots) for _ in range(PARKED)))

    def park(self):
        self.stack.spotify.hang()
        self.streams = self.loop.run_until_complete(self._ask())
        wait_until(lambda: self.stack.spotify.counters()["hanging"] >= PARKED, 60, "requests hanging on Spotify", 0.2)

    async def _ask(self):
        return await asyncio.gather(*(ask(self.path, variables("/token", cookie)) for cookie in self.cookies))

    def release(self):
        self.stack.spotify.release()

        async def drain():
            await asyncio.gather(*(asyncio.wait_for(reader.read(65536), 60) for reader, _ in self.streams))
            for _, writer in self.streams:
                writer.close()
        self.loop.run_until_complete(drain())


def bench_memory():
    with bench_stack(workers=1, settings={"UPSTREAM_TIMEOUT_MS": 60000, "LOG_LEVEL": "warn"}) as stack:
        worker = stack.services[0].workers()[0]
        idle = proportional_set_kib(worker)
        report("(c) a worker, idle", f"{idle / 1024:.1f} MiB", "wanted: under 8 MiB (proportional set size)")
        parked = Parked(stack)
        before = proportional_set_kib(worker)
        parked.park()
        each = (proportional_set_kib(worker) - before) / PARKED
        fresh = (proportional_set_kib(worker) - idle) / PARKED
        parked.release()
        report(f"(c) per request, {PARKED:,} waiting for Spotify", f"{fresh:.1f} KiB",
               f"wanted: under 64 KiB ({each:.1f} KiB above the worker after {PARKED:,} logins)")


def bench_hanging():
    """Two stacks of the same kind, one of which has the requests that hang, measured in turn: the p99 of a machine that is
    busy to the last cycle swings by more than what is looked for, so there are many short rounds."""
    settings = {"UPSTREAM_TIMEOUT_MS": 120000, "LOG_LEVEL": "warn"}
    with bench_stack(settings=settings) as quiet, bench_stack(settings=settings) as busy:
        cookies = {stack: log_in(stack) for stack in (quiet, busy)}
        parked = Parked(busy)
        parked.park()
        found = {quiet: [], busy: []}
        for _ in range(5 * ROUNDS):
            for stack, cookie in cookies.items():
                out = wrk(f"{stack.url}/auth/token", 16, {**HEADERS, "Cookie": cookie}, seconds=2)
                found[stack].append(percentile(out, 99))
        parked.release()
    alone, beside = statistics.median(found[quiet]), statistics.median(found[busy])
    report("(d) p99 of /token, alone", f"{alone:.2f} ms", f"median of {5 * ROUNDS} rounds")
    report(f"(d) p99 of /token, {PARKED:,} others hang on Spotify", f"{beside:.2f} ms")
    report("(d) with / without", f"{beside / alone:.2f}", "wanted: at most 1.25")


# ---- (e) ----

def bench_verify():
    """auth_request comes after `return` in a location, so the 200 stands behind an internal redirect, for both alike."""
    with bench_stack() as stack:
        paths = {"200 behind hello": "/bench/behind-hello", "200 behind verify": "/bench/behind-verify"}
        bench_share("e", stack, paths, "200 behind verify", "200 behind hello")


PARTS = {"a": bench_token, "b": bench_logins, "c": bench_memory, "d": bench_hanging, "e": bench_verify,
         "f": sizing.bench_sizing}


def main():
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
    lines = ["| measured | figure | |", "|---|---:|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench.md").write_text("\n".join(lines) + "\n")
    print(f"\n{os.cpu_count()} processors for everything: wrk, nginx, workers, Redis. Written to build/bench.md")


if __name__ == "__main__":
    main()
