"""What Spotify's token endpoint may answer to a code: a login takes what RFC 6749 5.1 allows, and
anything else ends at return_to without a session (contract A.12, C.3 31-35)."""

import itertools

import pytest

from browser import Browser, redirect_of
from conftest import running

UNAVAILABLE = "temporarily_unavailable"
REFUSED = "login_failed"

# What is no usable answer: nobody's fault, so the person may try again.
UNUSABLE = [
    *({"access_token": kind} for kind in ("missing", "empty", "null", "number", "object")),
    {"access_token_length": 8193},
    {"access_token_length": 60000},
    {"refresh_token": "number"},
    {"refresh_token_length": 8193},
    *({"token_type": kind} for kind in ("mac", "missing", "null", "", "Bearer ", "bearer,mac")),
    *({"expires_in": value} for value in (0, -1, 2**64, "", "x", "-5", "1e3", 1.5, True, [], {})),
    {"scope": 'a"b'},
    {"scope": "a\\b"},
    {"scope": "caf\u00e9"},
    {"extra_fields": {"scope": ["streaming"]}},
    {"extra_fields": {"token_type": 1}},
    *({"json_shape": shape} for shape in (
        "duplicate_keys", "deep_nesting", "truncated", "trailing_garbage", "array", "string", "null",
        "number", "empty", "not_json", "html", "bom")),
    *({"poison": poison} for poison in (
        "nul", "raw_nul", "invalid_utf8", "control", "raw_control", "newline", "lone_surrogate",
        "unicode")),
    *({"poison": poison, "poison_field": field}
      for field in ("refresh_token", "scope", "token_type")
      for poison in ("nul", "raw_nul", "invalid_utf8", "raw_control", "lone_surrogate")),
    {"body_size": 65537},
    {"body_size": 1 << 20},
    {"body_size": 65537, "chunked": True},
]

# Answers of other statuses; those without JSON of an error say nothing about the code.
STATUSES = [
    *({"status": status} for status in (201, 204, 301, 302, 303, 307, 308, 403, 404, 405, 418, 500,
                                        502, 503, 504)),
    *({"status": 429, "status_body": body} for body in ("json", "text", "empty", "html")),
    *({"status": 400, "status_body": body} for body in ("html", "text", "empty")),
    {"status": 401, "status_body": "empty"},
    {"status": 302, "status_body": "empty", "location": "https://127.0.0.1:9/"},
    {"token_error": "invalid_grant", "token_error_status": 500},
    {"token_error": "invalid_grant", "token_error_status": 403},
]

# How an answer can be lost on its way.
BROKEN = [
    *({way: stage} for way in ("reset", "early_close")
      for stage in ("before", "after", "headers", "body")),
    *({"content_length": kind} for kind in ("short", "long", "negative", "text")),
    {"garbage": True},
    {"header_size": 1 << 20},
]

# The code, or the whole service, refused in RFC 6749's words.
REFUSALS = [
    *({"code_refusal": kind} for kind in ("invalid", "expired", "redirect", "verifier")),
    {"token_error": "invalid_client", "token_error_status": 400},
    {"token_error": "invalid_client", "token_error_status": 401},
    {"token_error": "unauthorized_client"},
    {"token_error": "invalid_grant", "token_error_text": None},
    {"token_error": "invalid_grant", "token_error_status": 401},
    {"token_error": "unsupported_grant_type"},
    {"token_error": "invalid_request", "token_error_text": "<script>marked-by-test</script>"},
]

GOOD = [
    *({"token_type": kind} for kind in ("Bearer", "bearer", "BEARER")),
    *({"access_token_length": length} for length in (83, 582, 2048, 8192)),
    {"refresh_token_length": 1},
    {"refresh_token_length": 8192},
    {"access_token_length": 8192, "refresh_token_length": 8192},
    {"poison": "quote"},
    {"extra_fields": {"id_token": "x", "unknown": {"a": [1, 2]}, "error": None}},
    {"content_type": "text/plain"},
    {"content_type": "application/json; charset=ISO-8859-1"},
    {"content_length": "missing"},
    {"chunked": True},
    {"interim": True},
    {"connection_close": True},
    {"slow_headers": 0.2},
    {"slow_body": 0.2},
    {"latency": 0.2},
    {"answer_delay": 0.2},
    {"body_size": 65536},
    {"header_size": 8192},
    {"extra_headers": {"Set-Cookie": "from-spotify=1", "X-Empty": ""}},
]


def sessions(stack):
    with stack.redis.client() as redis:
        return set(redis.scan_iter("spotify-auth:session:*", count=1000))


def callback_url(browser, **parameters):
    return browser.approve(redirect_of(browser.authorize(**parameters)))


@pytest.fixture(autouse=True)
def unharmed(stack):
    """No answer of Spotify's ends a worker, or is followed to another place."""
    workers = [service.workers() for service in stack.services]
    yield
    with stack.redis.client() as redis:
        redis.delete("spotify-auth:backoff")
    assert [service.workers() for service in stack.services] == workers
    assert stack.spotify.calls("elsewhere") == 0


def tries(behaviour):
    """Of the one redemption: these two say that nobody took the request."""
    return 3 if behaviour in ({"status": 502}, {"status": 503}) else 1


