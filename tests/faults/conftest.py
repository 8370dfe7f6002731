"""run: a Scenario to begin(), on processes that all tests of a module share."""

import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

from scenario import Scenario  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes its time; `make test-faults` runs it, `make test` does not")


@pytest.fixture(scope="module")
def shared():
    with Scenario() as scenario:
        yield scenario


@pytest.fixture
def run(shared):
    print(f"SEED={shared.seed}")
    yield shared
    for service in shared.stack.services:
        assert service.alive
        service.check_sanitizers()
