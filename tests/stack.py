"""Real processes in a private directory: Redis, the service, nginx and the simulated Spotify.

    with Stack(services=2, workers=2) as stack:
        requests.get(stack.url + "/auth/session", ...)

Every wait is bounded, every start that fails shows the end of the process's log, and nothing
outlives the process that started it.
"""

import atexit
import base64
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import resource
import secrets
import shutil
import signal as signals
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import redis as redis_client
from redis.backoff import NoBackoff
from redis.retry import Retry

TREE = pathlib.Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 40
API_URL = "https://api.spotify.com"
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
SANITIZER_REPORTS = ("ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer")
SANITIZER_SETTINGS = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "ASAN_SYMBOLIZER_PATH")

# Newer versions of the client library would ask a Redis that says no again, and again.
ONCE = Retry(NoBackoff(), 0)

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """A process did not come up; the text says which, and shows the end of its log."""


def wait_until(condition, timeout_s, what, interval_s=0.02):
    """Ask condition() until it is true; its value, or TimeoutError naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def find_program(name):
    """The full path of an installed program, also where the PATH has no sbin."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise StartError(f"the program {name} is not installed")
    return path


def reserve_port(host="127.0.0.1", port=0):
    """A bound socket that keeps its port for a server with SO_REUSEADDR, also over restarts."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
    except OSError:
        holder.close()
        raise
    return holder


def can_connect(family, address):
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


def processes():
    """Of every process: pid, (parent, process group, state)."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path("/proc", entry, "stat").read_text()
                state, parent, group = stat.rpartition(")")[2].split()[:3]
                found[int(entry)] = (int(parent), int(group), state)
    return found


class Process:
    """One program with its own process group, its output in a file."""

    def __init__(self, name, log_path):
        self.name = name
        self.log_path = pathlib.Path(log_path)
        self.exit_code = None
        self._child = None

    def launch(self, argv, env=None, cwd=None):
        if self.alive:
            raise StartError(f"{self.name} runs already")
        # The parent-death signal is sent when the starting thread ends, so only the main one asks.
        in_main = threading.current_thread() is threading.main_thread()
        parent = os.getpid()

        def prepare():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            if in_main:
                _libc.prctl(_PR_SET_PDEATHSIG, signals.SIGTERM)
                if os.getppid() != parent:
                    os._exit(1)

        with open(self.log_path, "ab") as log:
            self._child = subprocess.Popen(
                [str(word) for word in argv], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, preexec_fn=prepare)
        self.exit_code = None
        atexit.register(self.end_now)

    @property
    def pid(self):
        return self._child.pid

    @property
    def alive(self):
        return self._child is not None and self.exit_code is None and not self._ended()

    def _ended(self):
        # WNOWAIT leaves the zombie, which keeps pid and group from being given to somebody else.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def group(self):
        """The living processes of its group, without itself."""
        return [pid for pid, (_, group, state) in processes().items()
                if group == self.pid and pid != self.pid and state not in "ZX"]

    def signal(self, number):
        if not self.alive:
            raise RuntimeError(f"{self.name} does not run, cannot signal it")
        os.kill(self.pid, number)

    def wait(self, timeout_s=STOP_TIMEOUT_S):
        """Wait for its end; the exit code (negative: killed by that signal)."""
        if self._child is None or self.exit_code is not None:
            return self.exit_code
        wait_until(self._ended, timeout_s, f"end of {self.name} (pid {self.pid})")
        self._reap()
        return self.exit_code

    def _reap(self):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signals.SIGKILL)
        self.exit_code = self._child.wait()
        atexit.unregister(self.end_now)

    def end_now(self):
        """SIGKILL to it and to all of its group."""
        if self._child is not None and self.exit_code is None:
            self._reap()

    def kill(self):
        """SIGKILL, and what it listened on is closed: a worker may outlive its parent for a moment."""
        self.end_now()
        wait_until(lambda: not self.group(), STOP_TIMEOUT_S, f"end of all of {self.name}")

    def stop(self, number=signals.SIGTERM, timeout_s=STOP_TIMEOUT_S):
        """Ask it to end; the exit code. TimeoutError, and SIGKILL, when it does not."""
        if self._child is None or self.exit_code is not None:
            return self.exit_code
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signals.SIGCONT)
            os.kill(self.pid, number)
        try:
            return self.wait(timeout_s)
        finally:
            self.end_now()

    def log_text(self):
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")
        return ""

    def log_tail(self, lines=15):
        # What asked over and over whether it is ready has only hidden why it is not.
        told = [line for line in self.log_text().splitlines() if '"request_id":"health"' not in line]
        return "\n".join(told[-lines:]) or "(its log is empty)"

    def wait_ready(self, condition, timeout_s=START_TIMEOUT_S, interval_s=0.02):
        """Until condition() is true, or StartError when the process ends or takes too long."""
        try:
            wait_until(lambda: not self.alive or condition(), timeout_s,
                       f"start of {self.name}", interval_s)
            why = "ended at once" if not self.alive else None
        except TimeoutError as late:
            why = str(late)
        if why is not None:
            tail = self.log_tail()
            self.end_now()
            raise StartError(f"{self.name} did not start ({why}, exit {self.exit_code}):\n{tail}")


