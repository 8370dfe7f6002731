"""The program's options and bad starts: it is called with an environment of its own, and needs neither
Redis nor nginx."""

import base64
import hashlib
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("SPOTIFY_AUTH", str(ROOT / "build" / "spotify-auth"))
KEY = "A" * 43
REQUIRED = {
    "SPOTIFY_CLIENT_ID": "0123456789abcdef",
    "SPOTIFY_CLIENT_SECRET": "fedcba9876543210",
    "SPOTIFY_REDIRECT_URI": "https://music.example/auth/callback",
    "SESSION_KEYS": "k1:" + KEY,
}


def environment(**settings):
    env = {name: os.environ[name] for name in ("PATH", "ASAN_OPTIONS") if name in os.environ}
    env.update(REQUIRED)
    env.update(settings)
    return env


def run(*arguments, env=None, **more):
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [PROGRAM, *arguments],
        env=environment() if env is None else env,
        capture_output=True,
        text=True,
        timeout=20,
        **more,
    )


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


# --check


def test_check_says_ok():
    done = run("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_check_reports_all_problems_one_a_line():
    done = run(
        "--check",
        env={
            "SPOTIFY_REDIRECT_URI": "http://localhost:8080/login?x=1#y",
            "SESSION_KEYS": "k1:c2hvcnQ",
            "WORKERS": "many",
            "RETURN_TO": "//evil.example",
        },
    )
    lines = done.stdout.splitlines()
    names = [line.split(":")[0] for line in lines]
    assert done.returncode == 1
    assert names == [
        "SPOTIFY_CLIENT_ID",
        "SPOTIFY_CLIENT_SECRET",
        *["SPOTIFY_REDIRECT_URI"] * 4,
        "SESSION_KEYS",
        "WORKERS",
        "RETURN_TO",
    ]
    assert all("; " in line for line in lines)
    assert "127.0.0.1:8080" in done.stdout


@pytest.mark.parametrize(
    "name, value",
    [
        ("SPOTIFY_CLIENT_SECRET", "hunter2 hunter2"),
        ("SESSION_KEYS", "k1:hunter2"),
        ("REDIS_URL", "redis://hunter2@redis.example:hunter2/x"),
        ("SERVICE_CLIENTS", "bob:hunter2"),
        ("LISTEN", "hunter2"),
    ],
)
def test_check_shows_no_secret(name, value):
    done = run("--check", env=environment(**{name: value}))
    assert done.returncode == 1
    assert name in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "content",
    [
        "",
        "certificate\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "# -----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_check_wants_a_certificate_in_the_ca_file(tmp_path, content):
    path = tmp_path / "ca.pem"
    path.write_text(content)
    done = run("--check", env=environment(UPSTREAM_CA_FILE=str(path)))
    assert done.returncode == 1
    assert done.stdout.startswith("UPSTREAM_CA_FILE: that file holds no certificate")
    path.write_text(content + "Some CA\r\n-----BEGIN CERTIFICATE-----\r\nAAAA\r\n")
    assert run("--check", env=environment(UPSTREAM_CA_FILE=str(path))).returncode == 0


def test_check_reads_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("k1:" + KEY + "\n")
    env = environment(SESSION_KEYS_FILE=str(secret))
    assert "SESSION_KEYS_FILE is set as well" in run("--check", env=env).stdout
    del env["SESSION_KEYS"]
    assert run("--check", env=env).returncode == 0
    secret.unlink()
    assert run("--check", env=env).stdout.startswith("SESSION_KEYS: the file that SESSION_KEYS_FILE")


def test_check_connects_to_nothing_and_leaves_no_socket(tmp_path):
    path = tmp_path / "s"
    done = run("--check", env=environment(LISTEN=f"unix:{path}", REDIS_URL="redis://127.0.0.1:1"))
    assert done.returncode == 0
    assert not path.exists()


# The other options


def test_help_shows_every_setting():
    done = run("--help", env={})
    source = (ROOT / "cgi" / "base" / "settings.c").read_text()
    names = re.findall(r'^    \{"([A-Z_]+)"', source, re.M)
    assert done.returncode == 0
    assert len(names) > 25
    for name in names:
        assert f"| `{name}` | " in done.stdout
    for option in ("--check", "--new-key", "--new-client", "--health", "--version"):
        assert option in done.stdout


def test_version():
    done = run("--version", env={})
    assert done.returncode == 0
    assert re.fullmatch(r"spotify-auth \d+\.\d+\.\d+\n", done.stdout)


def test_new_key_is_accepted_and_fresh():
    first, second = (run("--new-key", env={}).stdout.strip() for _ in range(2))
    assert first != second
    assert len(first.splitlines()) == 1
    assert run("--check", env=environment(SESSION_KEYS=first)).returncode == 0


def test_new_client_is_accepted():
    done = run("--new-client", "bob", env={})
    secret, entry = done.stdout.splitlines()
    name, hashed = entry.split(":")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
    assert name == "bob"
    digest = hashlib.sha256(secret.encode()).digest()
    assert hashed == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert run("--check", env=environment(SERVICE_CLIENTS=entry)).returncode == 0


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "ä"])
def test_new_client_refuses_other_names(name):
    done = run("--new-client", name, env={})
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--what"], ["check"], ["--check", "x"], ["--new-client"]])
def test_unknown_options_show_the_usage(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: ")


# Bad starts


def test_bad_settings_stop_the_start(tmp_path):
    done = run(env=environment(LISTEN=f"unix:{tmp_path}/s", LOGIN_TTL="0", SPOTIFY_PKCE="yes"))
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["SPOTIFY_PKCE", "LOGIN_TTL"]
    assert not (tmp_path / "s").exists()


def test_start_without_the_socket_directory_fails(tmp_path):
    done = run(env=environment(LISTEN=f"unix:{tmp_path}/missing/s"))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_start_on_a_taken_port_fails():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run(env=environment(LISTEN=f"tcp:127.0.0.1:{port}"))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_cgi_with_bad_settings_answers_500():
    env = environment(GATEWAY_INTERFACE="CGI/1.1", REQUEST_METHOD="GET", PATH_INFO="/session")
    done = run(env=dict(env, WORKERS="x"))
    head, body = done.stdout.split("\n\n", 1)
    assert head.startswith("Status: 500")
    assert "no-store" in head
    assert '"error":"server_error"' in body
    assert done.stderr.startswith("WORKERS: ")


# The service's own life, without a request


@pytest.fixture
def service(tmp_path):
    """A started service with one worker, whose Redis is not there."""
    path = tmp_path / "s"
    log = open(tmp_path / "log", "w+")
    env = environment(LISTEN=f"unix:{path}", WORKERS="1", REDIS_URL="redis://127.0.0.1:1")
    process = subprocess.Popen([PROGRAM], env=env, stdin=subprocess.DEVNULL, stderr=log)
    try:
        wait_until(lambda: "worker started" in (tmp_path / "log").read_text())
        process.path = path
        process.log = tmp_path / "log"
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def workers_of(process):
    started = re.findall(r'"worker started".*"worker":(\d+)', process.log.read_text())
    return [int(pid) for pid in started]


def test_socket_mode_and_removal(service):
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o660
    service.send_signal(signal.SIGTERM)
    service.send_signal(signal.SIGTERM)
    assert service.wait(10) == 0
    assert not service.path.exists()


def test_second_start_leaves_the_first_alone(service):
    done = run(env=environment(LISTEN=f"unix:{service.path}"))
    assert done.returncode == 1
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.path))


