"""`make test-redis`: the service on every kind of Redis that REDIS_URL can name, real ones. On each a browser's login,
a storm on an expired session, and what can happen to it under load. Prints what it cost, writes build/redis.md; a
figure that is not as wanted is a failure, and what cannot be had here is said by name. Arguments: which of PARTS. SEED
repeats the choices of the load.

What takes a newer hiredis than Debian 12's, or Valkey, runs in a Debian 13 of its own there (tests/trixie.py)."""

import asyncio
import contextlib
import functools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from redis.crc import key_slot

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "flow"), str(HERE.parent / "faults")]

import load as loads  # noqa: E402
import trixie  # noqa: E402
from browser import Browser  # noqa: E402
from engines import PREFIX, USER, Cluster, One, Sentinels, Tls, masters_of, server_program  # noqa: E402
from spotify import certificates  # noqa: E402
from stack import TREE, Service, Stack, StartError, start_spotify, wait_until  # noqa: E402

SEED = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 1 << 31)
SESSIONS = int(os.environ.get("SESSIONS", 2000))
RATE = 1000  # requests a second
CLIENTS = 96
STORM = 200
KEEP = 1_000_000
BEFORE_S, AFTER_S = 3, 3
SLOTS_MOVED, MOVING_S = 200, 5  # from each master, again and again for so long
SLOTS_OPEN = 300
STORE_TIMEOUT_MS = 500
# Of two commands that a request makes one after the other, for keys of two masters; a busy machine adds some.
WAIT_MS = 2 * STORE_TIMEOUT_MS + 200
# What somebody may wait beyond the fail-over itself: a command's time, and a pause between attempts.
SLACK_S = 2 * STORE_TIMEOUT_MS / 1000
PACKAGES = ("make",)

rows, failures, not_shown = [], [], []


def report(what, figure, wanted="", good=True):
    rows.append((what, str(figure), wanted))
    if not good:
        failures.append(what)
    print(f"{what:<84} {figure!s:>14}   {wanted}{'' if good else '   <-- NOT SO'}", flush=True)


def leave_out(what, why):
    not_shown.append(what)
    rows.append((what, "not shown", why))
    print(f"{what:<84} {'not shown':>14}   {why}", flush=True)


class PacedLoad(loads.Load):
    """So many requests a second, however long each takes; fewer only while all clients wait."""

    async def _run(self, client):
        interval = CLIENTS / (1.1 * RATE)
        due = time.monotonic() + self.random.random() * interval
        while not self._ended:
            await asyncio.sleep(max(0, due - time.monotonic()))
            route, method = self.random.choice(self.routes)
            self.answers.append(await client.ask(self.random.choice(self.sessions), route, method))
            due = max(due + interval, time.monotonic() - interval)
        client.close()


