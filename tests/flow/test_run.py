"""`make run`, as tests/run.py does it, in a copy of the tree with a port of its own."""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess

import pytest
import requests

from browser import Browser
from stack import SANITIZER_SETTINGS, Process, Service, processes, reserve_port, wait_until

TREE = pathlib.Path(__file__).resolve().parents[2]
START_S = 20


def free_port():
    with reserve_port() as holder:
        return holder.getsockname()[1]


class Run(Process):
    def __init__(self, tree, port, **settings):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.redirect_uri = self.url + "/auth/callback"  # url and this are what a Browser asks for
        self.settings = settings
        self.tree = tree
        super().__init__("make run", tree / f"run-{port}.log")

    def environment(self):
        kept = {name: os.environ[name] for name in (*SANITIZER_SETTINGS, "PATH", "HOME")
                if name in os.environ}
        return {**kept, "PORT": str(self.port), "SPOTIFY_AUTH": str(Service.program()),
                **self.settings}

    def start(self):
        self.log_path.unlink(missing_ok=True)
        self.launch(["/usr/bin/python3", "tests/run.py"], env=self.environment(), cwd=self.tree)
        self.wait_ready(lambda: f"Open {self.url}/" in self.log_text(), START_S)
        return self

    def descendants(self):
        parents = {pid: parent for pid, (parent, _, state) in processes().items()
                   if state not in "ZX"}
        found, new = set(), {self.pid}
        while new:
            new = {pid for pid, parent in parents.items() if parent in new} - found
            found |= new
        return found


def assert_all_end(pids):
    wait_until(lambda: not pids & {pid for pid, (_, _, state) in processes().items()
                                   if state not in "ZX"}, 5, "the end of all processes")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    target = tmp_path_factory.mktemp("run") / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "build", ".git", ".run")
    for name in ("tests", "nginx", "cgi"):
        shutil.copytree(TREE / name, target / name, ignore=ignored)
    yield target
    shutil.rmtree(target)


@pytest.fixture(scope="module")
def run(tree):
    process = Run(tree, free_port()).start()
    yield process
    process.stop(signal.SIGINT)


def test_run_prints_the_url_and_that_spotify_is_simulated(run):
    text = run.log_text()
    assert f"Open {run.url}/" in text
    assert "SIMULATED SPOTIFY" in text


def test_run_serves_the_page_and_a_login(run):
    browser = Browser(run)
    page = browser.navigate("/")
    assert page.status_code == 200
    assert "Log in with Spotify" in page.text
    location = browser.authorize().headers["Location"]
    assert "imulated" in browser.navigate(location, "cross-site").text
    assert browser.login().status_code == 303
    assert browser.session().json()["user"]["id"] == "ada"
    assert browser.token().status_code == 200


def test_run_lets_the_page_ask_for_what_it_offers(run):
    offered = re.findall(r'^  "([a-z-]+)": "', (TREE / "nginx" / "www" / "app.js").read_text(), re.M)
    assert len(offered) >= 6
    assert Browser(run).authorize(scope=" ".join(offered)).status_code == 302


