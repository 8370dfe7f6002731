"""What `make run` does after the build: Redis, service and nginx, and, without credentials of a
Spotify app, the simulated Spotify. Ctrl-C ends all of it."""

import contextlib
import fcntl
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.parse

TREE = pathlib.Path(__file__).resolve().parent.parent
KEPT = TREE / ".run"
LOG_MAX = 10_000_000  # a log that is longer begins anew, and the old one is kept once

SETTINGS = """
    SPOTIFY_CLIENT_ID SPOTIFY_CLIENT_SECRET SPOTIFY_REDIRECT_URI SPOTIFY_SCOPE SPOTIFY_SCOPE_ALLOWED
    SPOTIFY_PKCE SPOTIFY_PROFILE SPOTIFY_ACCOUNTS_URL SPOTIFY_API_URL UPSTREAM_CA_FILE REDIS_URL
    REDIS_PREFIX SESSION_KEYS SESSION_IDLE_TTL SESSION_MAX_AGE COOKIE_SAMESITE ALLOWED_ORIGINS
    RETURN_TO LOGIN_TTL REFRESH_AHEAD SERVICE_CLIENTS SWAP_REDIRECT_URIS DEVICE_LOGIN LISTEN WORKERS
    STORE_TIMEOUT_MS UPSTREAM_CONNECT_TIMEOUT_MS UPSTREAM_TIMEOUT_MS UPSTREAM_MAX_IN_FLIGHT
    DRAIN_TIMEOUT_S LOG_LEVEL
""".split()

# What nginx/www/app.js offers to ask for, besides the settings' own default.
SCOPE = "user-read-private user-read-email"
PAGE_SCOPE = "user-read-currently-playing user-read-recently-played user-top-read playlist-read-private"


class Problem(Exception):
    """One line for the person at the console."""


def say(text):
    print(text, flush=True)


def given_settings():
    """What the environment says, as NAME or NAME_FILE; an empty one counts as not given."""
    names = [name for setting in SETTINGS for name in (setting, setting + "_FILE")]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def default(settings, name, value):
    """Set what was given neither directly nor as a file; value is a function, called if needed."""
    if not is_given(settings, name):
        settings[name] = value()


def read_port():
    text = os.environ.get("PORT") or "8080"
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise Problem(f"PORT is {text!r}: write a number from 1 to 65535")
    return int(text)


def hold_port(stack, port):
    try:
        # A bound socket does not see a listener on 0.0.0.0, so ask for one as well.
        if stack.can_connect(stack.socket.AF_INET, ("127.0.0.1", port)):
            raise OSError
        return stack.reserve_port("127.0.0.1", port)
    except PermissionError:
        raise Problem(f"port {port} needs root; take another one: PORT=8080 make run")
    except OSError:
        raise Problem(f"port {port} on 127.0.0.1 is taken; "
                      f"take another one: PORT={port % 65535 + 1} make run")


