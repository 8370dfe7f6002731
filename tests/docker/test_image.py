"""The images by themselves: what is in them, and as whom and how they run."""

import io
import json
import pathlib
import re
import secrets
import subprocess
import tarfile

import pytest

from conftest import TREE, docker, inspect, processes, wait_until, written
from spotify import certificates

IMAGES = ["spotify-auth", "spotify-auth-nginx", "spotify-auth-simulated"]
PROGRAM = "/usr/bin/spotify-auth"
MIB = 1 << 20
VERSION = re.search(r'VERSION "(.*)"', (TREE / "cgi/base/version.h").read_text())[1]
BROKEN = {"SPOTIFY_REDIRECT_URI": "http://localhost:8080/auth/callback"}
# What keys, passwords and private files look like.
SECRETS = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/]{40}|redis(?:s)?://[^\s@/:]*:[0-9a-f]{16,}@"
                     rb"|\bk1:[A-Za-z0-9+/]{43}=")


def layers(image, folder):
    """(config, [layer as bytes]) as `docker save` writes them."""
    path = folder / "image.tar"
    docker("save", "-o", path, image)
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))
        return config, [archive.extractfile(name).read() for name in manifest["Layers"]]


def files(layer):
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            yield member, archive.extractfile(member).read() if member.isfile() else b""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    return layers("spotify-auth", tmp_path_factory.mktemp("service"))


def settings(**changes):
    """Words for `docker run`, with sound settings and a Redis that is not there."""
    values = {
        "SPOTIFY_CLIENT_ID": "image", "SPOTIFY_CLIENT_SECRET": secrets.token_hex(8),
        "SPOTIFY_REDIRECT_URI": "https://example.com/auth/callback", "REDIS_URL": "redis://127.0.0.1:1/0",
        "SESSION_KEYS": docker("run", "--rm", "--network", "none", "spotify-auth", "--new-key").strip(), **changes,
    }
    return [word for name, value in values.items() for word in ("-e", f"{name}={value}")]


@pytest.fixture
def container():
    """Starts one with further words for `docker run`; it is removed after the test."""
    made = []

    def start(*words):
        made.append("spotify-auth-test-" + secrets.token_hex(4))
        docker("run", "-d", "--name", made[-1], "--network", "none", "--read-only", "--cap-drop", "ALL",
               "--security-opt", "no-new-privileges", *words)
        return made[-1]

    yield start
    for name in made:
        docker("rm", "-f", "-v", name, check=False)


def log_of(name):
    return docker("logs", name, check=False).stderr


# What is in it


def test_unit_tests_are_run_before_anything_is_taken_from_the_build():
    build = (TREE / "docker/Dockerfile").read_text().partition(" AS build\n")[2].partition("\nFROM ")[0]
    steps = [line for line in build.splitlines() if line.startswith("RUN ")]
    tested, = [at for at, step in enumerate(steps) if re.search(r"&& make unit$", step)]
    collected, = [at for at, step in enumerate(steps) if "collect.sh" in step]
    assert tested < collected


def test_image_is_small(service):
    config, parts = service
    size = sum(member.size for layer in parts for member, _ in files(layer))
    print(f"\nspotify-auth: {size / MIB:.1f} MiB in {len(parts)} layer(s)")
    assert size < 100 * MIB
    assert len(parts) == 1


def test_image_holds_the_program_and_its_libraries_only(service):
    found = {member.name.removeprefix("./"): member for member, _ in files(service[1][0]) if member.isfile()}
    expected = re.compile(r"""usr/bin/spotify-auth|usr/lib(64)?/(\S+/)?(lib[\w+.-]+\.so[.\d]*|ld-linux[\w.-]+)
        |etc/(passwd|group|nsswitch\.conf|ssl/openssl\.cnf|ssl/certs/ca-certificates\.crt)
        |usr/share/doc/[\w.+-]+/copyright|var/lib/dpkg/status\.d/[\w.+-]+""", re.VERBOSE)
    print("\n" + "\n".join(f"{member.size:>9} {name}" for name, member in sorted(found.items())
                           if not name.startswith(("usr/share/doc", "var/lib/dpkg"))))
    assert [name for name in found if not expected.fullmatch(name)] == []
    assert [name for name, member in found.items() if member.mode & 0o6022] == []  # no setuid, not for others to write
    assert [name for name, member in found.items() if member.mode & 0o111 and "lib" not in name] == [PROGRAM[1:]]