class Trial:
    """One engine, with services, nginx and the simulated Spotify around it."""

    def __init__(self, name, engine):
        self.name, self.engine = name, engine
        self.random = random.Random(SEED)
        self.sessions, self.users = [], 0

    def __enter__(self):
        self._clean = contextlib.ExitStack()
        try:
            self._clean.callback(self.engine.stop)
            self.engine.start()
            self.spotify = self._clean.enter_context(start_spotify(arguments=("--keep", KEEP, "--secrets-limit", KEEP)))
            self.stack = self._clean.enter_context(Stack(
                services=2, workers=2, redis=self.engine, spotify=self.spotify,
                settings={**self.engine.settings(), "LOG_LEVEL": "warn", "STORE_TIMEOUT_MS": STORE_TIMEOUT_MS}))
        except BaseException:
            self._clean.close()
            raise
        return self

    def __exit__(self, *error):
        return self._clean.__exit__(*error)

    def report(self, what, figure, wanted="", good=True):
        report(f"({self.name}) {what}", figure, wanted, good)

    # Sessions and load

    @property
    def paths(self):
        return [service.listen.removeprefix("unix:") for service in self.stack.services]

    def log_in(self, count):
        new = asyncio.run(loads.log_in_many(self.paths, self.spotify.url, count, self.users))
        self.users += count
        self.sessions += new
        return new

    async def _keep_logging_in(self, every_s, over):
        """More people come while things go wrong; whose login fails tries again another day. Ended by over, since
        wait_for may swallow a cancellation."""
        while not over.is_set():
            await asyncio.sleep(every_s)
            self.users += 1
            with contextlib.suppress(AssertionError, TypeError, OSError, asyncio.TimeoutError):
                path = self.random.choice(self.paths)
                self.sessions.append(await loads.log_in(path, self.spotify.url, f"user-{self.users}"))

    async def _under_load(self, fault):
        load = PacedLoad(self.stack.url, self.sessions, CLIENTS, self.random)
        over = asyncio.Event()
        logins = asyncio.ensure_future(self._keep_logging_in(0.1, over))
        begun = time.monotonic()
        await asyncio.sleep(BEFORE_S)
        rate = len(load.answers) / (time.monotonic() - begun)
        struck = time.monotonic()
        result = await asyncio.to_thread(fault)
        mended = time.monotonic()
        await asyncio.sleep(AFTER_S)
        over.set()
        await asyncio.gather(logins, return_exceptions=True)
        await load.stop()
        return load.answers, rate, struck, mended, result

    def under_load(self, what, fault, loses=True):
        """fault() beside the load, and what became of the requests and of the sessions. loses: whether Redis may lose
        what it was told shortly before."""
        print(f"({self.name}) {what}: SEED={SEED}", flush=True)
        old = set(self.sessions) if loses else None
        answers, rate, struck, mended, result = asyncio.run(self._under_load(fault))
        self.report(f"{what}: requests a second before it", f"{rate:,.0f}", f"wanted: {RATE:,}", rate >= RATE * 0.95)
        gone = self.count_losses(what, old)
        bad = [answer for answer in answers if not answer.good and answer.session not in gone]
        odd = [answer for answer in bad if not answer.retryable]
        took = mended - struck
        self.report(f"{what}: took", f"{took:.2f} s")
        statuses = {answer.status: sum(1 for a in odd if a.status == answer.status) for answer in odd}
        self.report(f"{what}: failures that are no 503 to try again", len(odd),
                    f"wanted: 0 (of {len(bad):,} failures and {len(answers):,} requests){statuses or ''}", not odd)
        if bad:
            first = min(answer.begun for answer in bad) - struck
            last = max(answer.begun + answer.seconds for answer in bad) - struck
            self.report(f"{what}: failures, from and to", f"{first:.2f}, {last:.2f} s",
                        f"wanted: within {-SLACK_S:.0f} and {took + SLACK_S:.2f} s", last <= took + SLACK_S)
        slowest = max(answers, key=lambda answer: answer.seconds)
        self.report(f"{what}: slowest answer", f"{slowest.seconds * 1000:.0f} ms",
                    f"wanted: {WAIT_MS} ms ({slowest.status} of {slowest.route})", slowest.seconds <= WAIT_MS / 1000)
        return result

    def count_losses(self, what, old=None):
        """The sessions that Redis itself has lost; they are none from now on. What was there before, the old ones or
        all, it has no reason to lose: who took that away was the service."""
        old = set(self.sessions) if old is None else old
        wait_until(lambda: all(service.ready() for service in self.stack.services), 20, "the services are ready", 0.1)
        words = asyncio.run(loads.ask_each_until_known(self.stack.url, self.sessions, 32, 60))
        lost = {session for session, answer in words.items() if not answer.good}
        names = self.engine.session_names()
        gone = {session for session in self.sessions if session.name not in names}
        wrong = lost - gone | gone & old
        self.report(f"{what}: sessions lost, of {len(self.sessions):,}", len(wrong),
                    f"wanted: 0 besides the {len(gone - old)} that Redis lost", not wrong)
        self.sessions = [session for session in self.sessions if session not in gone]
        return gone

    # What is shown on each

    def common(self):
        self.a_login()
        self.a_storm()
        self.log_in(SESSIONS)
        self.count_losses("logins")

    def a_login(self):
        browser = Browser(self.stack)
        assert browser.login().status_code == 303
        steps = [browser.session().json()["authenticated"], browser.token().status_code == 200,
                 browser.refresh().status_code == 200, len(browser.fetch("GET", "/sessions").json()["sessions"]) == 1,
                 browser.logout().status_code == 204, browser.token().status_code == 401]
        self.report("login, token, renewal, list, logout", f"{sum(steps)} of {len(steps)}",
                    f"as the user {USER} of the README's rules", all(steps))

    def a_storm(self):
        self.spotify.behave("token", grant="authorization_code", expires_in=1)
        session, = asyncio.run(loads.log_in_many(self.paths, self.spotify.url, 1, 900_000))
        self.spotify.behave("token", grant="authorization_code", expires_in=None)
        time.sleep(1.1)
        before = self.spotify.calls(grant="refresh_token")
        answers = asyncio.run(loads.ask_together(self.stack.url, session, STORM))
        calls = self.spotify.calls(grant="refresh_token") - before
        good = sum(1 for answer in answers if answer.good)
        self.report(f"{STORM} requests at once on an expired session: calls to Spotify", calls,
                    f"wanted: 1 ({good} answered, {len({answer.token for answer in answers})} token)",
                    calls == 1 and good == STORM and len({answer.token for answer in answers}) == 1)

    def end(self):
        refused = self.engine.refusals()
        self.report("commands that the README's user was refused", len(refused), f"wanted: none but for warnings "
                    f"{' '.join(sorted(refused))}", {word.partition("|")[0] for word in refused} <= {"info", "config"})


