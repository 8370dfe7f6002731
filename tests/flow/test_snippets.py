"""The Python of the README, word for word but for the address and the secret."""

import json
import os
import re
import subprocess

import pytest

from browser import Browser
from clients import Client
from conftest import running
from stack import TREE, wait_until
from terminal import Terminal, connect

JOB = Client("report-job")
SHOWN = "\nimport json; print(json.dumps(dict(token)))"


@pytest.fixture(scope="module")
def stack():
    with running(services=1, workers=1, settings={"SERVICE_CLIENTS": JOB.entry, "DEVICE_LOGIN": "on"}) as stack:
        yield stack


def start(stack, heading, directory, **names):
    """The heading's Python, with an end that prints the token."""
    text = (TREE / "README.md").read_text().partition(f"\n### {heading}\n")[2]
    script = re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)[1].replace("https://example.com", stack.url)
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return subprocess.Popen(["/usr/bin/python3", "-c", given + script + SHOWN], cwd=directory, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={**os.environ, "no_proxy": "*"})


def token_of(program):
    said, _ = program.communicate(timeout=60)
    assert program.returncode == 0, said
    return json.loads(said.splitlines()[-1])


def test_a_server_gets_the_app_token(stack, tmp_path):
    token = token_of(start(stack, "For servers", tmp_path, SECRET=JOB.secret))
    assert token["access_token"] in stack.spotify.secrets("access_token")


def test_a_terminal_polls_until_the_person_has_agreed_and_needs_nobody_later(stack, tmp_path):
    program = start(stack, "For terminals", tmp_path)
    try:
        address = program.stdout.readline().split()[1]
        asked = len(polls(stack))
        wait_until(lambda: len(polls(stack)) > asked, 30, "a question too early")
        terminal = Terminal(stack)
        terminal.codes = {"user_code": address.partition("user_code=")[2]}
        connect(Browser(stack), terminal)
        token = token_of(program)
    finally:
        program.kill()
        program.wait()
    assert token["access_token"] in stack.spotify.secrets("access_token")
    kept = tmp_path / "handle"
    assert kept.read_text() == token["refresh_token"] and kept.stat().st_mode & 0o777 == 0o600
    assert token_of(start(stack, "For terminals", tmp_path))["access_token"] in stack.spotify.secrets("access_token")


def polls(stack):
    return [line for line in stack.services[0].log_lines() if line.get("route") == "/api/token"]
