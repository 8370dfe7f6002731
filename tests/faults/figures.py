"""`make test-faults`, second half: the figures. Prints a table and writes build/faults.md; the last column says what
was wanted, and a figure that is not as wanted is a failure. Arguments: which of 1 to 6. SEED repeats a schedule."""

import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "flow")]

from invariants import (lost_are_the_doomed, no_cookie_cleared, no_refresh_token_twice, no_session_lost,  # noqa: E402
                        one_call_at_a_time, only_retryable_503, who_is_lost_hears_so)
from scenario import Scenario, cut_redis, end_a_worker, kill_a_worker  # noqa: E402
from sessions import Clock  # noqa: E402
from stack import TREE, find_program, wait_until  # noqa: E402

SESSIONS = int(os.environ.get("SESSIONS", 10_000))
SECONDS = int(os.environ.get("SECONDS", 60))
ROTATING = {"rotation": "new", "kill_grant_on_reuse": True}
DEFAULT_TIMES = {"UPSTREAM_TIMEOUT_MS": 10_000, "STORE_TIMEOUT_MS": 500}
QUIET = {"LOG_LEVEL": "warn"}

rows = []
failures = []


def report(what, figure, wanted="", good=True):
    rows.append((what, figure, wanted))
    if not good:
        failures.append(what)
    print(f"{what:<76} {figure:>24}   {wanted}{'' if good else '   <-- NOT SO'}", flush=True)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def complaints(run, *invariants):
    found = [f"{invariant.__name__}: {text}" for invariant in invariants for text in invariant(run)]
    for text in found[:10]:
        print(f"    {text}")
    return len(found)


# 1


def many_sessions(name, fault, behaviours, invariants, lost_wanted):
    with Scenario(settings={**QUIET, **DEFAULT_TIMES}) as run:
        print(f"1{name}: SEED={run.seed}")
        run.begin(latency=0.05, **behaviours)
        run.log_in(SESSIONS)
        run.every(3, cut_redis())
        run.every(1, fault)
        run.load(SESSIONS, clients=256, seconds=SECONDS)
        run.settle(deadline_s=90)
        bad = [answer for answer in run.answers if not answer.good]
        lost = run.lost()
        count = complaints(run, *invariants, one_call_at_a_time, only_retryable_503, who_is_lost_hears_so,
                           no_cookie_cleared)
        what = ", ".join(f"{text} {times} times" for text, times in run.done.items())
        report(f"(1{name}) {SESSIONS:,} sessions, {SECONDS} s, {what}", f"{len(run.answers):,} requests",
               f"{len(run.record.calls):,} renewals, {sum(1 for call in run.record.calls if call.stored):,} stored")
        report(f"(1{name}) sessions lost", f"{len(lost)}", lost_wanted(run), good=count == 0)
        sent_twice = len(run.record.tokens_sent_twice()) if behaviours else 0
        report(f"(1{name}) refresh tokens used twice", f"{sent_twice}" if behaviours else "(no rotation)",
               "wanted: 0 but of those lost", good=sent_twice == 0)
        statuses = ", ".join(f"{sum(1 for a in bad if a.status == status)} x {status}"
                             for status in sorted({a.status for a in bad}))
        report(f"(1{name}) failures that were no retryable 503", f"{len(only_retryable_503(run))}",
               f"wanted: 0 (of {len(bad):,} failures: {statuses or 'none'}; 401 are of lost sessions)",
               good=not only_retryable_503(run))


def figure_1():
    many_sessions("a", kill_a_worker, {}, [no_session_lost], lambda run: "wanted: 0 (no rotation, SIGKILL)")
    many_sessions("b", end_a_worker, ROTATING, [no_session_lost, no_refresh_token_twice],
                  lambda run: "wanted: 0 (rotation, SIGTERM)")

    def in_flight(run):
        lost, doomed = {session.name for session in run.lost()}, run.record.doomed()
        same = "the very ones" if lost == doomed else f"{len(lost - doomed)} others, {len(doomed - lost)} not"
        return (f"wanted: the {len(doomed)} whose new token a killed worker had not stored: {same}; "
                f"in flight there: {len(run.record.in_flight_when_killed() | doomed)}")
    many_sessions("c", kill_a_worker, ROTATING, [lost_are_the_doomed, no_refresh_token_twice], in_flight)


# 2


def figure_2():
    for how in ("does not answer", "is gone"):
        with Scenario(settings={**QUIET, "STORE_TIMEOUT_MS": 500}) as run:
            run.begin(expires_in=3600)
            run.log_in(50)
            redis = run.stack.redis
            stopper = threading.Timer(1, redis.pause if how == "does not answer" else redis.kill)
            stopper.start()
            run.load(50, clients=20, seconds=11, pause_s=0.05)
            away = [answer for answer in run.answers if not answer.good]
            back = redis.cont if how == "does not answer" else redis.start
            back()
            first = run.ask(run.sessions[0])
            slowest = max(answer.seconds for answer in run.answers)
            report(f"(2) Redis {how} for 10 s: slowest answer", f"{slowest * 1000:.0f} ms",
                   f"wanted: 600 ms ({len(away):,} failures)", good=slowest <= 0.6)
            odd = sum(1 for answer in away if not answer.retryable)
            report(f"(2) Redis {how}: failures that were no 503 with Retry-After", f"{odd}", "wanted: 0", good=not odd)
            report(f"(2) Redis {how}: first request after its return", f"{first.status}", "wanted: 200",
                   good=first.good)
            cleared = len(no_cookie_cleared(run))
            report(f"(2) Redis {how}: cookies cleared", f"{cleared}", "wanted: 0", good=not cleared)


