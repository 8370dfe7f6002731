"""Something breaks at each step of a renewal in turn, with refresh tokens that rotate and a Spotify that kills the
whole grant when a rotated one comes again."""

import pytest

from invariants import (ALWAYS, answered_within, lost_are_the_doomed, no_cookie_cleared, no_session_lost,
                        one_call_at_a_time, only_retryable_503, who_is_lost_hears_so)
from messages import STEPS
from scenario import LEASE_S, STORE_TIMEOUT_MS, UPSTREAM_TIMEOUT_MS, cut, delay, garble, halve, kill, stop

# What is lost at these, nobody can save: Spotify has given a new token, and it is nowhere but in this worker. "R4
# before" a call has not been sent, "R5 after" the result is stored.
FATAL = ("R4 after", "R5 before")
REDIS_STEPS = [step for step in STEPS if "R4" not in step]
LONGER_THAN_THE_LEASE_S = LEASE_S + 0.5
SHORTER_THAN_THE_LEASE_S = UPSTREAM_TIMEOUT_MS / 1000 + 1
NOBODY_WAITS_LONGER_S = LONGER_THAN_THE_LEASE_S + 2 * LEASE_S
ROTATING = {"rotation": "new", "kill_grant_on_reuse": True}

late = delay(max(STORE_TIMEOUT_MS, UPSTREAM_TIMEOUT_MS) / 1000 + 0.2)
late.__name__ = "late"
BREAKS = [cut, late, halve, garble]


def break_at(run, step, action, **behaviours):
    run.begin(latency=0.1, **behaviours)
    run.log_in(6)
    run.at(step, action)
    run.load(sessions=6, clients=24, seconds=1.5)
    run.happened(step)
    run.settle()


def in_turn(names, actions, quick):
    """Each action at each step; `make test` has time for those of quick."""
    return [pytest.param(step, action, id=f"{step} {action.__name__}",
                         marks=[] if quick(step, action) else pytest.mark.long)
            for step in names for action in actions]


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_is_killed(run, step):
    break_at(run, step, kill, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S))
    run.hold(lost_are_the_doomed, who_is_lost_hears_so)
    if step in FATAL:
        assert run.lost(), "the renewal at that step was seen to go down: that the others live is no luck"


@pytest.mark.parametrize("step, action", in_turn(STEPS, [stop(LONGER_THAN_THE_LEASE_S)],
                                                 lambda step, _: step in ("R3 after", "R5 before")))
def test_a_worker_stands_still_for_longer_than_its_lease(run, step, action):
    break_at(run, step, action, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S))


@pytest.mark.parametrize("step, action", in_turn(STEPS, [stop(SHORTER_THAN_THE_LEASE_S)],
                                                 lambda step, _: step == "R4 after"))
def test_what_came_while_a_worker_stood_still_is_read(run, step, action):
    """For longer than it would have waited: a new token that lies there is the only one that works."""
    break_at(run, step, action, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S), no_session_lost)


@pytest.mark.parametrize("step, action", in_turn(FATAL, [stop(LONGER_THAN_THE_LEASE_S)],
                                                 lambda step, _: step == "R5 before"))
def test_a_late_write_does_not_undo_a_newer_renewal(run, step, action):
    """Where an old token works on, another worker renews meanwhile, and the late one's result is of the past."""
    break_at(run, step, action, rotation="new_keep_old")
    run.hold(one_call_at_a_time, only_retryable_503, no_cookie_cleared, no_session_lost,
             answered_within(NOBODY_WAITS_LONGER_S))


@pytest.mark.parametrize("step, action", in_turn(REDIS_STEPS, BREAKS, lambda step, action: step == "R5 after" or
                                                 action is cut))
def test_redis_breaks_off_and_nobody_is_lost(run, step, action):
    break_at(run, step, action, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S), no_session_lost)


@pytest.mark.parametrize("step, action", in_turn(["R4 before"], BREAKS, lambda _, action: action is halve))
def test_a_call_that_spotify_never_had_whole_costs_nobody_anything(run, step, action):
    break_at(run, step, action, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S), no_session_lost)


@pytest.mark.parametrize("step, action", in_turn(["R4 after"], BREAKS, lambda _, action: action is garble))
def test_a_broken_answer_costs_nobody_anything_without_rotation(run, step, action):
    break_at(run, step, action)
    run.hold(only_retryable_503, one_call_at_a_time, no_cookie_cleared, no_session_lost,
             answered_within(NOBODY_WAITS_LONGER_S))


@pytest.mark.parametrize("step, action", in_turn(["R4 after"], BREAKS, lambda _, action: action is late))
def test_a_broken_answer_costs_only_its_own_session_with_rotation(run, step, action):
    break_at(run, step, action, **ROTATING)
    run.hold(*ALWAYS, answered_within(NOBODY_WAITS_LONGER_S))
    assert len(run.lost()) <= 1
