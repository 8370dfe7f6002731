"""Part (f) of the bench: what a million sessions, and requests for them, take of Redis, workers, nginx and the network.

The sessions are made by logins through the whole service, each of another user. Then one worker serves requests for
random ones of them, and what each request cost is read from /proc and from Redis: processor time, commands, bytes.
SESSIONS is how many; without it a million, which takes five minutes."""

import collections
import contextlib
import os
import re
import signal
import statistics
import time

from measure import (ECHO_MODULE, HERE, SECONDS, Upstream, bench_stack, percentile, proportional_set_kib, rate, report,
                     wrk)
from stack import Process, Redis, find_program, wait_until

SESSIONS = int(os.environ.get("SESSIONS", "1000000"))
LOGINS_AT_LEAST = 1000  # a second: fewer, and something is wrong
STARTS = 5
SAMPLES = 3000
TICKS = os.sysconf("SC_CLK_TCK")
OWN_COMMANDS = ("info", "ping", "config|set", "client|setinfo")
MIB = 1024 * 1024

# What is planned for: so many requests, each session's token renewed once an hour, and logins beside them.
PLANNED = {"/token": 50000, "renewal": 1000000 / 3600, "login": 100}

# A part of the keys that are there: where to go on, and how many of each kind. What a login leaves for its LOGIN_TTL,
# of which a million sessions that began over weeks have hardly any, is taken away.
COUNT_SCRIPT = """
local found = redis.call('SCAN', ARGV[1], 'COUNT', 50000)
local kinds, list = {}, {}
for _, key in ipairs(found[2]) do
    local kind = string.match(key, '^[^:]+:([^:]+)')
    kinds[kind] = (kinds[kind] or 0) + 1
    if kind == 'login' then redis.call('DEL', key) end
end
for kind, count in pairs(kinds) do list[#list + 1] = kind; list[#list + 1] = count end
return {found[1], list}
"""


class ForgetfulRedis(Redis):
    """Writes nothing to the disk until it is told to."""

    options = ("--appendonly", "no")


# ---- what it costs ----

def processor_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return int(re.search(r"^Rss:\s+(\d+) kB", rollup.read(), re.M)[1]) / 1024


class Readings:
    """What processes have used and Redis has counted up to now; the difference of two is what it took meanwhile."""

    def __init__(self, stack, client):
        self.time = time.monotonic()
        self.cpu = {name: processor_seconds([process.pid, *process.group()]) for name, process in
                    (("worker", stack.services[0]), ("nginx", stack.nginx), ("Redis", stack.redis))}
        calls = client.info("commandstats")
        self.calls = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in calls.items()}
        stats = client.info("stats")
        self.bytes_in, self.bytes_out = stats["total_net_input_bytes"], stats["total_net_output_bytes"]
        self.disk = client.info("persistence").get("aof_current_size", 0)


class Cost:
    """Of one request of many."""

    def __init__(self, before, after, count):
        self.seconds = after.time - before.time
        self.count = count
        self.cores = {name: (after.cpu[name] - before.cpu[name]) / self.seconds for name in after.cpu}
        self.cpu_us = {name: (after.cpu[name] - before.cpu[name]) / count * 1e6 for name in after.cpu}
        differences = {name: (calls - before.calls.get(name, 0)) / count for name, calls in after.calls.items()}
        self.calls = {name: each for name, each in differences.items() if name not in OWN_COMMANDS and each > 0.005}
        self.bytes_in = (after.bytes_in - before.bytes_in) / count
        self.bytes_out = (after.bytes_out - before.bytes_out) / count
        self.disk = (after.disk - before.disk) / count

    @property
    def commands(self):
        return sum(self.calls.values())

    def show(self, what):
        named = ", ".join(f"{name.upper()} {each:.2f}".replace(" 1.00", "") for name, each in
                          sorted(self.calls.items(), key=lambda item: -item[1]))
        report(f"(f) {what}: CPU of worker, nginx, Redis",
               ", ".join(f"{self.cpu_us[name]:.1f}" for name in ("worker", "nginx", "Redis")) + " µs",
               f"at {self.count / self.seconds:,.0f}/s")
        report(f"(f) {what}: Redis commands", f"{self.commands:.1f}", named)
        report(f"(f) {what}: bytes to and from Redis", f"{self.bytes_in:,.0f}, {self.bytes_out:,.0f}")


# ---- the sessions ----