# The parts


def one(name, directory, **how):
    with Trial(name, One(directory, **how)) as trial:
        trial.common()
        trial.under_load("killed and started again", trial.engine.restart)
        trial.end()


def sentinels(name, directory, **how):
    with Trial(name, Sentinels(directory, **how)) as trial:
        engine = trial.engine
        trial.common()
        trial.under_load("fail-over asked for", engine.fail_over)
        wait_until(engine.is_whole, 60, "Sentinels and replicas after the fail-over", 0.1)

        def strike(how):
            master = engine.master()
            getattr(master, how)()
            engine.wait_for_another(master)
            return master
        for what, how, back in (("master killed", "kill", "start"), ("master stands still", "pause", "cont")):
            getattr(trial.under_load(what, functools.partial(strike, how)), back)()
            wait_until(engine.is_whole, 60, "the old master is a replica", 0.1)
            trial.count_losses("after its return")
        trial.end()


def cluster(name, directory, **how):
    with Trial(name, Cluster(directory, **how)) as trial:
        engine = trial.engine
        trial.common()

        def reshard():
            begun, moved = time.monotonic(), 0
            while time.monotonic() - begun < MOVING_S:
                masters = masters_of(engine.nodes())
                for source, target in zip(masters, masters[1:] + masters[:1]):
                    engine.move_slots(source, target, SLOTS_MOVED)
                    moved += SLOTS_MOVED
            return moved
        moved = trial.under_load("slots moved on to the next master", reshard, loses=False)
        trial.report("slots moved on to the next master: how many", f"{moved:,}")

        def half_move():
            source, target = masters_of(engine.nodes())[:2]
            slots = {key_slot(f"{PREFIX}session:{{{session.name}}}".encode()) for session in trial.sessions}
            engine.move_slowly(source, target, sorted(slots & source["slots"])[:SLOTS_OPEN], MOVING_S)
        words = ("ASK", "TRYAGAIN", "MOVED")
        before = engine.errors(*words)
        trial.under_load("slots open between two masters", half_move, loses=False)
        said = {word: count - before[word] for word, count in engine.errors(*words).items()}
        trial.report("slots open between two masters: answers that sent somebody elsewhere", sum(said.values()),
                     ", ".join(f"{count:,} {word}" for word, count in said.items()), said["ASK"] > 0)

        def kill_a_master():
            node = masters_of(engine.nodes())[0]
            server = engine.server_of(node)
            server.kill()
            engine.wait_for_another(node)
            return server
        killed = trial.under_load("master killed", kill_a_master)
        killed.start()
        wait_until(engine.is_whole, 60, "the Cluster is whole again", 0.1)
        trial.count_losses("after its return")
        trial.end()


