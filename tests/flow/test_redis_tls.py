"""TLS to Redis: whose certificate is believed, what a refusal says, and that it holds nobody up. Where hiredis has no
TLS, that it is refused at the start."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from browser import Browser
from sessions import assert_unavailable, log_in, log_events
from stack import TREE, wait_until
from test_settings import environment
from test_settings import run as run_program

sys.path.append(str(TREE / "tests" / "redis"))

from engines import One, Tls  # noqa: E402
from spotify import certificates  # noqa: E402

STORE_TIMEOUT_MS = 400
SLACK_S = 0.3
PIECE = 50


def build_has_tls():
    done = run_program("--check", env=environment(REDIS_URL="rediss://localhost"))
    return "no TLS support" not in done.stdout


HAS_TLS = build_has_tls()
with_tls = pytest.mark.skipif(not HAS_TLS, reason="this hiredis has no TLS (1.0 and later do)")


def test_a_build_has_tls_where_hiredis_has_it():
    """By the version of its package: a build that overlooked its TLS would skip all tests below."""
    asked = ["dpkg-query", "-W", "-f=${Version}", "libhiredis-dev"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert HAS_TLS == (int(version.split(".")[0]) >= 1)


@pytest.mark.skipif(HAS_TLS, reason="this hiredis has TLS: what it says without is shown with an older one")
def test_a_build_without_tls_refuses_to_start():
    done = run_program("--check", env=environment(REDIS_URL="rediss://localhost", WORKERS="none"))
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["WORKERS", "REDIS_URL"]
    assert "this build has no TLS support, which takes hiredis 1.0 or newer; use redis:// or unix://" in done.stdout


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """Certificates, by name, and their authorities."""
    folder = tmp_path_factory.mktemp("papers")
    made = certificates.make(folder)
    made["name_only"] = certificates.certificate(folder, "name_only", "ca", "DNS:localhost", 2)
    made["common_name"] = certificates.certificate(folder, "common_name", "ca", "email:redis@localhost", 2, "localhost")
    made["other_ca"] = str(folder / "other_ca.pem")
    made["folder"] = folder
    return made


@pytest.fixture
def tls(papers):
    return Tls(papers["ca"], papers["good"], papers["good"])


@pytest.fixture
def over_tls(make_stack, tmp_path, tls):
    """over_tls(pair=…, host=…, port=…, SETTING=…): a stack on a Redis with TLS; ready=False where it cannot get so.
    kind: what else than a Redis it is taken for."""
    def make(pair=None, host="localhost", port=None, ready=False, kind="rediss://{}", **settings):
        tls.pair = pair or tls.pair
        redis = One(tmp_path / "redis", tls=tls)
        url = redis.url.replace(f"@localhost:{redis.server.port}", f"@{host}:{port or redis.server.port}")
        url = kind.format(url.removeprefix("rediss://").removesuffix("/0"))
        return make_stack(redis=redis, services=1, workers=1, start_ready=ready, settings={
            **redis.settings(), "REDIS_URL": url, "STORE_TIMEOUT_MS": STORE_TIMEOUT_MS, **settings})
    return make


def losses(stack):
    """Why connections were lost, as the log tells."""
    return [line["error"] for line in log_events(stack.services[0], "redis lost")]


# Who is believed


OTHER_NAME = "TLS: its certificate is for another name than the one in REDIS_URL"
UNKNOWN_ISSUER = "TLS: its certificate has no issuer that is trusted (REDIS_CA_FILE)"
WANTS_OURS = "TLS: it wants a certificate of ours; set REDIS_CERT_FILE and REDIS_KEY_FILE"
REFUSES_OURS = "TLS: it does not accept the certificate in REDIS_CERT_FILE"
# What Redis says of our certificate can be lost with the connection that it closes.
UNSAID = {WANTS_OURS: "does it want a certificate of ours (REDIS_CERT_FILE)?",
          REFUSES_OURS: "does it accept the certificate in REDIS_CERT_FILE?"}


def assert_refused(stack, why):
    for _ in range(4):
        assert_unavailable(Browser(stack).authorize(headers={"Accept": "application/json"}))
    status, body = stack.nginx.admin("/readyz")
    assert status == 503 and '"redis":"tls"' in body
    told = losses(stack)
    assert all(line == why or UNSAID.get(why, why) in line for line in told) and 1 <= len(told) <= 2, told


@with_tls
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_login_over_tls_with_a_certificate_of_our_own(over_tls, host):
    stack = over_tls(host=host, ready=True)
    browser = log_in(stack)
    assert browser.session().json()["authenticated"]
    assert browser.refresh().status_code == browser.token().status_code == 200
    assert browser.logout().status_code == 204
    assert losses(stack) == []


@with_tls
@pytest.mark.parametrize("pair, host, changes, why", [
    ("wrong_name", "localhost", {}, OTHER_NAME),
    ("wrong_name", "127.0.0.1", {}, OTHER_NAME),
    ("name_only", "127.0.0.1", {}, OTHER_NAME),
    ("common_name", "localhost", {}, OTHER_NAME),
    ("expired", "localhost", {}, "TLS: its certificate has expired"),
    ("unknown_ca", "localhost", {}, UNKNOWN_ISSUER),
    ("good", "localhost", {"REDIS_CA_FILE": None}, UNKNOWN_ISSUER),
    ("good", "localhost", {"REDIS_CERT_FILE": None, "REDIS_KEY_FILE": None}, WANTS_OURS),
], ids=["other name", "other address", "name alone", "common name", "expired", "unknown issuer", "not the system's", "none of ours"])
def test_who_is_not_believed_gets_nothing(over_tls, papers, pair, host, changes, why):
    stack = over_tls(pair=papers[pair], host=host, **changes)
    assert_refused(stack, why)
    assert "cmdstat_auth" not in stack.redis.server.client().info("commandstats")


@with_tls
@pytest.mark.parametrize("kind", ["rediss+sentinel://{}/sessions", "rediss+cluster://{}"])
def test_who_is_not_believed_is_asked_for_no_master(over_tls, papers, kind):
    assert_refused(over_tls(pair=papers["wrong_name"], kind=kind), OTHER_NAME)


@with_tls
def test_a_certificate_that_redis_does_not_accept(over_tls, papers):
    certificate, key = papers["unknown_ca"]
    assert_refused(over_tls(REDIS_CERT_FILE=certificate, REDIS_KEY_FILE=key), REFUSES_OURS)


@with_tls
def test_what_speaks_no_tls(over_tls):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def chat():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    peer.recv(4096)
                    peer.sendall(b"-ERR what do you mean?\r\n")
                    peer.close()
        threading.Thread(target=chat, daemon=True).start()
        stack = over_tls(REDIS_URL=f"rediss://localhost:{server.getsockname()[1]}")
        assert_refused(stack, "TLS: what answers speaks none")


@with_tls
def test_a_mended_certificate_is_good_at_the_next_request(over_tls, papers, tls):
    stack = over_tls(pair=papers["good"], ready=True)
    browser = log_in(stack)
    server = stack.redis.server

    def present(name):
        server.kill()
        certificate, key = papers[name]
        lines = [line for line in server.config.read_text().splitlines()
                 if not line.startswith(("tls-cert-file", "tls-key-file"))]
        server.config.write_text("\n".join([*lines, f"tls-cert-file {certificate}", f"tls-key-file {key}", ""]))
        server.start()
    present("expired")
    assert_unavailable(browser.token())
    assert_unavailable(browser.token())
    assert "TLS: its certificate has expired" in losses(stack)
    present("good")
    assert browser.token().status_code == 200


@with_tls
def test_files_are_read_again_on_sighup_and_broken_ones_refused(over_tls, papers, tmp_path):
    ours = {"REDIS_CERT_FILE": tmp_path / "ours.pem", "REDIS_KEY_FILE": tmp_path / "ours.key"}

    def write(pair):
        for path, source in zip(ours.values(), pair):
            shutil.copyfile(source, path)
    write(papers["unknown_ca"])
    stack = over_tls(**{name: str(path) for name, path in ours.items()})
    service = stack.services[0]
    assert_refused(stack, REFUSES_OURS)
    ours["REDIS_KEY_FILE"].write_text("no key")
    service.signal(signal.SIGHUP)
    wait_until(lambda: log_events(service, "reload refused"), 5, "the refusal")
    write(papers["good"])
    service.signal(signal.SIGHUP)
    wait_until(service.ready, 10, "Redis accepts the new certificate")


# Nobody is held up


@with_tls
def test_a_handshake_that_stalls_counts_as_a_command(over_tls):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        stack = over_tls(REDIS_URL=f"rediss://localhost:{port}")
        browser = Browser(stack)
        slow = []

        def ask():
            begun = time.monotonic()
            assert_unavailable(browser.authorize(headers={"Accept": "application/json"}))
            slow.append(time.monotonic() - begun)
        asking = threading.Thread(target=ask)
        asking.start()
        begun = time.monotonic()
        assert stack.nginx.admin("/healthz")[0] == 200
        assert time.monotonic() - begun < STORE_TIMEOUT_MS / 1000 / 2, "the one worker waits for nobody"
        asking.join()
        assert slow[0] < STORE_TIMEOUT_MS / 1000 + SLACK_S


def in_pieces(target, listener):
    """Pass on what comes, some bytes at a time, until the listener is closed."""
    def pass_on(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                for at in range(0, len(data), PIECE):
                    sink.sendall(data[at:at + PIECE])
                    time.sleep(0.001)
            sink.shutdown(socket.SHUT_WR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                server = socket.create_connection(target)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in ((peer, server), (server, peer)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


@with_tls
def test_what_comes_in_pieces_is_put_together(over_tls):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stack = over_tls(port=port, STORE_TIMEOUT_MS=10_000)
        in_pieces(("127.0.0.1", stack.redis.server.port), listener)
        browser = log_in(stack)
        assert browser.refresh().status_code == browser.token().status_code == 200
        assert losses(stack) == []
        listener.shutdown(socket.SHUT_RDWR)


@with_tls
def test_many_requests_share_one_connection(over_tls):
    stack = over_tls(ready=True)
    browsers = [log_in(stack, user=f"user-{number}") for number in range(3)]
    threads = [threading.Thread(target=lambda browser=browser: [browser.session() for _ in range(50)])
               for browser in browsers for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(browser.token().status_code == 200 for browser in browsers)
    assert losses(stack) == []
    assert len(log_events(stack.services[0], "redis connected")) == 1


# Settings


@with_tls
@pytest.mark.parametrize("setting, value, complaint", [
    ("REDIS_KEY_FILE", None, "REDIS_KEY_FILE: not set; name the file with the key"),
    ("REDIS_CERT_FILE", None, "REDIS_CERT_FILE: not set; name the file with the certificate"),
    ("REDIS_KEY_FILE", "other", "REDIS_KEY_FILE: that key cannot be read, is encrypted or is not that of the"),
    ("REDIS_KEY_FILE", "locked", "REDIS_KEY_FILE: that key cannot be read, is encrypted or is not that of the"),
    ("REDIS_CERT_FILE", "broken", "REDIS_CERT_FILE: that file's certificate cannot be read"),
    ("REDIS_CA_FILE", "broken", "REDIS_CA_FILE: that file's certificates cannot be read"),
    ("REDIS_URL", "redis://localhost", "REDIS_URL: asks for no TLS, and a file for it is set"),
])
def test_check_looks_into_the_files(papers, tls, setting, value, complaint):
    folder = papers["folder"]
    (folder / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    subprocess.run(["openssl", "pkey", "-in", papers["good"][1], "-aes256", "-passout", "pass:secret",
                    "-out", folder / "locked"], check=True)
    values = {"other": papers["expired"][1], "locked": str(folder / "locked"), "broken": str(folder / "broken")}
    settings = {**tls.settings(), "REDIS_URL": "rediss://localhost", setting: values.get(value, value)}
    env = environment(**{name: text for name, text in settings.items() if text is not None})
    done = run_program("--check", env=env)
    assert done.returncode == 1
    assert done.stdout.startswith(complaint) and len(done.stdout.splitlines()) == 1


@with_tls
def test_check_is_content_with_good_files(tls):
    done = run_program("--check", env=environment(REDIS_URL="rediss://localhost", **tls.settings()))
    assert (done.returncode, done.stdout) == (0, "ok\n")