class Redis(Process):
    """redis-server on a unix socket, with an append-only file that survives kill and restart."""

    options = ()  # more words of its command line

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket_path = self.directory / "redis.sock"
        self.url = f"unix://{self.socket_path}"
        super().__init__("redis-server", self.directory / "redis.log")

    def start(self):
        # The socket of a Redis that was killed would be taken for one that answers soon.
        self.socket_path.unlink(missing_ok=True)
        self.launch([
            find_program("redis-server"), "--port", "0", "--unixsocket", self.socket_path,
            "--unixsocketperm", "700", "--dir", self.directory, "--appendonly", "yes",
            "--save", "", "--daemonize", "no", "--enable-debug-command", "local",
            *self.options])
        self.wait_ready(self.answers)
        return self

    def answers(self):
        try:
            with self.client() as client:
                return client.ping()
        except redis_client.RedisError:
            return False

    def client(self):
        return redis_client.Redis(unix_socket_path=str(self.socket_path), socket_timeout=5, retry=ONCE)

    def pause(self):
        """SIGSTOP: connected clients get no answer any more."""
        self.signal(signals.SIGSTOP)

    def cont(self):
        self.signal(signals.SIGCONT)

    def restart(self):
        self.end_now()
        return self.start()


# A request that waits holds some forty small pieces of memory; glibc's quick lists keep seven of a size, unless told.
TUNING = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=512"}


class Service(Process):
    """build/spotify-auth, or the program that SPOTIFY_AUTH names, with just the given settings."""

    def __init__(self, settings, log_path, name="spotify-auth"):
        self.settings = {key: str(value) for key, value in settings.items()}
        super().__init__(name, log_path)

    @staticmethod
    def program():
        path = pathlib.Path(os.environ.get("SPOTIFY_AUTH") or TREE / "build" / "spotify-auth")
        if not os.access(path, os.X_OK):
            raise StartError(f"the program {path} is not built: run make first")
        return path.resolve()

    def environment(self):
        kept = {name: os.environ[name] for name in SANITIZER_SETTINGS if name in os.environ}
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **TUNING, **kept, **self.settings}

    @property
    def listen(self):
        return self.settings["LISTEN"]

    @property
    def nginx_address(self):
        """LISTEN as nginx writes it: unix:/path or HOST:PORT."""
        return self.listen.removeprefix("tcp:")

    def accepts(self):
        kind, _, rest = self.listen.partition(":")
        if kind == "unix":
            return can_connect(socket.AF_UNIX, rest)
        host, _, port = rest.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return can_connect(family, (host.strip("[]"), int(port)))

    def run(self, *arguments, timeout_s=START_TIMEOUT_S):
        """A call like --check or --health with the same settings: its CompletedProcess."""
        return subprocess.run([self.program(), *arguments], env=self.environment(), text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s)

    def ready(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.run("--health", timeout_s=5).returncode == 0
        return False

    def start(self, ready=True):
        """ready=False: only until it accepts connections, for a start without Redis."""
        self.launch([self.program()], env=self.environment())
        self.wait_ready(self.accepts)
        if ready:
            self.wait_ready(self.ready, interval_s=0.1)
        return self

    def restart(self, ready=True):
        self.stop()
        return self.start(ready)

    def workers(self):
        """The pids of its worker processes."""
        return sorted(pid for pid, (parent, _, state) in processes().items()
                      if parent == self.pid and state not in "ZX")

    def log_lines(self):
        """The log as parsed JSON; a line of another kind is {"raw": text}."""
        lines = []
        for line in self.log_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                lines.append({"raw": line})
        return lines

    def check_sanitizers(self):
        """Raise when AddressSanitizer, LeakSanitizer or UBSan wrote into the log."""
        text = self.log_text()
        if any(report in text for report in SANITIZER_REPORTS):
            raise AssertionError(f"{self.name}: a sanitizer report in its log:\n{text[-8000:]}")

    def stop(self, number=signals.SIGTERM, timeout_s=STOP_TIMEOUT_S):
        """The exit code; AssertionError for workers left behind and for sanitizer reports."""
        if self._child is None or self.exit_code is not None:
            return self.exit_code
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signals.SIGCONT)
            os.kill(self.pid, number)
        try:
            wait_until(self._ended, timeout_s, f"end of {self.name} (pid {self.pid})")
            left = self.group()
        finally:
            self.end_now()
        self.check_sanitizers()
        if left:
            raise AssertionError(f"{self.name} ended and left processes behind: {left}")
        return self.exit_code


