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
    known = [service.log_path.stat().st_size for service in shared.stack.services]
    yield shared
    for service, size in zip(shared.stack.services, known):  # seen where the test fails
        with service.log_path.open() as log:
            log.seek(size)
            print(*(line for line in log if '"route"' not in line), sep="", end="")
    for service in shared.stack.services:
        assert service.alive
        service.check_sanitizers()