def hold_directory():
    """Two Redis servers on one append-only file would destroy it."""
    KEPT.mkdir(mode=0o700, exist_ok=True)
    lock = open(KEPT / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Problem("another `make run` of this folder is running")
    return lock


def session_keys(stack):
    """Kept in .run/session-keys, so that sessions outlive a restart."""
    path = KEPT / "session-keys"
    if not path.exists():
        made = subprocess.run([stack.Service.program(), "--new-key"], text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
        key = made.stdout.strip()
        if made.returncode != 0 or not key:
            raise Problem(f"spotify-auth --new-key failed: {made.stderr.strip()}")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key + "\n")
    return path.read_text().strip()


def import_stack():
    """tests/stack.py; what it needs and is missing is named as Debian calls it."""
    for module in ("redis", "requests", "aiohttp"):
        if importlib.util.find_spec(module) is None:
            raise Problem(f"python3-{module} is missing: apt-get install python3-{module}")
    import stack
    packages = {"nginx": "nginx-light", "redis-server": "redis-server"}
    for program, package in packages.items():
        try:
            stack.find_program(program)
        except stack.StartError:
            raise Problem(f"{program} is missing: apt-get install {package}")
    return stack


class LogCopier:
    """Copies what a log file gains to stderr."""

    def __init__(self, path):
        self.path = path
        if path.exists() and path.stat().st_size > LOG_MAX:
            path.replace(path.with_suffix(".old.log"))
        path.touch()
        self.file = open(path, "rb")
        self.file.seek(0, os.SEEK_END)

    def copy(self):
        sys.stderr.buffer.write(self.file.read())
        sys.stderr.buffer.flush()


class SimulatedSpotify:
    """The simulated Spotify with one registered app, as one of the processes watched here."""

    name = "the simulated Spotify"

    def __init__(self, stack, redirect_uris):
        self._spotify = stack.start_spotify()
        self.settings = {
            "SPOTIFY_CLIENT_ID": "make-run",
            "SPOTIFY_CLIENT_SECRET": os.urandom(16).hex(),
            "SPOTIFY_ACCOUNTS_URL": self._spotify.url,
            "SPOTIFY_API_URL": self._spotify.url,
        }
        self.url = self._spotify.url
        self._spotify.register(self.settings["SPOTIFY_CLIENT_ID"],
                               self.settings["SPOTIFY_CLIENT_SECRET"], redirect_uris)

    def consent_url(self, redirect_uri):
        """Where a person agrees to give a code to an app at that address."""
        asked = {"client_id": self.settings["SPOTIFY_CLIENT_ID"], "response_type": "code",
                 "redirect_uri": redirect_uri, "scope": "user-read-private"}
        return f"{self.url}/authorize?{urllib.parse.urlencode(asked)}"

    @property
    def alive(self):
        return self._spotify.process.poll() is None

    def stop(self):
        self._spotify.stop()


def is_given(settings, name):
    return name in settings or name + "_FILE" in settings


def replace(settings, values):
    """Set values, over what was given directly or as a file."""
    for name, value in values.items():
        settings.pop(name + "_FILE", None)
        settings[name] = value


def value_of(settings, name):
    if name in settings:
        return settings[name]
    try:
        return pathlib.Path(settings[name + "_FILE"]).read_text().strip()
    except OSError as error:
        raise Problem(f"{name}_FILE: {error.strerror}: {error.filename}")


def stop_quietly(process):
    """One that does not end properly must not keep the others from being stopped."""
    try:
        process.stop()
    except Exception as error:
        say(f"{process.name}: {error}")


def check(service):
    """The program itself says what is wrong with the settings."""
    result = service.run("--check")
    if result.returncode != 0:
        raise Problem("the settings are not right:\n" + (result.stdout + result.stderr).strip())


def watch(processes, log, stopped):
    """Until Ctrl-C, or the end of one of the processes."""
    while not stopped:
        log.copy()
        for process in processes:
            if not process.alive and not stopped:
                raise Problem(f"{process.name} has ended by itself; its log is in {KEPT.name}/")
        time.sleep(0.2)


def run(stopped):
    port = read_port()
    url = f"http://127.0.0.1:{port}"
    stack = import_stack()
    stack.Service.program()
    settings = given_settings()
    simulated = not is_given(settings, "SPOTIFY_CLIENT_ID")

    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(hold_directory())
        cleanup.enter_context(hold_port(stack, port))
        processes = []

        def keep(process):
            cleanup.callback(stop_quietly, process)
            processes.append(process)

        default(settings, "SPOTIFY_REDIRECT_URI", lambda: url + "/auth/callback")
        default(settings, "SESSION_KEYS", lambda: session_keys(stack))
        scope = value_of(settings, "SPOTIFY_SCOPE") if is_given(settings, "SPOTIFY_SCOPE") else SCOPE
        allowed = dict.fromkeys([*scope.split(), *PAGE_SCOPE.split()])
        default(settings, "SPOTIFY_SCOPE_ALLOWED", lambda: " ".join(allowed))
        default(settings, "LISTEN", lambda: f"unix:{KEPT / 'spotify-auth.sock'}")
        replace(settings, {"LISTEN": value_of(settings, "LISTEN")})
        if simulated:
            default(settings, "SWAP_REDIRECT_URIS", str)
            app_uris = value_of(settings, "SWAP_REDIRECT_URIS").replace(" ", "").split(",")
            uris = [value_of(settings, "SPOTIFY_REDIRECT_URI"), *filter(None, app_uris)]
            spotify = SimulatedSpotify(stack, uris)
            keep(spotify)
            replace(settings, spotify.settings)
            # A run with the real Spotify must not find sessions of the simulated one.
            default(settings, "REDIS_PREFIX", lambda: "simulated:")
        redis = None
        if not is_given(settings, "REDIS_URL"):
            redis = stack.Redis(KEPT / "redis")
            settings["REDIS_URL"] = redis.url

        service = stack.Service(settings, KEPT / "service.log")
        check(service)
        if redis is not None:
            keep(redis)
            redis.start()
        log = LogCopier(service.log_path)
        cleanup.callback(log.copy)
        keep(service)
        service.start()
        api_url = value_of(settings, "SPOTIFY_API_URL") if is_given(settings, "SPOTIFY_API_URL") else stack.API_URL
        api_ca = value_of(settings, "UPSTREAM_CA_FILE") if is_given(settings, "UPSTREAM_CA_FILE") else None
        nginx = stack.Nginx(KEPT / "nginx", [service.nginx_address], f"127.0.0.1:{port}", api_url=api_url, api_ca=api_ca)
        if is_given(settings, "ALLOWED_ORIGINS"):
            nginx.list_origins(value_of(settings, "ALLOWED_ORIGINS"))
        keep(nginx)
        nginx.start()

        log.copy()
        if simulated:
            say("\nSIMULATED SPOTIFY: no account, no music and no password is real here. For the\n"
                "real one set SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET, and register\n"
                f"{value_of(settings, 'SPOTIFY_REDIRECT_URI')} as a redirect URI of your app.")
            for uri in filter(None, app_uris):
                say(f"\nA code for {uri}, in the header Location of:\n"
                    f"curl -si -d decision=agree -d user=ada '{spotify.consent_url(uri)}'")
        say(f"\nOpen {url}/  (Ctrl-C ends it; logs and sessions are in {KEPT.name}/)\n")
        watch(processes, log, stopped)
        say("\nending ...")


def main():
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: stopped.append(number))
    try:
        run(stopped)
    except Exception as error:
        # A StartError carries the end of the log, which says more than a traceback.
        say(f"make run: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