def test_dead_worker_is_replaced_and_dead_service_leaves_no_worker(service):
    os.kill(workers_of(service)[0], signal.SIGKILL)
    wait_until(lambda: len(workers_of(service)) == 2)
    last = workers_of(service)[1]
    service.kill()
    service.wait()

    def is_gone():
        try:
            return Path(f"/proc/{last}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone)


# --health


def fastcgi(kind, content=b""):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def answer_once(server, answer, seen):
    connection, _ = server.accept()
    with connection:
        connection.settimeout(5)
        received = b""
        while not received.endswith(fastcgi(4) + fastcgi(5)):
            received += connection.recv(65536)
        seen.append(received)
        connection.sendall(answer)


@pytest.mark.parametrize(
    "answer, code, output",
    [
        (fastcgi(6, b"Status: 200 OK\r\nX: y\r\n\r\n") + fastcgi(6, b'{"ready":true}'), 0, "true"),
        (fastcgi(6, b"X: y\r\n\r\nwithout status"), 0, "without status"),
        (fastcgi(6, b'Status: 503\r\n\r\n{"ready":false}'), 1, "false"),
        (fastcgi(6, b"nothing"), 1, ""),
    ],
)
def test_health(tmp_path, answer, code, output):
    seen = []
    end = fastcgi(6) + fastcgi(3, bytes(8))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        server.settimeout(10)
        thread = threading.Thread(target=answer_once, args=(server, answer + end, seen))
        thread.start()
        done = run("--health", env={"LISTEN": f"unix:{tmp_path}/s"})
        thread.join()
    assert done.returncode == code
    assert output in done.stdout
    assert b"/readyz" in seen[0]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nready", fastcgi(6, b"X: y\r\n\r\ncut")])
def test_health_of_what_is_no_fastcgi(tmp_path, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=answer_once, args=(server, answer, []))
        thread.start()
        listen = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        done = run("--health", env={"LISTEN": listen})
        thread.join()
    assert done.returncode == 1
    assert done.stderr.startswith(f"LISTEN: no answer from {listen} (")


def test_health_without_a_service(tmp_path):
    done = run("--health", env={"LISTEN": f"unix:{tmp_path}/s"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"LISTEN: cannot connect to unix:{tmp_path}/s (No such file or directory);")


def test_health_asks_nobody_but_this_machine():
    """A name may stand for all workers' addresses: what another one answers would say nothing of this one."""
    done = run("--health", env={"LISTEN": "tcp:192.0.2.1:9000"})
    assert done.returncode == 1
    assert done.stderr.startswith("LISTEN: cannot connect to tcp:192.0.2.1:9000 (Cannot assign requested address);")


def test_health_does_not_wait_for_ever(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        started = time.monotonic()
        done = run("--health", env={"LISTEN": f"unix:{tmp_path}/s"})
    assert done.returncode == 1 and done.stderr.startswith(f"LISTEN: no answer from unix:{tmp_path}/s (")
    assert 2 < time.monotonic() - started < 8
