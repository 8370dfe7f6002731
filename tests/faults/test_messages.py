"""The tool sees what it says it sees."""

import hashlib

import pytest

from messages import SCRIPT_WORDS, RedisConnection, SpotifyConnection, resp, session_name
from stack import TREE

KEYS = [b"p:session:{abc}", b"p:lease:{abc}", b"p:replaced:{abc}"]
OLD, NEW = (1).to_bytes(8, "big"), (2).to_bytes(8, "big")


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def whole(split, data):
    """The message, which no shorter piece of it is."""
    for end in range(len(data)):
        assert split(data[:end], 0) is None, end
    message, end = split(data, 0)
    assert end == len(data)
    return message


@pytest.mark.parametrize("data, value", [
    (b"+OK\r\n", b"OK"), (b"-ERR no\r\n", b"-ERR no"), (b":7\r\n", 7), (b"$-1\r\n", None),
    (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
    (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", [b"a", [1]]), (b"*0\r\n", [])])
def test_a_value_of_redis(data, value):
    assert whole(resp, data) == value


def test_each_script_is_known_by_words_that_no_other_has():
    source = (TREE / "cgi" / "store" / "store_lease.c").read_text()
    for words in SCRIPT_WORDS:
        first = source.index(words.decode())
        begin, end = source.rindex("struct redis_script", 0, first), source.index("};", first)
        assert source.count(words.decode()) == source.count(words.decode(), begin, end)


@pytest.mark.parametrize("script, arguments, reply, before, after", [
    ("take", [OLD, b"me", b"9", b""], [b"taken", b"record"], "R2 before", "R3 after"),
    ("take", [OLD, b"me", b"9", b"you"], [b"held", b"you"], "R6 before", "R6 after"),
    ("commit", [b"me", OLD, NEW + b"sealed", b"9"], [b"done"], "R5 before", "R5 after"),
    ("commit", [b"me", OLD, OLD + b"mark", b"9"], [b"done"], None, None)])
def test_scripts_are_learnt_once_and_known_by_their_hash(script, arguments, reply, before, after):
    source = b"-- " + next(words for words, name in SCRIPT_WORDS.items() if name == script)
    sha = hashlib.sha1(source).hexdigest().encode()
    for first in ((b"EVAL", source), (b"EVALSHA", sha)):
        connection = RedisConnection()
        asked = connection.asked(command(*first, b"3", *KEYS, *arguments), 0)[0]
        answered = connection.answered(command(*reply), 0)[0]
        assert (asked.step, answered.step) == (before, after)
        assert asked.session == "abc"


def test_a_look_at_a_session_is_r1_and_other_commands_are_nothing():
    connection = RedisConnection()
    assert connection.asked(command(b"GET", b"p:session:{abc}"), 0)[0].step == "R1 before"
    assert connection.asked(command(b"GET", b"p:backoff"), 0)[0].step is None
    assert connection.answered(b"$1\r\nx\r\n", 0)[0].step == "R1 after"
    assert connection.answered(b"$-1\r\n", 0)[0].step is None


def test_a_renewal_at_spotify_is_r4_and_its_new_token_is_noted():
    connection = SpotifyConnection()
    form = b"grant_type=refresh_token&refresh_token=AQold"
    asked = whole(connection.asked, b"POST /api/token HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(form), form))
    body = b'{"access_token":"BQ","refresh_token":"AQnew"}'
    answered = whole(connection.answered, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert (asked.step, asked.token) == ("R4 before", "AQold")
    assert (answered.step, answered.token, answered.facts["new_token"]) == ("R4 after", "AQold", "AQnew")


def test_a_session_has_in_redis_the_name_that_the_service_gives_it(run):
    run.begin()
    session, = run.log_in(1)
    assert run.stack.redis.client().exists("spotify-auth:session:{%s}" % session.name)
    assert session.name == session_name(session.cookie.partition("=")[2])