class Nginx(Process):
    """nginx with our configuration, before one or several service processes."""

    def __init__(self, directory, addresses, listen, workers=1, connections=16384, api_url=API_URL, api_ca=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.listen = listen
        self.url = f"http://{listen}"
        self.access_log = self.directory / "access.log"
        self.config = self.directory / "nginx.conf"
        self.values = {
            "user": "user root;" if os.geteuid() == 0 else "",
            "workers": workers,
            "connections": connections,
            "dir": self.directory,
            "files": TREE / "nginx",
            "listen": listen,
            "api_file": TREE / "nginx" / "spotify-api.conf",
            # A service that was stopped and started again is to be asked at once.
            "servers": "\n        ".join(f"server {to} max_fails=0;" for to in addresses),
        }
        self.api_ca = api_ca
        self.ask_api(api_url)
        self.list_origins("")
        super().__init__("nginx", self.directory / "error.log")

    @staticmethod
    def program():
        """The installed nginx, or the one that NGINX names."""
        return os.environ.get("NGINX") or find_program("nginx")

    def ask_api(self, url):
        """Where Spotify's Web API is, from the next start on."""
        parts = urllib.parse.urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        address = f"{parts.netloc.removesuffix(f':{parts.port}')}:{port}"
        try:
            socket.getaddrinfo(parts.hostname, port)
        except OSError:
            # nginx would not start. Away from the net the rest is to work; here nobody listens.
            address = "127.0.0.1:9"
        self.values.update(api_scheme=parts.scheme, api_host=parts.hostname, api_address=address)

    def list_origins(self, origins):
        """ALLOWED_ORIGINS, from the next start on."""
        listed = [f'"{origin.strip()}" $http_origin;' for origin in origins.split(",") if origin.strip()]
        lines = ["map $http_origin $spotify_auth_listed_origin {", 'default "";', *listed, "}", ""]
        self.values["origins"] = self.directory / "origins.conf"
        self.values["origins"].write_text("\n".join(lines))

    def write_config(self):
        if self.api_ca:
            self.values["api_file"] = self.directory / "spotify-api.conf"
            text = (TREE / "nginx" / "spotify-api.conf").read_text()
            assert CA_FILE in text
            self.values["api_file"].write_text(text.replace(CA_FILE, str(self.api_ca)))
        text = (TREE / "nginx" / "nginx.conf").read_text()
        for name, value in self.values.items():
            text = text.replace(f"@{name}@", str(value))
        self.config.write_text(text)

    def start(self):
        self.write_config()
        (self.directory / "admin.sock").unlink(missing_ok=True)
        self.launch([self.program(), "-p", self.directory, "-e", self.log_path, "-c", self.config])
        self.wait_ready(self.listens)
        return self

    def check(self):
        """What `nginx -t` says of the written configuration: its CompletedProcess."""
        return subprocess.run([self.program(), "-t", "-p", self.directory, "-e", self.log_path, "-c", self.config],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=START_TIMEOUT_S)

    def listens(self):
        """On all of its sockets: it opens one after the other, and then writes its pid."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "nginx.pid").read_text().strip() == str(self.pid)
        return False

    def reload(self):
        self.signal(signals.SIGHUP)

    def admin(self, path):
        """GET /healthz, /readyz or /metrics: (status, body), which nginx shows on a socket only."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.directory / "admin.sock"))
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


def new_session_key(kid="k1"):
    return f"{kid}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def start_spotify(**options):
    """The simulated Spotify of tests/spotify, started; options as of Spotify.start."""
    if str(TREE / "tests") not in sys.path:
        sys.path.insert(0, str(TREE / "tests"))
    from spotify.control import Spotify
    try:
        return Spotify.start(**options)
    except (OSError, RuntimeError) as error:
        raise StartError(f"the simulated Spotify did not start: {error}") from error


class Stack:
    """Redis, simulated Spotify, service processes and nginx, wired together.

    settings: further settings of the service; None as a value leaves that one out.
    spotify: a running simulator to share (it is not stopped here).
    start_ready=False does not wait until the services find Redis.
    """

    def __init__(self, services=1, workers=2, settings=None, nginx_workers=1, spotify=None,
                 redis=None, start_ready=True):
        # Unix socket paths are limited to 107 bytes, so the directory is a short one.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="spotify-auth-"))
        self.client_id = secrets.token_hex(16)
        self.client_secret = secrets.token_hex(16)
        self.session_keys = new_session_key()
        self.start_ready = start_ready
        self._own = []
        self._port = reserve_port()
        listen = f"127.0.0.1:{self._port.getsockname()[1]}"
        self.url = f"http://{listen}"
        self.redirect_uri = self.url + "/auth/callback"
        app_uris = (settings or {}).get("SWAP_REDIRECT_URIS") or ""
        self.app_uris = [uri.strip() for uri in app_uris.split(",") if uri.strip()]

        self.spotify = spotify
        self.redis = redis or Redis(self.directory / "redis")
        self.services = []
        self.nginx = Nginx(self.directory / "nginx",
                           [f"unix:{self._socket(i)}" for i in range(services)],
                           listen, workers=nginx_workers)
        self._shape = (services, workers, settings or {})

    def _socket(self, index):
        return self.directory / f"service-{index}.sock"

    def start(self):
        services, workers, extra = self._shape
        try:
            if not self.redis.alive:
                self._own.append(self.redis.start())
            if self.spotify is None:
                self.spotify = start_spotify()
                self._own.append(self.spotify)
            self.spotify.register(self.client_id, self.client_secret, [self.redirect_uri, *self.app_uris])
            for index in range(services):
                settings = {
                    "SPOTIFY_CLIENT_ID": self.client_id,
                    "SPOTIFY_CLIENT_SECRET": self.client_secret,
                    "SPOTIFY_REDIRECT_URI": self.redirect_uri,
                    "SPOTIFY_ACCOUNTS_URL": self.spotify.url,
                    "SPOTIFY_API_URL": self.spotify.url,
                    "REDIS_URL": self.redis.url,
                    "SESSION_KEYS": self.session_keys,
                    "LISTEN": f"unix:{self._socket(index)}",
                    "WORKERS": workers,
                    **extra,
                }
                settings = {name: value for name, value in settings.items() if value is not None}
                service = Service(settings, self.directory / f"service-{index}.log",
                                  f"spotify-auth {index}")
                self.services.append(service)
                self._own.append(service)
                service.start(self.start_ready)
            self._own.append(self.nginx)
            self.nginx.ask_api(self.services[0].settings["SPOTIFY_API_URL"] if self.services else self.spotify.url)
            self.nginx.list_origins(str(extra.get("ALLOWED_ORIGINS") or ""))
            self.nginx.start()
        except BaseException:
            with contextlib.suppress(Exception):
                self.stop()
            raise
        return self

    def stop(self):
        """Stop what was started here, last first; then raise the first complaint, if any."""
        complaint = None
        while self._own:
            try:
                self._own.pop().stop()
            except Exception as error:
                complaint = complaint or error
        self._port.close()
        if complaint is not None:
            raise complaint

    def remove(self):
        """Delete the directory with all logs."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def logs(self):
        """Every log that exists: file name, text. For the search for secrets."""
        found = {}
        for path in sorted(self.directory.rglob("*.log")):
            found[str(path.relative_to(self.directory))] = path.read_text(errors="replace")
        return found

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        self.stop()
        if kind is None:
            self.remove()
