"""What all parts of the bench use: a table, wrk, nginx as the front and in Spotify's place, memory of a process."""

import os
import pathlib
import re
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "flow")]

from browser import Browser  # noqa: E402
from stack import Nginx, Process, Stack, can_connect, find_program, reserve_port  # noqa: E402

SECONDS = int(os.environ.get("BENCH_SECONDS", "4"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ECHO_MODULE = "/usr/lib/nginx/modules/ngx_http_echo_module.so"
HEADERS = {"X-Requested-With": "bench", "Sec-Fetch-Site": "same-origin"}

rows = []


def report(what, figure, wanted=""):
    rows.append((what, figure, wanted))
    print(f"{what:<66} {figure:>22}   {wanted}", flush=True)


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def wrk(url, connections, headers=None, script=None, seconds=SECONDS, arguments=()):
    """One run of wrk: its output, with every answer that is not 2xx or 3xx an error. arguments are the script's."""
    command = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if script:
        command += ["-s", str(script)]
    command += [url, "--", *map(str, arguments)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 90).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"wrk met errors at {url}:\n{out}")
    return out


def rate(out):
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def percentile(out, which):
    return milliseconds(re.search(rf"^\s+{which}%\s+(\S+)", out, re.M)[1])


class BenchNginx(Nginx):
    """The project's nginx, with a hello on the same front and a `return 200` beside it."""

    def write_config(self):
        super().write_config()
        text = self.config.read_text()
        extra = """
        location = /bench/nginx { return 200 "ok"; }
        location = /bench/hello { rewrite ^ /auth/healthz last; }
        location = /bench/200 { internal; return 200 "ok"; }
        location = /bench/behind-hello { auth_request /auth/healthz; try_files /bench/none /bench/200; }
        location = /bench/behind-verify { auth_request /auth/verify; try_files /bench/none /bench/200; }
        location / {"""
        assert text.count("\n        location / {") == 1
        self.config.write_text(text.replace("\n        location / {", extra))


class Upstream(Process):
    """nginx in Spotify's place, with a latency at the token endpoint."""

    def __init__(self, directory, latency_s):
        holder = reserve_port()
        self.listen = f"127.0.0.1:{holder.getsockname()[1]}"
        holder.close()
        self.url = f"http://{self.listen}"
        self.directory = directory
        self.latency_s = latency_s
        super().__init__("upstream nginx", directory / "upstream.log")

    def start(self):
        text = (HERE / "upstream.conf").read_text()
        values = {"user": "user root;" if os.geteuid() == 0 else "", "dir": self.directory, "listen": self.listen,
                  "latency": self.latency_s, "padding": "x" * 200, "echo": ECHO_MODULE}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        config = self.directory / "upstream.conf"
        config.write_text(text)
        self.launch([find_program("nginx"), "-p", self.directory, "-e", self.log_path, "-c", config])
        host, port = self.listen.split(":")
        self.wait_ready(lambda: can_connect(socket.AF_INET, (host, int(port))))
        return self


def bench_stack(**options):
    """In the shape of `make run`: one nginx process, two workers."""
    stack = Stack(**options)
    nginx = stack.nginx
    stack.nginx = BenchNginx(nginx.directory, [f"unix:{stack._socket(0)}"], nginx.listen)
    return stack


def log_in(stack):
    browser = Browser(stack)
    browser.login()
    name = next(name for name in ("spotify-session", "__Host-spotify-session") if browser.cookie(name))
    return f"{name}={browser.cookie(name).value}"


def proportional_set_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1])