PARTS = {
    "redis": (one, {}),
    "sentinel": (sentinels, {}),
    "cluster": (cluster, {}),
    "tls": (one, {"tls": True}),
    "sentinel-tls": (sentinels, {"tls": True}),
    "cluster-tls": (cluster, {"tls": True}),
    "valkey": (one, {"engine": "valkey"}),
    "valkey-sentinel": (sentinels, {"engine": "valkey"}),
    "valkey-cluster": (cluster, {"engine": "valkey"}),
}
ADDRESSES = {one: "redis://localhost", sentinels: "redis+sentinel://localhost/x", cluster: "redis+cluster://localhost"}


def papers(directory):
    made = certificates.make(directory / "papers")
    return Tls(made["ca"], made["good"], made["good"])


def run(part):
    trial, how = PARTS[part]
    directory = pathlib.Path(tempfile.mkdtemp(prefix="redis-"))
    try:
        if how.get("tls"):
            how = {**how, "tls": papers(directory)}
        trial(part, directory, **how)
    except Exception as error:
        report(f"({part})", "broke off", f"{type(error).__name__}: {' '.join(str(error).split())}", good=False)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def missing_here(part):
    """Why this part cannot run on this machine itself; None when it can."""
    trial, how = PARTS[part]
    url = ADDRESSES[trial].replace("redis", "rediss", 1 if how.get("tls") else 0)
    said = Service({"REDIS_URL": url}, os.devnull).run("--check").stdout
    refusal = re.search(r"REDIS_URL: (this build has no [^;]*)", said)
    if refusal:
        return refusal[1]
    try:
        server_program(how.get("engine", "redis"))
    except StartError as error:
        return str(error)
    return None


def run_on_debian_13(parts):
    """What this machine does not have, in a Debian 13 beside it, by the same target."""
    try:
        trixie.make(PACKAGES)
    except trixie.NotHere as why:
        for part in parts:
            leave_out(f"({part})", f"{missing_here(part)}, and no Debian 13 can be made: {why}")
        return
    trixie.copy_tree()
    told = trixie.ROOT / trixie.COPY.lstrip("/") / "build" / "redis.json"
    told.unlink(missing_ok=True)
    words = ["make", "-s", "test-redis", f"PARTS={' '.join(parts)}"]
    more = {"TELL": "build/redis.json", "SEED": str(SEED), "SESSIONS": str(SESSIONS)}
    subprocess.run(trixie.in_tree(words), env=trixie.environment(**more), stdin=subprocess.DEVNULL)
    if not told.exists():
        report(f"({' '.join(parts)})", "broke off", "see above", good=False)
        return
    for mine, theirs in zip((rows, failures, not_shown), json.loads(told.read_text())):
        mine += theirs


def main():
    parts = sys.argv[1:] or os.environ.get("PARTS", "").split() or list(PARTS)
    here = [part for part in parts if missing_here(part) is None]
    for part in here:
        run(part)
    elsewhere = [part for part in parts if part not in here]
    if elsewhere and trixie.is_native():
        for part in elsewhere:
            leave_out(f"({part})", missing_here(part))
    elif elsewhere:
        run_on_debian_13(elsewhere)
    if "TELL" in os.environ:  # to the one that has called this one
        (TREE / os.environ["TELL"]).write_text(json.dumps([rows, failures, not_shown]))
        return 1 if failures else 0
    lines = ["| measured | figure | |", "|---|---:|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    (TREE / "build" / "redis.md").write_text("\n".join(lines) + "\n")
    print(f"\nWritten to build/redis.md. {len(rows) - len(failures) - len(not_shown)} figures as wanted, "
          f"{len(failures)} not, {len(not_shown)} parts not shown")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
