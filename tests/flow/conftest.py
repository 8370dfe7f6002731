"""Fixtures of the flow tests: real nginx, Redis and workers, and the simulated Spotify.

stack       one for the whole run: two service processes of two workers each on one Redis; the simulator is as new in
            every test
make_stack  a stack of the test's own: make_stack(services=1, settings={"LOGIN_TTL": 1})
browser     a new scripted browser on `stack`

Whatever answer of the service passes a client of tests/flow is held against openapi.yaml; one that is not as it says
there fails its test."""

import contextlib
import json
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import fastcgi  # noqa: E402
from browser import RECORDER, Browser  # noqa: E402
from chromium import chromium, page  # noqa: E402, F401
from description import DOCUMENT, Description, Witness  # noqa: E402
from evidence import Evidence  # noqa: E402
from sessions import close_breakers  # noqa: E402
from stack import Stack  # noqa: E402

LISTED_ORIGIN = "https://app.example.test"
APP_URIS = "party-player://spotify/callback,https://party.example.test/spotify"
EVIDENCE = Evidence()
WITNESS = Witness(Description(DOCUMENT.read_text()))


def pytest_configure(config):
    RECORDER.listener = WITNESS.hear_browser
    fastcgi.listeners.append(WITNESS.hear_fastcgi)
    config.addinivalue_line("markers", "late: runs after the tests of all files, because it waits for time to pass")


def pytest_collection_modifyitems(items):
    """The search for secrets comes last, when everything there is has been written."""
    items.sort(key=lambda item: (item.path.name == "test_secrets.py", item.get_closest_marker("late") is not None))


def pytest_sessionfinish():
    """For openapi_met.py."""
    if os.environ.get("OPENAPI_MET"):
        pathlib.Path(os.environ["OPENAPI_MET"]).write_text(json.dumps(sorted(WITNESS.description.met)))


def check_answers():
    complaints = WITNESS.complaints()
    assert not complaints, "not as openapi.yaml says: " + "; ".join(complaints[:10])


@pytest.fixture(autouse=True)
def answers_as_described():
    yield
    check_answers()


@contextlib.contextmanager
def running(**options):
    stack = Stack(**options).start()
    try:
        stack.spotify.limits(secrets=1_000_000)
        yield stack
    finally:
        with contextlib.suppress(Exception):  # a test may have ended one of the processes itself
            EVIDENCE.add_stack(stack)
        try:
            stack.stop()
        finally:
            for name, text in stack.logs().items():
                EVIDENCE.texts.append((f"log {name}", text))
            stack.remove()


@pytest.fixture(scope="session")
def shared_stack():
    settings = {"ALLOWED_ORIGINS": LISTED_ORIGIN, "LOG_LEVEL": "debug",
                "SWAP_REDIRECT_URIS": APP_URIS, "DEVICE_LOGIN": "on",
                "SPOTIFY_SCOPE_ALLOWED": "user-read-private user-read-email streaming playlist-read-private "
                                         "user-read-currently-playing user-read-recently-played"}
    with running(services=2, workers=2, settings=settings) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack):
    shared_stack.spotify.reset("behaviour", "hanging", "clock")
    close_breakers(shared_stack)
    shared_stack.spotify.reset("counters", "log")
    yield shared_stack
    shared_stack.spotify.reset("behaviour", "hanging", "clock")
    for service in shared_stack.services:
        assert service.alive
        service.check_sanitizers()


@pytest.fixture
def make_stack():
    with contextlib.ExitStack() as stacks:
        yield lambda **options: stacks.enter_context(running(**options))


@pytest.fixture
def browser(stack):
    return Browser(stack)


@pytest.fixture(scope="session")
def evidence():
    return EVIDENCE