def test_run_keeps_keys_for_its_owner_alone(run):
    kept = run.tree / ".run"
    assert stat.S_IMODE((kept / "session-keys").stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_run_shows_no_key_and_no_secret(run):
    key = (run.tree / ".run" / "session-keys").read_text().strip()
    assert key.partition(":")[2] not in run.log_text()


def test_run_leads_from_localhost_to_where_the_login_comes_back(run):
    page = requests.get(run.url + "/?error=x", headers={"Host": f"localhost:{run.port}"}, allow_redirects=False, timeout=10)
    assert (page.status_code, page.headers["Location"]) == (302, run.url + "/?error=x")


@pytest.fixture
def copy(tree, tmp_path):
    """Another copy, where nothing runs yet."""
    target = tmp_path / "tree"
    shutil.copytree(tree, target, ignore=shutil.ignore_patterns(".run", "*.log"))
    yield target
    shutil.rmtree(target)


def start_in_vain(tree, port, **settings):
    other = Run(tree, port, **settings)
    return subprocess.run(["/usr/bin/python3", "tests/run.py"], env=other.environment(), cwd=tree,
                          capture_output=True, text=True, timeout=START_S,
                          stdin=subprocess.DEVNULL)


def assert_one_clear_line(done, word):
    assert done.returncode == 1
    text = (done.stdout + done.stderr).strip()
    assert len(text.splitlines()) == 1, text
    assert word in text
    assert "Traceback" not in text


def test_run_on_a_taken_port_is_one_clear_line(copy):
    with reserve_port() as holder:
        holder.listen()
        port = holder.getsockname()[1]
        assert_one_clear_line(start_in_vain(copy, port), f"port {port}")


def test_run_on_the_port_of_another_run_is_one_clear_line(copy, run):
    assert_one_clear_line(start_in_vain(copy, run.port), f"port {run.port}")


def test_second_run_of_the_same_tree_is_one_clear_line(tree, run):
    assert_one_clear_line(start_in_vain(tree, free_port()), "another")


@pytest.mark.parametrize("port", ["0", "x", "65536", "-1"])
def test_run_with_a_bad_port_is_one_clear_line(tree, port):
    assert_one_clear_line(start_in_vain(tree, port), "PORT")


def test_run_with_bad_settings_names_them(copy):
    done = start_in_vain(copy, free_port(), LOGIN_TTL="soon", SPOTIFY_PKCE="maybe")
    assert done.returncode == 1
    assert "LOGIN_TTL:" in done.stdout + done.stderr
    assert "SPOTIFY_PKCE:" in done.stdout + done.stderr


def test_run_with_credentials_uses_the_real_spotify(copy):
    process = Run(copy, free_port(), SPOTIFY_CLIENT_ID="0123456789abcdef",
                  SPOTIFY_CLIENT_SECRET="fedcba9876543210").start()
    try:
        assert "SIMULATED" not in process.log_text()
        location = Browser(process).authorize().headers["Location"]
        assert location.startswith("https://accounts.spotify.com/authorize?")
        assert f"127.0.0.1%3A{process.port}%2Fauth%2Fcallback" in location
    finally:
        process.stop(signal.SIGINT)


def test_run_names_the_redirect_uri_that_was_given(copy):
    given = "http://127.0.0.1:18081/auth/callback"
    process = Run(copy, free_port(), SPOTIFY_REDIRECT_URI=given).start()
    try:
        assert f"{given} as a redirect URI" in process.log_text()
        assert f"{process.url}/auth/callback" not in process.log_text()
    finally:
        process.stop(signal.SIGINT)


def test_run_says_how_a_phone_gets_a_code(copy):
    app = "my-app://callback"
    process = Run(copy, free_port(), SWAP_REDIRECT_URIS=app).start()
    try:
        shown, = re.findall(f"^A code for {app}, .*\n(curl .*)$", process.log_text(), re.M)
        said = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, timeout=10, check=True).stdout
        code, = re.findall(rf"^Location: {app}\?code=(\S+)$", said, re.M)
        answer = requests.post(process.url + "/auth/swap", data={"code": code}, timeout=10)
        assert answer.status_code == 200, answer.text
    finally:
        process.stop(signal.SIGINT)


def test_session_survives_a_restart_and_ctrl_c_ends_everything(copy):
    port = free_port()
    process = Run(copy, port).start()
    browser = Browser(process)
    assert browser.login().status_code == 303
    started = process.descendants()
    assert len(started) >= 4
    assert process.stop(signal.SIGINT) == 0
    assert_all_end(started)
    assert "Traceback" not in process.log_text()
    process.start()
    try:
        assert browser.session().json()["authenticated"] is True
        assert browser.token().status_code == 200
    finally:
        assert process.stop(signal.SIGTERM) == 0


def test_the_services_log_is_kept_until_it_is_long_and_nginx_knows_the_origins(copy):
    log, old = copy / ".run" / "service.log", copy / ".run" / "service.old.log"
    process = Run(copy, free_port(), ALLOWED_ORIGINS="http://127.0.0.1:5173, http://[::1]:5173")
    for count in (1, 2):
        process.start()
        answer = Browser(process).fetch("POST", "/logout", data=bytes(65537), origin="http://[::1]:5173")
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (413, "http://[::1]:5173")
        assert process.stop(signal.SIGINT) == 0
        assert log.read_text().count('"event":"service started"') == count
        assert process.log_text().count('"event":"service started"') == 1
    os.truncate(log, 10_000_001)
    process.start()
    assert process.stop(signal.SIGINT) == 0
    assert old.stat().st_size == 10_000_001 and log.read_text().count('"event":"service started"') == 1


def test_ctrl_c_of_a_terminal_ends_everything_in_order(copy):
    """A terminal sends SIGINT to every process of the group, not to the first alone."""
    process = Run(copy, free_port()).start()
    started = process.descendants()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 0
    assert_all_end(started)
    assert "Traceback" not in process.log_text()


def test_run_ends_when_one_of_its_processes_does(copy):
    process = Run(copy, free_port()).start()
    started = process.descendants()
    lines = [json.loads(line) for line in process.log_text().splitlines() if line.startswith("{")]
    service = next(line["pid"] for line in lines if line["event"] == "service started")
    os.kill(service, signal.SIGKILL)
    assert process.wait(20) == 1
    assert "has ended by itself" in process.log_text()
    assert_all_end(started)
