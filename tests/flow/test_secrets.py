"""The last test of a run: nothing secret stands in any log, in Redis or in any answer where it must not."""

from browser import RECORDER


def test_41_52_66_80_no_secret_in_logs_redis_or_answers(shared_stack, evidence):
    evidence.add_stack(shared_stack)
    assert evidence.leaks() == []
    assert len(evidence.texts) > 5 and len(RECORDER.answers) > 5 and len(evidence.secrets) > 5


def test_the_search_finds_what_is_there(shared_stack, evidence):
    """A search that cannot fail would prove nothing: plant one secret of each kind and find it."""
    from evidence import Evidence
    planted = Evidence()
    planted.secrets = {secret: kind for secret, kind in evidence.secrets.items()}
    for secret, kind in planted.secrets.items():
        planted.texts.append((kind, f"before{secret}after"))
        if len(planted.texts) > 2000:
            break
    assert {(kind, kind) for _, kind in list(planted.secrets.items())[:2000]} <= set(planted.leaks())
