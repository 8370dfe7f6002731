"""`make soak MINUTES=n`: random faults under load, and after each round the invariants of the scenarios. The seed that
is printed repeats the schedule. Refresh tokens rotate, and a rotated one that comes again kills its grant."""

import asyncio
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "flow")]

from invariants import ALWAYS, answered_within  # noqa: E402
from messages import STEPS  # noqa: E402
from scenario import (STORE_TIMEOUT_MS, Scenario, cut, cut_redis, delay, end_a_worker, garble, halve,  # noqa: E402
                      kill, kill_a_worker, lease_s, stop)

MINUTES = float(os.environ.get("MINUTES", 1))
ROUND_S = 20
REST_S = (0.3, 1.5)
SESSIONS, CLIENTS = 300, 48
UPSTREAM_TIMEOUT_MS = 2000  # a machine that is busy with all of this shall not be taken for a Spotify that is
LEASE_S = lease_s(UPSTREAM_TIMEOUT_MS, STORE_TIMEOUT_MS)
NOBODY_WAITS_LONGER_S = 4 * LEASE_S + 5


async def stop_redis(run):
    """It stands still: connected, and no answer."""
    run.stack.redis.pause()
    try:
        await asyncio.sleep(run.random.uniform(0.1, 1.5))
    finally:
        run.stack.redis.cont()


async def stop_a_worker(run):
    pid = run.pick_worker()
    if pid is None:
        return
    seconds = run.random.choice([0.2, 1, LEASE_S + 1])
    run.record.signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        run.record.stood_still(pid)
        run.record.signal(pid, signal.SIGCONT)


async def reload_a_service(run):
    """SIGHUP: new workers take over, old ones drain."""
    run.random.choice(run.stack.services).signal(signal.SIGHUP)


async def cut_spotify(run):
    await run.spotify_proxy.away(run.random.uniform(0.1, 1))


async def break_a_step(run):
    step = run.random.choice(STEPS)
    action = run.random.choice([kill, cut, halve, garble, delay(0.2), delay(3), stop(0.5), stop(LEASE_S + 0.5)])
    run.at(step, action)


FAULTS = (kill_a_worker, end_a_worker, stop_a_worker, stop_redis, reload_a_service, cut_spotify, cut_redis(),
          break_a_step, break_a_step, break_a_step)


async def something(run):
    """One random fault after the other."""
    fault = run.random.choice(FAULTS)
    run.count(fault)
    await fault(run)
    await asyncio.sleep(run.random.uniform(*REST_S))


def main():
    rounds = max(1, round(MINUTES * 60 / ROUND_S))
    totals = {"requests": 0, "renewals": 0, "lost, all in flight in a dead worker": 0}
    begun = time.monotonic()
    with Scenario(settings={"LOG_LEVEL": "warn", "UPSTREAM_TIMEOUT_MS": UPSTREAM_TIMEOUT_MS}) as run:
        print(f"SEED={run.seed}, {rounds} rounds of {ROUND_S} s and a rest", flush=True)
        for number in range(1, rounds + 1):
            run.begin(latency=0.05, rotation="new", kill_grant_on_reuse=True)
            run.every(0, something)
            run.load(SESSIONS, CLIENTS, ROUND_S)
            run.settle()
            run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S))
            totals["requests"] += len(run.answers)
            totals["renewals"] += len(run.record.calls)
            totals["lost, all in flight in a dead worker"] += len(run.lost())
            del run.done["something"]
            faults = ", ".join(f"{name} {times}" for name, times in sorted(run.done.items()))
            print(f"round {number}: {len(run.answers)} requests, {faults}", flush=True)
    print(f"{time.monotonic() - begun:.0f} s: " + ", ".join(f"{count} {what}" for what, count in totals.items()))
    print(f"{rounds} passed, 0 failed")


if __name__ == "__main__":
    main()