# 3


def figure_3():
    with Scenario(settings={**QUIET, "UPSTREAM_TIMEOUT_MS": 1000}, redis_direct=True) as run:
        run.begin(expires_in=3600)
        valid = run.log_in(50)
        run.spotify.behave("token", expires_in=2)
        expired = run.log_in(200)
        time.sleep(2)
        routes = (("/token", "GET"),)

        def p99():
            run.answers = []
            run.load_of(valid, clients=4, seconds=2, pause_s=0.005, routes=routes)
            assert all(answer.good for answer in run.answers)
            return percentile([answer.seconds for answer in run.answers], 0.99)
        before, away = [], []
        for _ in range(5):  # in turn, since the machine is not the same from one half minute to the next
            run.spotify_is_away(False)
            wait_until(lambda: all([run.ask(session).good for session in expired[:8]]), 20, "Spotify")
            before.append(p99())
            run.spotify_is_away(True)
            time.sleep(2)  # the tokens run out
            run.load_of(expired, clients=16, seconds=2, pause_s=0.01, routes=routes)
            away.append(p99())
        usual, during = statistics.median(before), statistics.median(away)
        run.answers = []
        known = [len(service.log_lines()) for service in run.stack.services]
        run.load_of(expired, clients=4, seconds=4, pause_s=0.01, routes=routes)
        inside = [line["us"] / 1e6 for service, before in zip(run.stack.services, known)
                  for line in service.log_lines()[before:] if line.get("status") == 503]
        refused = [answer for answer in run.answers if not answer.good]
        odd = sum(1 for answer in refused if not answer.retryable)
        run.spotify_is_away(False)
        begun = time.monotonic()
        wait_until(lambda: all([run.ask(session).good for session in expired[:8]]), 20, "Spotify", 0)
        back = time.monotonic() - begun
        report("(3) Spotify away: p99 of /token with a valid token, before", f"{usual * 1000:.2f} ms")
        report("(3) the same while it is away", f"{during * 1000:.2f} ms", f"wanted: at most {1.25:.2f} times, "
               f"is {during / usual:.2f}", good=during <= 1.25 * usual)
        slow = percentile([answer.seconds for answer in refused], 0.99)
        report("(3) expired tokens, the breaker is open: p50 and p99 of the 503, in the service",
               f"{statistics.median(inside) * 1000:.1f}, {percentile(inside, 0.99) * 1000:.1f} ms",
               f"wanted: under 5 ms ({len(inside):,} answers)", good=percentile(inside, 0.99) < 0.005)
        report("(3) the same, as the client saw it",
               f"{statistics.median(a.seconds for a in refused) * 1000:.1f}, {slow * 1000:.1f} ms")
        report("(3) of these no 503 with Retry-After", f"{odd}", "wanted: 0", good=not odd)
        report("(3) all workers serve renewals after Spotify's return", f"{back:.2f} s", "wanted: 1 s", good=back <= 1)


# 4


def figure_4():
    with Scenario() as place:
        clock = Clock(pathlib.Path(place.directory) / "time")
        with Scenario(settings={**clock.settings(), **QUIET}) as run:
            run.begin(expires_in=2)
            run.log_in(200)
            run.spotify.behave("token", refresh_refusal="invalid")
            for _ in range(12):
                clock.advance(10)
                run.load(200, clients=16, seconds=0.5)
            refused = sum(1 for answer in run.answers if answer.error == "login_required")
            run.spotify.behave("token", refresh_refusal=None)
            clock.advance(61)
            run.settle()
            report("(4) false refusal of all renewals for 2 minutes: sessions ended, of 200", f"{len(run.lost())}",
                   f"wanted: 0 ({refused:,} times login_required meanwhile)", good=not run.lost())
            cleared = len(no_cookie_cleared(run))
            report("(4) cookies cleared", f"{cleared}", "wanted: 0", good=not cleared)
            clock.advance(700)  # what was refused is forgotten
            run.settle()
            gone, others = run.sessions[:10], run.sessions[10:]
            for session in gone:
                run.spotify.revoke(user=session.user)
            clock.advance(5)
            first = [run.ask(session) for session in gone]
            rest = [run.ask(session) for session in others[:60]]
            report("(4) true refusal of 10: login_required at the first",
                   f"{sum(1 for a in first if a.error == 'login_required' and not a.sets_cookie)}",
                   f"wanted: 10, cookies kept ({sum(1 for a in rest if a.good)} of {len(rest)} others renewed)",
                   good=all(a.error == "login_required" and not a.sets_cookie for a in first))
            clock.advance(301)
            for session in others[:60]:
                run.ask(session)
            second = [run.ask(session) for session in gone]
            report("(4) ended at the second, five minutes later", f"{sum(1 for a in second if a.sets_cookie)}",
                   "wanted: 10, cookies cleared", good=all(a.status == 401 and a.sets_cookie for a in second))


