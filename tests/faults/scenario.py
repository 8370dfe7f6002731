"""A scenario is a few lines: load, fault, what must hold.

    with Scenario(services=2, workers=2) as run:
        run.begin(rotation="new", kill_grant_on_reuse=True)
        run.at("R5 after", kill)
        run.load(sessions=20, clients=40, seconds=2)
        run.hold(no_session_lost, only_retryable_503)

Redis, nginx, the services and the simulated Spotify are real processes (tests/stack.py); the services reach Redis and
Spotify through proxies only, unless a scenario says otherwise. Everything random comes from the seed."""

import asyncio
import contextlib
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "flow")]

import load as loads  # noqa: E402
from messages import RedisConnection, SpotifyConnection  # noqa: E402
from proxy import Proxy  # noqa: E402
from record import Record  # noqa: E402
from stack import Redis, Stack, start_spotify, wait_until  # noqa: E402

UPSTREAM_TIMEOUT_MS, STORE_TIMEOUT_MS = 1000, 400


def lease_s(upstream_timeout_ms, store_timeout_ms):
    """As cgi/flows/renewal_lead.c has it."""
    return (upstream_timeout_ms + 2 * store_timeout_ms) / 1000 + 2


LEASE_S = lease_s(UPSTREAM_TIMEOUT_MS, STORE_TIMEOUT_MS)
KEEP = 1_000_000
SHOWN = 10


# What can be done at a step: given to Scenario.at()


async def kill(event):
    event.record.kill(event.pid)


async def cut(_event):
    """The connection ends here."""


