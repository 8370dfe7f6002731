"""Who waits for another's renewal gets its result soon, and one call to Spotify is enough for all."""

import statistics

from invariants import ALWAYS, no_session_lost
from scenario import cut
from stack import wait_until

STORM = 200
WANTED_S = 0.05


def test_waiters_in_other_workers_have_the_result_within_50_ms_of_its_being_stored(run):
    """They look every 20 ms. The median, because a machine that is busy with other things delays some."""
    run.begin(rotation="new", kill_grant_on_reuse=True, latency=0.2)
    delays = [delay for _ in range(5) for delay in run.delays_of_waiters(run.expired_session(), 80)]
    assert statistics.median(delays) < WANTED_S
    assert len(run.record.looked) >= 2, "workers that looked; the waiters of the leader's own are woken by it"
    run.hold(*ALWAYS, no_session_lost)


def test_a_storm_makes_one_call(run):
    run.begin(rotation="new", kill_grant_on_reuse=True, latency=0.2)
    sessions = [run.expired_session() for _ in range(5)]
    for session in sessions:
        answers = run.storm(session, STORM)
        assert [answer.status for answer in answers] == [200] * STORM
        assert len({answer.token for answer in answers}) == 1
    assert run.spotify.calls(grant="refresh_token") == len(sessions)


def test_a_result_that_could_not_be_written_is_kept_and_written_later(run):
    run.begin(rotation="new", kill_grant_on_reuse=True, expires_in=30)
    session = run.expired_session()

    async def cut_for_a_while(event):
        run.redis_goes_away(1)
        return await cut(event)
    run.at("R5 before", cut_for_a_while)
    first = run.ask(session)
    assert first.good, "handed out, though Redis does not have it yet"
    assert session.name not in run.record.stored_at
    wait_until(lambda: session.name in run.record.stored_at, 5, "the late write")
    assert run.ask(session).token == first.token
    assert run.spotify.calls(grant="refresh_token") == 1
    run.hold(*ALWAYS, no_session_lost)