def expect_no_session(stack, behaviour, error):
    browser, before = Browser(stack), sessions(stack)
    stack.spotify.behave("token", **behaviour)
    url = callback_url(browser, return_to="/app?x=1")
    for _ in range(2):  # a reload makes no second call
        answer = browser.callback(url)
        assert answer.status_code == 303
        assert answer.headers["Location"] == f"/app?x=1&error={error}"
        assert "Set-Cookie" not in answer.headers
        assert "marked-by-test" not in answer.text + str(answer.headers)
    assert sessions(stack) == before
    assert stack.spotify.calls("token") == tries(behaviour) and stack.spotify.calls("api") == 0
    assert browser.session().json()["authenticated"] is False


@pytest.mark.parametrize("behaviour", UNUSABLE, ids=str)
def test_33_unusable_answer_gives_no_session(stack, behaviour):
    expect_no_session(stack, behaviour, UNAVAILABLE)


@pytest.mark.parametrize("behaviour", STATUSES, ids=str)
def test_32_59_other_status_gives_no_session_and_is_not_followed(stack, behaviour):
    expect_no_session(stack, behaviour, UNAVAILABLE)


@pytest.mark.parametrize("behaviour", BROKEN, ids=str)
def test_broken_answer_gives_no_session_and_no_second_call(stack, behaviour):
    expect_no_session(stack, behaviour, UNAVAILABLE)


@pytest.mark.parametrize("behaviour", REFUSALS, ids=str)
def test_refusal_gives_no_session(stack, behaviour):
    expect_no_session(stack, behaviour, REFUSED)


def test_contradicting_content_lengths_harm_nobody(stack, browser):
    stack.spotify.behave("token", content_length="two")
    assert browser.callback(callback_url(browser)).status_code == 303


@pytest.mark.parametrize("retry_after", [0, -5, "date", "huge", "soon", "", "5, 6", "99999999999999"])
def test_retry_after_of_any_form_is_survived(stack, browser, retry_after):
    stack.spotify.next(1, status=429, retry_after=retry_after)
    answer = browser.callback(callback_url(browser))
    assert answer.headers["Location"] == f"/?error={UNAVAILABLE}"


@pytest.mark.parametrize("behaviour", GOOD, ids=str)
def test_34_good_answer_gives_a_session(stack, browser, behaviour):
    stack.spotify.behave("token", **behaviour)
    assert redirect_of(browser.callback(callback_url(browser, return_to="/app"))) == stack.url + "/app"
    assert browser.session().json()["authenticated"] is True
    stack.spotify.behave("token", **dict.fromkeys(behaviour))
    answer = browser.token()
    assert answer.status_code == 200 and answer.json()["token_type"] == "Bearer"
    length = behaviour.get("access_token_length")
    assert length is None or len(answer.json()["access_token"]) == length


@pytest.mark.parametrize("expires_in, seconds", [
    (1, 1), (3600, 3600), ("3600", 3600), ("missing", 3600), (86400, 86400), ("null", 3600),
    (3600.0, 3600), (31536001, 31536000), (10**12, 31536000), ("1000000000000", 31536000),
    (2**63 - 1, 31536000), (1e99, 31536000),
])
def test_expires_in_is_taken_as_number_or_text(stack, browser, expires_in, seconds):
    stack.spotify.behave("token", grant="authorization_code", expires_in=expires_in)
    assert browser.callback(callback_url(browser)).headers["Location"] == "/"
    left = browser.session().json()["expires_in"]
    assert seconds - 10 <= left <= seconds


ASKED = "user-read-private streaming"


@pytest.mark.parametrize("scope, granted", [
    ("as_asked", ASKED), ("reduced", "user-read-private"), ("missing", ASKED), ("null", ASKED),
    ("user-read-email user-read-private", "user-read-email user-read-private"),
    ("something-new", "something-new"),
])
def test_35_scope_is_what_was_granted_or_as_asked(stack, browser, scope, granted):
    stack.spotify.behave("token", scope=scope)
    assert browser.callback(callback_url(browser, scope=ASKED)).headers["Location"] == "/"
    assert browser.session().json()["scope"] == granted
    assert browser.token().json()["scope"] == granted


@pytest.fixture(scope="module")
def hasty():
    """A service that waits for Spotify for half a second."""
    with running(workers=1, settings={"UPSTREAM_TIMEOUT_MS": 500}) as stack:
        yield stack


@pytest.mark.parametrize("behaviour", [
    *({"hang": stage} for stage in ("before", "after", "headers", "body")),
    {"slow_headers": 5}, {"slow_body": 5}, {"latency": 5}, {"answer_delay": 5},
], ids=str)
def test_answer_that_takes_too_long_gives_no_session(hasty, behaviour):
    hasty.spotify.reset("behaviour", "hanging", "counters", "log")
    try:
        expect_no_session(hasty, behaviour, UNAVAILABLE)
    finally:
        hasty.spotify.reset("behaviour", "hanging")


def test_service_takes_the_next_login_after_all_that(stack, browser):
    for behaviour in itertools.islice(UNUSABLE, 0, None, 7):
        stack.spotify.next(1, **behaviour)
        browser.login()
    assert redirect_of(browser.login()) == stack.url + "/"
    assert browser.session().json()["authenticated"] is True