def make_sessions(stack, path):
    """SESSIONS logins, all at once as fast as they go: their cookies are lines of path, and what a login cost."""
    seconds = 30 + SESSIONS // LOGINS_AT_LEAST
    crowd = Process("wrk", stack.directory / "wrk.log")
    with stack.redis.client() as client:
        before = Readings(stack, client)
        crowd.launch([find_program("wrk"), "-t1", "-c512", f"-d{seconds}s", "--timeout", "30s",
                      "-s", HERE / "login.lua", stack.url, "--", path])
        wait_until(lambda: path.exists() and path.stat().st_size, 30, "the first login", 0.1)
        with open(path, "rb") as lines:
            length = len(lines.readline())
        wait_until(lambda: path.stat().st_size >= SESSIONS * length, seconds, f"{SESSIONS} logins", 0.2)
        crowd.stop(signal.SIGINT)
        after = Readings(stack, client)
    done = re.search(r"logins (\d+) failures (\d+)", crowd.log_text())
    if done is None or int(done[2]):
        raise RuntimeError(f"logins failed:\n{crowd.log_tail()}")
    return Cost(before, after, int(done[1]))


def count_kinds(client):
    """How many keys of each kind there are; the logins' are gone afterwards."""
    kinds = collections.Counter()
    cursor = "0"
    while True:
        cursor, found = client.eval(COUNT_SCRIPT, 0, cursor)
        for kind, count in zip(found[::2], found[1::2]):
            kinds[kind.decode()] += count
        if cursor == b"0":
            return kinds


def key_sizes(client):
    """Of each kind of key what one takes, by Redis's own reckoning of some thousand."""
    pipeline = client.pipeline(transaction=False)
    for _ in range(SAMPLES):
        pipeline.randomkey()
    keys = pipeline.execute()
    for key in keys:
        pipeline.memory_usage(key, samples=0)
    sizes = collections.defaultdict(list)
    for key, size in zip(keys, pipeline.execute()):
        if size:
            sizes[key.split(b":")[1].decode()].append(size)
    return {kind: statistics.mean(found) for kind, found in sizes.items()}


def show_memory(stack, client, empty):
    """Redis's memory for a session, with the keys that tell a user's sessions."""
    sizes = key_sizes(client)
    kinds = count_kinds(client)
    report("(f) Redis, a login until LOGIN_TTL", f"{sizes.pop('login', 0):,.0f} B", "taken away before the next lines")
    kinds.pop("login", None)
    client.memory_purge()
    sessions = kinds["session"]
    used = client.info("memory")["used_memory"] - empty
    rss = resident_mib(stack.redis.pid)
    report("(f) keys", f"{client.dbsize():,}", ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())))
    report("(f) Redis, used_memory per session", f"{used / sessions:,.0f} B", f"{used / MIB:,.0f} MiB in all; " +
           ", ".join(f"{kind} {sizes[kind]:,.0f} B" for kind in ("session", "user", "shown")) + ", the rest are tables")
    report("(f) Redis, resident per session", f"{rss * MIB / sessions:,.0f} B", f"{rss:,.0f} MiB in all")
    return sessions, used / sessions


# ---- a start ----

def start_ms(service):
    """From exec to the first `ready`, in the median of a few."""
    found = []
    for _ in range(STARTS):
        os.truncate(service.log_path, 0)
        service.stop()
        begun = time.monotonic()
        service.launch([service.program()], env=service.environment())
        wait_until(service.ready, 20, "the service ready", 0.001)
        found.append((time.monotonic() - begun) * 1000)
    return statistics.median(found)


# ---- requests ----

class Load:
    """Requests for the sessions of a file, and what they cost."""

    def __init__(self, stack, client, cookies):
        self.stack, self.client, self.cookies = stack, client, cookies

    def run(self, path="/auth/token", method="GET", of=SESSIONS, connections=64, pause_ms=0):
        before = Readings(self.stack, self.client)
        self.out = wrk(self.stack.url, connections, script=HERE / "sessions.lua", seconds=2 * SECONDS,
                       arguments=(self.cookies, pause_ms, method, path, of))
        after = Readings(self.stack, self.client)
        return Cost(before, after, int(re.search(r"(\d+) requests in", self.out)[1]))

    def percentiles(self):
        return f"p50 {percentile(self.out, 50):.2f} ms, p99 {percentile(self.out, 99):.2f} ms"


def show_steady(load, what):
    cost = load.run(connections=100, pause_ms=20)
    report(f"(f) /token of random sessions at a steady rate{what}", f"{rate(load.out):,.0f}/s",
           f"{load.percentiles()}; worker at {cost.cores['worker']:.0%} of a core")


