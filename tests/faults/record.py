"""What happened, as the proxies saw it: the calls to Spotify, what became of their results, who was killed."""

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass

from proxy import Rule


# A worker that gives a call up closes its connection; one that had its answer keeps it for the next call.
CLOSING_S = 1
# A worker that was stopped between its last look at the clock and the write sends within so long of its waking.
SLIP_S = 0.1


@dataclass(eq=False)
class Call:
    """R4 to R5 of one renewal: Spotify has been asked."""

    session: str
    token: str
    pid: int
    connection: object
    sent_at: float
    rotated: bool = False  # Spotify has carried it out: the token that was sent is of no use any more
    delivered: bool = False  # the answer went to the worker
    given_up: bool = False  # but the worker had closed the connection: on a busy machine it may be late
    refused: bool = False
    stored: bool = False
    killed: bool = False  # its worker was, before the result was stored
    overslept: bool = False  # its worker stood still until its lease had run out: another may have sent the token again

    @property
    def doomed(self):
        """The new token was nowhere but in the worker that was killed, or on its way there."""
        return self.killed and self.rotated and not self.stored

    @property
    def in_flight_to_the_end(self):
        """Nobody could save its result: the answer did not reach the worker, or the worker did not live to store it."""
        has_reached_nobody = self.killed or self.given_up or not self.delivered
        return self.overslept or not self.stored and not self.refused and has_reached_nobody


class Record:
    def __init__(self, deadline_s, lease_s):
        self.deadline_s = deadline_s  # of one call to Spotify
        self.lease_s = lease_s
        self.rules = []
        self.dead = set()
        self.stops = set()  # under way
        self.owners = {}  # refresh token: session
        self.clear()

    def clear(self):
        self.calls = []
        self.takers = {}  # session: pid of who has its lease, or had it last
        self.open = {}  # (pid, session): the Call whose result is not stored
        self.sent = Counter()  # refresh token: how often
        self.on_their_way = {}  # refresh token: the Call that has no answer yet
        self.generations = {}  # session: the newest that was stored
        self.stored_at = {}  # session: when
        self.looked = Counter()  # pid: R6
        self.steps = Counter()
        self.woken_at = 0
        self.slips = 0  # how many more are excused
        self.violations = []
        self.done = Counter()  # faults, by name

    def add_rule(self, step, action, times):
        self.rules.append(Rule(step, action, times))

    # What the proxies say

    def see(self, connection, message):
        """Before it passes: the rule for it, if any."""
        self.steps[message.step] += 1
        if message.facts.get("word") == b"taken":  # at R3, or at the last look of a waiter
            self.takers[message.session] = connection.pid
        elif message.step == "R4 before":
            message.facts["pid"] = self.takers.get(self.owners.get(message.token))
        elif message.step == "R4 after":
            self._answered(message)
        elif message.step == "R5 after":
            self._stored(connection, message)
        elif message.step == "R6 before":
            self.looked[connection.pid] += 1
        for rule in self.rules:
            if rule.step == message.step and rule.left > 0:
                rule.left -= 1
                return rule
        return None

    def passed(self, connection, message):
        if message.step == "R4 before":
            self._sent(connection, message)
        elif message.step == "R4 after" and message.facts.get("is_waited_for"):
            message.facts["call"].delivered = True

    def ended(self, connection):
        for token, call in list(self.on_their_way.items()):
            if call.connection is connection:
                del self.on_their_way[token]
        last = connection.last_call
        if last is not None and not last.stored and time.monotonic() - last.sent_at < self.deadline_s + CLOSING_S:
            last.given_up = True

    def _sent(self, connection, message):
        session = self.owners.get(message.token)
        pid = message.facts["pid"]
        call = Call(session, message.token, pid, connection, time.monotonic(), killed=pid in self.dead)
        connection.last_call = message.facts["call"] = call
        if message.token in self.on_their_way:
            self.violations.append(f"two calls at once for {session}")
        self.calls.append(call)
        if self._is_slip(message.token):
            self.slips -= 1
            call.overslept = True
        else:
            self.sent[message.token] += 1
        self.open[call.pid, session] = self.on_their_way[message.token] = call

    def _is_slip(self, token):
        """No program can help being stopped just before a write; but a worker does one thing at a time, so that each
        stop excuses one call."""
        return self.slips > 0 and self.sent[token] > 0 and time.monotonic() - self.woken_at < SLIP_S

    def _answered(self, message):
        call = message.facts.get("call")
        if call is None:
            return
        if self.on_their_way.get(message.token) is call:
            del self.on_their_way[message.token]
            message.facts["is_waited_for"] = True
        if "new_token" in message.facts:
            self.owners[message.facts["new_token"]] = call.session
            call.rotated = message.facts["new_token"] != call.token
        else:
            call.refused = 400 <= message.facts["status"] < 600

    def _stored(self, connection, message):
        session, generation = message.session, message.facts["generation"]
        if message.facts["word"] == b"done":
            if generation <= self.generations.get(session, 0):
                self.violations.append(f"generation {generation} stored over {self.generations[session]} of {session}")
            self.generations[session] = generation
            self.stored_at[session] = time.monotonic()
            call = self.open.pop((connection.pid, session), None)
            if call is not None:
                call.stored = True

    # What is done to workers

    def kill(self, pid):
        for call in self._open_of(pid):
            call.killed = True
        self.dead.add(pid)
        self.signal(pid, signal.SIGKILL)

    @staticmethod
    def signal(pid, number):
        """One that has ended meanwhile needs none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def stood_still(self, pid):
        """It is to go on: its leases began up to a second before their calls."""
        self.woken_at, self.slips = time.monotonic(), 1
        for call in self._open_of(pid):
            call.overslept = time.monotonic() - call.sent_at > self.lease_s - 1

    def _open_of(self, pid):
        return [call for (owner, _), call in self.open.items() if owner == pid]

    # What follows

    def in_flight_to_the_end(self):
        """Sessions whose last renewal ended with its worker or with its answer."""
        return {call.session for call in self.calls if call.in_flight_to_the_end}

    def in_flight_when_killed(self):
        return {call.session for call in self.calls if call.killed and not call.stored and not call.refused}

    def doomed(self):
        return {call.session for call in self.calls if call.doomed}

    def tokens_sent_twice(self):
        """Refresh tokens that were sent again though the first call's result was stored."""
        good = {call.token for call in self.calls if call.stored and not call.overslept}
        return {token for token, count in self.sent.items() if count > 1 and token in good}