# 5


WRK_SCRIPT = """
-- One request in turn for each session; every connection waits so long between two that all make RATE a second.
math.randomseed(@seed@)
local cookies = {@cookies@}
local routes = {{"GET", "/auth/token"}, {"GET", "/auth/token"}, {"GET", "/auth/session"}, {"POST", "/auth/refresh"}}
function request()
    local route = routes[math.random(#routes)]
    return wrk.format(route[1], route[2], {["Cookie"] = cookies[math.random(#cookies)],
        ["X-Requested-With"] = "wrk", ["Sec-Fetch-Site"] = "same-origin", ["Content-Length"] = "0"})
end
function delay() return math.random(0, 2 * @pause_ms@) end
local seen = {}
function response(status) statuses = (statuses or "") if status ~= 200 then bad = (bad or "") .. status .. " " end end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done() for _, thread in ipairs(threads) do print("bad: " .. (thread:get("bad") or "")) end end
"""


def figure_5():
    with Scenario(settings=QUIET) as run:
        run.begin(expires_in=3600)
        run.log_in(200)
        connections, wanted, seconds = 64, 2200, 30
        script = pathlib.Path(run.directory) / "load.lua"
        script.write_text(WRK_SCRIPT.replace("@seed@", str(run.seed))
                          .replace("@cookies@", ", ".join(f'"{session.cookie}"' for session in run.sessions))
                          .replace("@pause_ms@", str(round(connections / wanted * 1000))))
        wrk = subprocess.Popen([find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
                                "-s", str(script), run.stack.url], stdout=subprocess.PIPE, text=True)
        restarts, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds - 5:
            for service in run.stack.services:
                assert service.stop(signal.SIGTERM) == 0
                service.start()
                restarts += 1
        out = wrk.communicate(timeout=60)[0]
        requests = int(re.search(r"(\d+) requests in", out)[1])
        errors = re.search(r"Socket errors: .*", out)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        statuses = re.search(r"bad: (.*)", out)[1].split()
        report(f"(5) rolling restart, {restarts} processes one after the other in {seconds} s",
               f"{requests / seconds:,.0f} requests/s", "wanted: 2,000", good=requests / seconds >= 2000)
        report("(5) requests lost", errors[0] if errors else "0", "wanted: 0", good=not errors)
        report("(5) answers other than 200", bad[1] if bad else "0",
               f"wanted: 0, not one 502 {' '.join(sorted(set(statuses)))}", good=not bad)


# 6, and how soon the waiters know


def figure_6():
    with Scenario(settings=QUIET) as run:
        run.begin(latency=0.1, **ROTATING)
        run.spotify.behave("token", grant="authorization_code", expires_in=1)
        sessions = run.log_in(100)
        run.spotify.behave("token", grant="authorization_code", expires_in=None)
        time.sleep(1.5)
        delays, bad = [], 0
        for session in sessions:
            answers = run.storm(session, 200)
            bad += sum(1 for answer in answers if not answer.good)
            stored = run.record.stored_at[session.name]
            delays += [answer.begun + answer.seconds - stored for answer in answers]
        calls = run.spotify.calls(grant="refresh_token")
        report("(6) 100 storms of 200 parallel requests on an expired session: calls to Spotify", f"{calls}",
               f"wanted: 100 ({bad} failures, {len(run.record.looked)} workers looked)", good=calls == 100 and not bad)
        few = [delay for _ in range(20) for delay in run.delays_of_waiters(run.expired_session(), 16)]
        report("(6) waiters, 16 at a time: answered after the result was stored, p50 and p99",
               f"{statistics.median(few) * 1000:.0f}, {percentile(few, 0.99) * 1000:.0f} ms",
               "wanted: 50 ms (other workers look every 20 ms)", good=percentile(few, 0.99) <= 0.05)
        report("(6) the same, 200 at a time (the client is as slow as the service)",
               f"{statistics.median(delays) * 1000:.0f}, {percentile(delays, 0.99) * 1000:.0f} ms")


PARTS = {"1": figure_1, "2": figure_2, "3": figure_3, "4": figure_4, "5": figure_5, "6": figure_6}


def main():
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
    lines = ["| measured | figure | |", "|---|---:|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    (TREE / "build").mkdir(exist_ok=True)
    (TREE / "build" / "faults.md").write_text("\n".join(lines) + "\n")
    print(f"\n{len(rows) - len(failures)} figures as wanted, {len(failures)} not. Written to build/faults.md")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