def show_requests(load):
    costs = {"/token": load.run()}
    busy, whole = costs["/token"].cores["worker"], 1e6 / costs["/token"].cpu_us["worker"]
    report("(f) /token of random sessions, as fast as it goes", f"{rate(load.out):,.0f}/s",
           f"{load.percentiles()}; worker at {busy:.0%} of a core: a whole one is {whole:,.0f}/s")
    costs["/token"].show("/token")
    load.run(of=20).show("/token, used within the last minute")
    load.run(path="/auth/session").show("/session")
    # At a rate at which the tokens of all sessions are older than 10 s and none comes twice.
    costs["renewal"] = load.run(path="/auth/refresh", method="POST", of="each", connections=40, pause_ms=20)
    costs["renewal"].show("renewal")
    return costs


def show_disk(load, client):
    client.config_set("appendonly", "yes")

    def written():
        info = client.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"] and info["aof_base_size"]

    base = wait_until(written, 120, "the append-only file", 0.2)
    fork_ms = client.info("stats")["latest_fork_usec"] / 1000
    seconds = client.info("persistence")["aof_last_rewrite_time_sec"]
    report("(f) Redis, append-only file after a rewrite", f"{base / MIB:,.0f} MiB",
           f"in {seconds} s; the fork held Redis up for {fork_ms:.0f} ms")
    cost = load.run()
    report("(f) /token with appendonly yes: CPU of Redis", f"{cost.cpu_us['Redis']:.1f} µs",
           f"{cost.disk:,.0f} bytes of file for each")
    show_steady(load, ", appendonly yes")
    client.config_set("appendonly", "no")
    return cost


# ---- the plan ----

def show_plan(costs, with_file, session_bytes):
    """The sums for a million sessions and PLANNED requests a second."""
    def total(value):
        return sum(each * value(costs[kind]) for kind, each in PLANNED.items())

    requests = f"{PLANNED['/token']:,}/s"
    file_us = max(0, with_file.cpu_us["Redis"] - costs["/token"].cpu_us["Redis"])
    for name in ("worker", "nginx"):
        report(f"(f) 1,000,000 sessions, {requests}: cores of {name}", f"{total(lambda c: c.cpu_us[name]) / 1e6:.2f}")
    redis_us = total(lambda cost: cost.cpu_us["Redis"]) + PLANNED["/token"] * file_us
    report(f"(f) 1,000,000 sessions, {requests}: cores of Redis", f"{redis_us / 1e6:.2f}", "with appendonly yes")
    report(f"(f) 1,000,000 sessions, {requests}: Redis commands", f"{total(lambda c: c.commands):,.0f}/s")
    report(f"(f) 1,000,000 sessions, {requests}: to and from Redis",
           f"{total(lambda c: c.bytes_in) * 8 / 1e6:,.0f}, {total(lambda c: c.bytes_out) * 8 / 1e6:,.0f} Mbit/s")
    report("(f) 1,000,000 sessions: Redis, used_memory", f"{session_bytes * 1e6 / 1024**3:.2f} GiB")


def bench_sizing():
    if not os.path.exists(ECHO_MODULE):
        raise SystemExit("nginx's echo module is missing: apt-get install libnginx-mod-http-echo")
    with contextlib.ExitStack() as stacks:
        stack = bench_stack(workers=1)
        stack.redis = ForgetfulRedis(stack.directory / "redis")
        upstream = Upstream(stack.directory, 0)
        stack._shape[2].update(SPOTIFY_ACCOUNTS_URL=upstream.url, SPOTIFY_API_URL=upstream.url)
        stacks.callback(upstream.start().stop)
        stacks.enter_context(stack)
        service = stack.services[0]
        client = stacks.enter_context(stack.redis.client())
        none_ms = start_ms(service)
        empty = client.info("memory")["used_memory"]
        service.settings["WORKERS"] = "2"
        service.restart()
        cookies = stack.directory / "cookies"
        login = make_sessions(stack, cookies)
        report("(f) logins of different users, two workers", f"{login.count / login.seconds:,.0f}/s",
               f"{login.count:,} in {login.seconds:,.0f} s")
        login.show("login")
        sessions, session_bytes = show_memory(stack, client, empty)
        service.settings["WORKERS"] = "1"
        report(f"(f) start of the service until ready, {sessions:,} sessions", f"{start_ms(service):.0f} ms",
               f"{none_ms:.0f} ms with none")
        worker = service.workers()[0]
        report("(f) a worker, idle", f"{proportional_set_kib(worker) / 1024:.1f} MiB",
               f"proportional; resident {resident_mib(worker):.1f} MiB")
        load = Load(stack, client, cookies)
        show_steady(load, "")
        costs = {"login": login, **show_requests(load)}
        report("(f) a worker, after all this", f"{proportional_set_kib(worker) / 1024:.1f} MiB",
               f"proportional; resident {resident_mib(worker):.1f} MiB")
        show_plan(costs, show_disk(load, client), session_bytes)
        os.truncate(service.log_path, 0)