def test_image_has_no_shell():
    done = docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", "spotify-auth", "-c", "true",
                  check=False)
    assert done.returncode == 127 and "no such file" in done.stderr


def test_image_names_the_packages_that_its_libraries_are_from(service):
    names = {member.name.removeprefix("./") for member, _ in files(service[1][0])}
    packages = {name.rpartition("/")[2] for name in names if name.startswith("var/lib/dpkg/status.d/")}
    assert {"libc6", "libhiredis1.1.0", "ca-certificates"} <= packages
    assert all(f"usr/share/doc/{package}/copyright" in names for package in packages)


@pytest.mark.parametrize("image", IMAGES)
def test_no_secret_is_in_a_layer_or_in_the_config(image, tmp_path):
    config, parts = layers(image, tmp_path)
    assert not SECRETS.search(json.dumps(config).encode())
    names = [line.partition("=")[0] for line in config["config"]["Env"]]
    assert [name for name in names if re.search("SECRET|KEY|PASSWORD|TOKEN|REDIS_URL", name)] == []
    for layer in parts:
        for member, content in files(layer):
            assert not re.search(r"(^|/)(secrets/|\.env$|\.git/|\.ssh/|id_\w+$)", member.name), member.name
            # Debian's libraries and examples have keys for their own tests.
            if not re.match(r"(\./)?usr/(lib/\S+\.so|share/doc/)", member.name):
                assert not SECRETS.search(content), member.name


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_a_user_with_a_number_and_says_what_it_is(image):
    config = inspect(image)["Config"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", config["User"])
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description"} <= set(config["Labels"])
    assert config["Healthcheck"]["Test"][0] == "CMD"


# How it runs


def test_version_and_check_run_without_anything_around():
    assert docker("run", "--rm", "--network", "none", "spotify-auth", "--version").strip() == f"spotify-auth {VERSION}"
    done = docker("run", "--rm", "--network", "none", *settings(**BROKEN), "spotify-auth", "--check", check=False)
    assert done.returncode == 1 and "SPOTIFY_REDIRECT_URI" in done.stdout


def test_image_has_tls_to_redis():
    words = settings(REDIS_URL="rediss://redis.example:6379/0")
    assert docker("run", "--rm", "--network", "none", *words, "spotify-auth", "--check").strip() == "ok"


def test_missing_credentials_are_named_one_a_line():
    done = docker("run", "--rm", "--network", "none", "spotify-auth", check=False)
    assert done.returncode == 1
    for name in ("SPOTIFY_CLIENT_ID", "SPOTIFY_CLIENT_SECRET", "SPOTIFY_REDIRECT_URI", "SESSION_KEYS"):
        assert re.search(rf"^.*{name}.*$", done.stderr, re.M), done.stderr


def test_runs_as_its_user_on_a_read_only_root_and_writes_nothing(container):
    name = container(*settings(), "spotify-auth")
    wait_until(lambda: "worker started" in log_of(name), 10, "a worker")
    assert {(uid, gid) for uid, gid, _ in processes(name)} == {("10001", "10001")}
    assert inspect(name)["HostConfig"]["ReadonlyRootfs"]
    assert written(name) == []


def test_process_has_no_capability_and_can_gain_none(container):
    name = container(*settings(), "spotify-auth")
    wait_until(lambda: "worker started" in log_of(name), 10, "a worker")
    status = pathlib.Path(f"/proc/{inspect(name)['State']['Pid']}/status").read_text()
    for field, value in {"CapEff": 0, "CapPrm": 0, "CapBnd": 0, "NoNewPrivs": 1}.items():
        assert int(re.search(rf"^{field}:\s*(\w+)", status, re.M)[1], 16) == value, field


def test_sigterm_ends_it_with_0(container):
    name = container(*settings(), "spotify-auth")
    wait_until(lambda: "worker started" in log_of(name), 10, "a worker")
    docker("stop", "-t", "30", name)
    assert inspect(name)["State"]["ExitCode"] == 0
    assert '"event":"service ended"' in log_of(name)


def test_health_check_needs_no_shell_and_says_why_not(container):
    name = container("--health-interval", "1s", "--health-retries", "1", "--health-start-period", "0s", *settings(),
                     "spotify-auth")
    wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "unhealthy", 20, "unhealthy without Redis")
    assert '"redis":"unreachable"' in inspect(name)["State"]["Health"]["Log"][-1]["Output"]
    done = docker("exec", name, PROGRAM, "--health", check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["ready"] is False


def test_nginx_takes_its_rules_from_the_tree_and_finds_them_sound():
    done = docker("run", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/run/nginx:uid=10002,gid=10002",
                  "-e", "TRUSTED_PROXIES=10.0.0.1, 10.1.0.0/16",
                  "-e", "ALLOWED_ORIGINS=https://a.example,https://b.example",
                  "spotify-auth-nginx", "-T", check=False)
    assert done.returncode == 0, done.stderr
    for file in ("spotify-auth.conf", "spotify-api.conf", "spotify-auth-limits.conf"):
        assert (TREE / "nginx" / file).read_text().strip() in done.stdout
    assert "set_real_ip_from 10.1.0.0/16;" in done.stdout and '"https://b.example" $http_origin;' in done.stdout
    assert not re.search(r"@\w+@", re.sub(r"#.*", "", done.stdout))


def test_nginx_takes_a_site_with_tls_as_the_readme_says(tmp_path):
    certificates.make(tmp_path / "tls", "DNS:example.com")
    (tmp_path / "tls/good.key").chmod(0o644)
    site = (TREE / "nginx" / "production.conf").read_text()
    site = site[site.index("\nserver {"):].replace("include spotify-auth/", "include /etc/spotify-auth/nginx/")
    site = site.replace("/var/log/nginx/", "/run/nginx/")
    for name, file in (("fullchain.pem", "good.pem"), ("privkey.pem", "good.key")):
        site = site.replace(f"/etc/letsencrypt/live/example.com/{name}", f"/tls/{file}")
    (tmp_path / "site.conf").write_text(site)
    done = docker("run", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/run/nginx:uid=10002,gid=10002",
                  "-v", f"{tmp_path}/tls:/tls:ro", "-v", f"{tmp_path}/site.conf:/etc/spotify-auth/http.d/site.conf:ro",
                  "spotify-auth-nginx", "-T", check=False)
    assert done.returncode == 0 and "[warn]" not in done.stderr, done.stderr
    assert "http2 on;" in done.stdout and "server_name example.com;" in done.stdout


def test_nginx_without_a_name_server_says_so(tmp_path):
    (tmp_path / "resolv.conf").write_text("")
    done = docker("run", "--rm", "--network", "none", "-v", f"{tmp_path}/resolv.conf:/etc/resolv.conf:ro",
                  "spotify-auth-nginx", check=False)
    assert done.returncode == 1 and "no nameserver" in done.stderr


def test_build_context_holds_what_the_images_are_made_of_only():
    """.dockerignore keeps the rest from the engine, which may be another machine's."""
    listing = subprocess.run(["docker", "build", "-q", "--network", "none", "-f", "-", "."], cwd=TREE, text=True,
                             input="FROM scratch\nCOPY . /\n", capture_output=True)
    assert listing.returncode == 0, listing.stderr
    image = listing.stdout.strip()
    name = docker("create", image, "none").strip()
    try:
        exported = subprocess.run(["docker", "export", name], capture_output=True, check=True).stdout
    finally:
        docker("rm", name)
        docker("rmi", image)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        tops = {"/".join(member.name.split("/")[:2]) for member in archive if member.isfile()}
    allowed = re.compile(r"Makefile|cgi/.*|nginx/.*|docker/(collect\.sh|nginx|simulated)|tests/(unit|spotify)"
                         r"|(dev|proc|sys|etc)/.*|\.dockerenv")
    assert [name for name in tops if not allowed.fullmatch(name)] == []