async def halve(event):
    """Half of the message, then silence."""
    return event.data[:len(event.data) // 2]


async def garble(event):
    """As many other bytes, none of which begins a message of either protocol."""
    return b"\xff" + os.urandom(len(event.data) - 1)


def delay(seconds):
    async def late(event):
        await asyncio.sleep(seconds)
        return event.data
    return late


def stop(seconds):
    """The worker stands still for so long: with its question unsent, or with the answer waiting for it."""
    async def stand_still(event):
        try:
            await asyncio.sleep(seconds)
        finally:
            event.record.stood_still(event.pid)
            event.record.signal(event.pid, signal.SIGCONT)

    async def stopped(event):
        event.record.signal(event.pid, signal.SIGSTOP)
        still = asyncio.ensure_future(stand_still(event))
        event.record.stops.add(still)
        still.add_done_callback(event.record.stops.discard)
        if event.message.step.endswith("before"):
            await still
            # Who comes to life looks at the clock first: time to give up before the question is sent.
            await asyncio.sleep(0.3)
        return event.data
    return stopped


# What can be done now and then: given to Scenario.every()


def cut_redis(seconds=0.2):
    async def act(run):
        await run.redis_proxy.away(seconds)
    act.__name__ = "Redis cut"
    return act


async def kill_a_worker(run):
    pid = run.pick_worker()
    if pid is not None:
        run.record.kill(pid)


async def end_a_worker(run):
    """SIGTERM: it finishes what is in hand, and another takes its place."""
    pid = run.pick_worker()
    if pid is not None:
        run.record.signal(pid, signal.SIGTERM)


class Scenario:
    def __init__(self, services=2, workers=2, settings=None, seed=None, redis_direct=False):
        """redis_direct: past the proxy, whose own time would be seen in a measurement; no fault reaches Redis then."""
        self.seed = int(os.environ.get("SEED", 0)) or seed or random.SystemRandom().randrange(1, 1 << 31)
        self.random = random.Random(self.seed)
        times = {"UPSTREAM_TIMEOUT_MS": UPSTREAM_TIMEOUT_MS, "STORE_TIMEOUT_MS": STORE_TIMEOUT_MS, **(settings or {})}
        self.record = Record(times["UPSTREAM_TIMEOUT_MS"] / 1000,
                             lease_s(times["UPSTREAM_TIMEOUT_MS"], times["STORE_TIMEOUT_MS"]))
        self.sessions, self.answers, self.last_words = [], [], {}
        self.done = {}  # what every() did, how often
        self._users = 0
        self._shape = (services, workers, settings or {})
        self._redis_direct = redis_direct
        self._repeated = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults")

    # Start and end

    def __enter__(self):
        services, workers, more = self._shape
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="faults-"))
        self._thread.start()
        self._clean = contextlib.ExitStack()
        try:
            self._clean.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._clean.callback(self._stop_loop)
            self.spotify = self._clean.enter_context(start_spotify(
                arguments=("--keep", KEEP, "--secrets-limit", KEEP)))
            redis = Redis(self.directory / "redis").start()
            self._clean.callback(redis.stop)
            host, port = self.spotify.url.removeprefix("http://").split(":")
            self.redis_proxy = Proxy(self.record, RedisConnection, str(redis.socket_path))
            self.spotify_proxy = Proxy(self.record, SpotifyConnection, (host, int(port)))
            self._do(self.redis_proxy.start(str(self.directory / "r.sock")))
            self._do(self.spotify_proxy.start())
            redis_path = redis.socket_path if self._redis_direct else self.directory / "r.sock"
            settings = {"REDIS_URL": f"unix://{redis_path}",
                        "SPOTIFY_ACCOUNTS_URL": "http://127.0.0.1:%d" % self.spotify_proxy.address[1],
                        "UPSTREAM_TIMEOUT_MS": UPSTREAM_TIMEOUT_MS, "STORE_TIMEOUT_MS": STORE_TIMEOUT_MS, **more}
            self.stack = self._clean.enter_context(Stack(
                services=services, workers=workers, settings=settings, spotify=self.spotify, redis=redis))
        except BaseException:
            self._clean.close()
            raise
        return self

    def __exit__(self, *error):
        return self._clean.__exit__(*error)

    def _stop_loop(self):
        async def stop_proxies():
            await asyncio.gather(*(proxy.stop() for proxy in (self.redis_proxy, self.spotify_proxy)))
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        with contextlib.suppress(AttributeError):
            self._do(stop_proxies())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine):
        """Run it beside the proxies, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def begin(self, **behaviours):
        """A fresh start with how Spotify behaves; workers of a scenario before are all there again."""
        services, workers, _ = self._shape
        wait_until(lambda: not self.record.stops, 20, "the end of all stops")
        wait_until(lambda: all(len(service.workers()) == workers and service.ready()
                               for service in self.stack.services), 20, "all workers")
        self.spotify.reset()
        self.tokens_live_s = behaviours.get("expires_in", 2)
        self.spotify.behave("token", **{"expires_in": self.tokens_live_s, **behaviours})
        self.stack.redis.client().flushall()
        self.record.rules.clear()
        self.record.clear()
        self.sessions, self.answers, self.last_words, self.done = [], [], {}, {}
        self._repeated = []
        return self

    # The vocabulary

    def log_in(self, count):
        """So many more sessions, each of a user of its own."""
        paths = [service.listen.removeprefix("unix:") for service in self.stack.services]
        new = self._do(loads.log_in_many(paths, self.spotify_proxy_url, count, self._users))
        self._users += count
        self.sessions += new
        names = {session.user: session.name for session in new}
        for grant in self.spotify.grants():
            if grant["user"] in names:
                self.record.owners[grant["refresh_token"]] = names[grant["user"]]
        return new

    @property
    def spotify_proxy_url(self):
        """People's browsers go to Spotify itself."""
        return self.spotify.url

    def at(self, step, action, times=1):
        self.record.add_rule(step, action, times)

    def every(self, seconds, action):
        """Again and again while there is load."""
        self._repeated.append((seconds, action))

    def load(self, sessions, clients, seconds, **options):
        """Requests for so many sessions; with them run the faults of every()."""
        if len(self.sessions) < sessions:
            self.log_in(sessions - len(self.sessions))
        self.load_of(self.sessions, clients, seconds, **options)

    def load_of(self, sessions, clients, seconds, **options):
        self._do(self._load(sessions, clients, seconds, options))

    async def _load(self, sessions, clients, seconds, options):
        load = loads.Load(self.stack.url, sessions, clients, self.random, **options)
        faults = [asyncio.ensure_future(self._repeat(*each)) for each in self._repeated]
        await asyncio.sleep(seconds)
        for fault in faults:
            fault.cancel()
        ends = await asyncio.gather(*faults, return_exceptions=True)
        self.record.violations += [f"the fault failed: {end!r}" for end in ends if isinstance(end, Exception)]
        await load.stop()
        self.answers += load.answers

    async def _repeat(self, seconds, action):
        while True:
            await asyncio.sleep(seconds)
            self.count(action)
            await action(self)

    def count(self, action):
        name = action.__name__.replace("_", " ")
        self.done[name] = self.done.get(name, 0) + 1

    def expired_session(self):
        """One more session, whose token has run out."""
        self.spotify.behave("token", grant="authorization_code", expires_in=1)
        session, = self.log_in(1)
        self.spotify.behave("token", grant="authorization_code", expires_in=None)
        time.sleep(1.1)
        return session

    def delays_of_waiters(self, session, count):
        """Seconds from the moment at which Redis has the new token to each of so many answers, less the leader's."""
        answers = self.storm(session, count)
        assert all(answer.good for answer in answers), [answer.status for answer in answers]
        stored_at = self.record.stored_at[session.name]
        return sorted(answer.begun + answer.seconds - stored_at for answer in answers)

    def redis_goes_away(self, seconds):
        """For callers inside the loop: an action."""
        asyncio.ensure_future(self.redis_proxy.away(seconds))

    def storm(self, session, count):
        answers = self._do(loads.ask_together(self.stack.url, session, count))
        self.answers += answers
        return answers

    def ask(self, session, route="/token", method="GET"):
        client = loads.Client(self.stack.url)

        async def once():
            answer = await client.ask(session, route, method)
            client.close()
            return answer
        answer = self._do(once())
        self.answers.append(answer)
        return answer

    def spotify_is_away(self, is_away):
        """Nobody can connect, and what is connected is cut."""
        def change():
            self.spotify_proxy.is_away = is_away
            if is_away:
                self.spotify_proxy.cut()
        self._loop.call_soon_threadsafe(change)

    def pick_worker(self):
        pids = [pid for service in self.stack.services for pid in service.workers() if pid not in self.record.dead]
        return self.random.choice(pids) if pids else None

    # What must hold

    def settle(self, deadline_s=30):
        """All faults are over: what each session says in the end."""
        self.record.rules.clear()
        if self.record.in_flight_to_the_end():
            time.sleep(self.tokens_live_s)  # who has an old token that is still good says that all is well
        self.last_words = self._do(loads.ask_each_until_known(self.stack.url, self.sessions, 32, deadline_s))

    def lost(self):
        return [session for session, answer in self.last_words.items() if not answer.good]

    def hold(self, *invariants):
        if not self.last_words:
            self.settle()
        complaints = [(invariant.__name__, complaint) for invariant in invariants for complaint in invariant(self)]
        assert not complaints, "\n".join(
            [f"SEED={self.seed}: {len(complaints)} complaints", *(": ".join(each) for each in complaints[:SHOWN])])

    def happened(self, step):
        """A rule that never fired has shown nothing."""
        assert all(rule.left == 0 for rule in self.record.rules if rule.step == step), f"{step} never came"
