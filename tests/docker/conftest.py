"""What these tests share: compose with its files and settings, and a scripted browser before it."""

import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import time
import types

import pytest

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TREE / "tests"), str(TREE / "tests" / "flow")]

from browser import Browser, redirect_of  # noqa: E402
from spotify import certificates  # noqa: E402
from spotify.control import Spotify  # noqa: E402

DOCKER = TREE / "docker"
CLIENT_ID = "0123456789abcdef0123456789abcdef"
OUTPUT_MAX = 3000


def docker(*words, check=True, timeout_s=120, **how):
    """stdout of a docker command; its stderr is in the error."""
    done = subprocess.run(["docker", *map(str, words)], stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout_s, **how)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout)[-OUTPUT_MAX:]
        raise AssertionError(f"docker {' '.join(map(str, words))}: {done.returncode}\n{said}")
    return done.stdout if check else done


def inspect(what):
    return json.loads(docker("inspect", what))[0]


def written(container):
    """What its file system has that the image does not, but for the places that something is mounted at."""
    mounts = [mount["Destination"] for mount in inspect(container)["Mounts"]]
    changes = [line.split(maxsplit=1)[1] for line in docker("diff", container).splitlines()]
    return [path for path in changes if not any((mount + "/").startswith(path + "/") for mount in mounts)]


def processes(container):
    """[(uid, gid, command line)] as the machine sees them."""
    lines = docker("top", container, "-eo", "pid,uid,gid,args").splitlines()[1:]
    return [tuple(line.split(maxsplit=3)[1:]) for line in lines]


def wait_until(condition, timeout_s, what, interval_s=0.05):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)
    return value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Compose:
    """docker/compose.yaml as a project of its own."""

    def __init__(self, profile, files=(), **settings):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redirect_uri = self.url + "/auth/callback"
        self.project = "spotify-auth-test-" + secrets.token_hex(3)
        files = [word for file in [DOCKER / "compose.yaml", *files] for word in ("-f", str(file))]
        self._words = ["compose", "-p", self.project, "--project-directory", DOCKER, *files, "--profile", profile]
        self.environment = {**os.environ, "PORT": str(self.port), "SIMULATED_PORT": str(free_port()),
                             "SPOTIFY_REDIRECT_URI": self.redirect_uri, **settings}

    def run(self, *words, **how):
        return docker(*self._words, *words, env=self.environment, **how)

    def up(self, *words):
        self.run("up", "-d", "--wait", "--wait-timeout", "90", "--no-build", *words)
        return self

    def down(self):
        self.run("down", "-v", "--timeout", "10")

    def scale(self, count):
        self.up("--no-recreate", "--scale", f"worker={count}")

    def containers(self, service):
        """Names of those that run, oldest first."""
        found = self.run("ps", "--format", "{{.Name}}", service).split()
        return sorted(found, key=lambda name: inspect(name)["Created"])

    def container(self, service):
        return self.containers(service)[0]

    def logs(self, *services):
        return self.run("logs", "--no-color", *services)

    def address(self, service, network):
        name = self.container(service)
        return inspect(name)["NetworkSettings"]["Networks"][f"{self.project}_{network}"]["IPAddress"]


def secret_files(folder):
    """As the README says how to make them."""
    folder.mkdir(mode=0o700)
    made = {
        "spotify_client_secret": secrets.token_hex(16),
        "session_keys": docker("run", "--rm", "--network", "none", "spotify-auth", "--new-key").strip(),
        "redis_url": f"redis://:{secrets.token_hex(24)}@redis:6379/0",
    }
    for name, value in made.items():
        (folder / name).write_text(value + "\n")
        (folder / name).chmod(0o644)
    return made


def client_of(name):
    """(secret, entry for SERVICE_CLIENTS)"""
    secret, entry = docker("run", "--rm", "--network", "none", "spotify-auth", "--new-client", name).split()
    return secret, entry


def log_in(compose, spotify=None, accounts=None):
    """A browser with a session. spotify: of the container, which stands where accounts is."""
    browser = Browser(types.SimpleNamespace(url=compose.url, redirect_uri=compose.redirect_uri))
    if spotify is None:
        answer = browser.login()
    else:
        location = redirect_of(browser.authorize())
        assert location.startswith(accounts), location
        answer = browser.callback(spotify.agree(location.replace(accounts, spotify.url)))
    assert answer.status_code == 303 and browser.cookie("spotify-session"), (answer.status_code, answer.text)
    return browser


@pytest.fixture(scope="module")
def simulated():
    compose = Compose("simulated")
    try:
        yield compose.up()
    finally:
        compose.down()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """The profile for real credentials, with a Spotify in a container. Has the attributes secrets (name: value),
    service_client (its secret), spotify (the handle on it), accounts (its origin for the workers)."""
    folder = tmp_path_factory.mktemp("deployment")
    certificates.make(folder / "tls", "DNS:spotify.test")
    (folder / "tls/good.key").chmod(0o644)
    secret, entry = client_of("load")
    compose = Compose("spotify", [TREE / "tests/docker/spotify.yaml"], SPOTIFY_CLIENT_ID=CLIENT_ID,
                      SECRETS=str(folder / "secrets"), TLS=str(folder / "tls"), SERVICE_CLIENTS=entry)
    compose.secrets = {**secret_files(folder / "secrets"), "service_client": secret}
    compose.service_client = secret
    compose.accounts = "https://spotify.test:8443"
    try:
        compose.up()
        compose.spotify = Spotify(f"https://{compose.address('spotify', 'internet')}:8443", ca=False)
        compose.spotify.register(CLIENT_ID, compose.secrets["spotify_client_secret"], [compose.redirect_uri])
        yield compose
    finally:
        compose.down()
