"""nginx/production.conf, the site that a user copies: as a browser meets it, with a certificate made here."""

import json
import re
import shutil
import socket
import ssl
import subprocess

import pytest

from browser import Browser
from spotify import certificates
from stack import TREE, Nginx, Stack, find_program, reserve_port, wait_until
from test_nginx import exchange, get

HSTS = "strict-transport-security"
CALLED = ("X-Requested-With: x", "Sec-Fetch-Site: same-origin")
# What Debian's own nginx.conf has around conf.d: the site must not collide with it.
MAIN = """
{user}
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 768; }}
http {{
    client_body_temp_path {dir}/body;
    fastcgi_temp_path {dir}/fastcgi;
    proxy_temp_path {dir}/proxy;
    scgi_temp_path {dir}/scgi;
    uwsgi_temp_path {dir}/uwsgi;
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    types {{ text/html html; text/css css; text/javascript js; }}
    default_type application/octet-stream;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log {dir}/other-access.log;
    gzip on;
    gzip_types application/json;
    gzip_min_length 1;
    include conf.d/*.conf;
}}
"""


def version():
    said = subprocess.run([Nginx.program(), "-v"], capture_output=True, text=True, timeout=10).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said).groups())


class Production(Nginx):
    """The files where they belong, and the changes that production.conf asks for; paths and ports are a test's."""

    def prepare(self, holder):
        """holder: the port for plain http."""
        self.plain_port = holder.getsockname()[1]
        self.certificates = certificates.make(self.directory / "tls")
        self.authority = self.certificates["ca"]
        self.change = lambda text: text

    def write_config(self):
        files = self.directory / "spotify-auth"
        shutil.rmtree(files, ignore_errors=True)
        shutil.copytree(TREE / "nginx", files)
        (self.directory / "conf.d").mkdir(exist_ok=True)
        shutil.copytree(TREE / "nginx" / "www", self.directory / "www", dirs_exist_ok=True)
        (self.directory / "acme" / ".well-known" / "acme-challenge").mkdir(parents=True, exist_ok=True)
        (self.directory / "acme" / ".well-known" / "acme-challenge" / "word").write_text("proof")
        certificate, key = self.certificates["good"]
        port = self.listen.rpartition(":")[2]
        replace(files / "spotify-auth-upstream.conf",
                ("server unix:/run/spotify-auth/spotify-auth.sock;", self.values["servers"]))
        for name in ("production-listen.conf", "production-listen-1.22.conf"):
            replace(files / name, ("[::]:443", f"[::1]:{port}"), ("listen 443", f"listen 127.0.0.1:{port}"))
        site = files / "production.conf"
        if version() < (1, 25, 1):
            replace(site, ("spotify-auth/production-listen.conf;", "spotify-auth/production-listen-1.22.conf;"))
        replace(site, ("/etc/letsencrypt/live/example.com/fullchain.pem", certificate),
                ("/etc/letsencrypt/live/example.com/privkey.pem", key),
                ("/var/www/example.com", f"{self.directory}/www"),
                ("/var/www/html", f"{self.directory}/acme"), ("listen 80;", f"listen 127.0.0.1:{self.plain_port};"),
                ("listen [::]:80;", f"listen [::1]:{self.plain_port};"))
        text = site.read_text().replace("/var/log/nginx/", f"{self.directory}/")
        (self.directory / "conf.d" / "site.conf").write_text(self.change(text))
        self.config.write_text(MAIN.format(user=self.values["user"], dir=self.directory))


def replace(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, (path.name, old)
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def site():
    stack = Stack(workers=1)
    stack.nginx.__class__ = Production
    with reserve_port() as holder:
        stack.nginx.prepare(holder)
        stack.url = stack.url.replace("http:", "https:")
        stack.redirect_uri = stack.url + "/auth/callback"
        stack.authority = stack.nginx.authority
        stack.plain = type("Plain", (), {"url": f"http://127.0.0.1:{stack.nginx.plain_port}",
                                            "described": False})  # openapi.yaml says nothing of plain http
        with stack:
            yield stack


# A login


def test_a_login_over_https_has_host_cookies_and_a_token(site):
    browser = Browser(site)
    page = browser.navigate("/")
    assert page.status_code == 200 and "Log in with Spotify" in page.text
    sent = browser.authorize()
    assert [(c.name, c.secure, c.http_only, c.path) for c in [browser.cookie("spotify-login")]] == [
        ("__Host-spotify-login", True, True, "/")]
    back = browser.callback(browser.approve(sent.headers["Location"]))
    assert back.status_code == 303
    cookie = browser.cookie("spotify-session")
    assert cookie.name == "__Host-spotify-session" and cookie.secure and cookie.http_only
    assert (cookie.same_site, cookie.path) == ("strict", "/")
    assert browser.session().json()["user"]["id"] == "ada"
    assert browser.token().json()["access_token"]
    assert browser.refresh().status_code == 200
    assert browser.logout().status_code == 204
    assert browser.token().status_code == 401


def test_everything_says_to_use_https_alone(site):
    for target, status in (("/", 200), ("/nothing", 404), ("/auth/session", 403), ("/auth/nothing", 404),
                           ("/auth/healthz", 404), ("/auth/authorize", 302)):
        got, headers, _ = get(site, target)
        assert (got, headers.get(HSTS)) == (status, "max-age=31536000"), target


def test_answers_with_secrets_are_never_compressed(site):
    """While the machine's own setting is to compress JSON."""
    browser = Browser(site)
    browser.login()
    answer = browser.fetch("GET", "/token", headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200 and "Content-Encoding" not in answer.headers
    assert browser.navigate("/", headers={"Accept-Encoding": "gzip"}).headers.get("Content-Encoding") == "gzip"


# TLS


def handshake(site, **how):
    """(protocol, cipher, what ALPN chose, session) of a connection."""
    context = ssl.create_default_context(cafile=site.authority)
    if "version" in how:
        context.minimum_version = context.maximum_version = how["version"]
    if "ciphers" in how:
        context.set_ciphers(how["ciphers"])
    if "alpn" in how:
        context.set_alpn_protocols(how["alpn"])
    if how.get("context"):
        context = how["context"]
    host, port = "127.0.0.1", int(site.url.rpartition(":")[2])
    with socket.create_connection((host, port), 10) as plain:
        with context.wrap_socket(plain, server_hostname=host, session=how.get("session")) as client:
            return client.version(), client.cipher()[0], client.selected_alpn_protocol()


@pytest.mark.parametrize("number, name", [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")])
def test_tls_1_2_and_1_3_are_spoken(site, number, name):
    assert handshake(site, version=number)[0] == name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("number", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_tls_is_not(site, number):
    with pytest.raises(ssl.SSLError):
        handshake(site, version=number, ciphers="ALL:@SECLEVEL=0")


@pytest.mark.parametrize("ciphers, good", [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
    ("ECDHE-ECDSA-AES256-SHA384", False), ("ECDHE-ECDSA-AES128-SHA", False), ("AES128-GCM-SHA256:AES256-SHA", False),
    ("DHE-RSA-AES128-GCM-SHA256", False)])
def test_ciphers_are_those_with_forward_secrecy_and_authentication(site, ciphers, good):
    if good:
        assert handshake(site, version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)[1] == ciphers
    else:
        with pytest.raises(ssl.SSLError):
            handshake(site, version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers + ":@SECLEVEL=0")


def test_the_client_chooses_among_the_ciphers(site):
    wish = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
    for ciphers in (wish, ":".join(reversed(wish.split(":")))):
        assert handshake(site, version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)[1] == ciphers.split(":")[0]


def test_a_tls_session_is_taken_up_again_without_tickets(site):
    context = ssl.create_default_context(cafile=site.authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = ("127.0.0.1", int(site.url.rpartition(":")[2]))

    def connect(session=None):
        with socket.create_connection(address, 10) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as client:
                return client.session, client.session_reused
    session, reused = connect()
    assert not reused and not session.has_ticket and session.id
    assert connect(session)[1]


@pytest.mark.parametrize("wish, chosen", [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["spdy/3"], None)])
def test_http_2_is_spoken_to_who_knows_it(site, wish, chosen):
    try:
        assert handshake(site, alpn=wish)[2] == chosen
    except ssl.SSLError:
        assert chosen is None  # newer nginx closes, as RFC 7301 3.2 has it


NODE = """
const http2 = require("http2"), fs = require("fs");
const [, , url, ca, asked] = process.argv;
const client = http2.connect(url, {ca: fs.readFileSync(ca)});
const out = [];
function ask([headers, size], next) {
  const request = client.request(size ? {...headers, "content-length": size} : headers);
  let answer, body = "";
  request.on("response", (headers) => { answer = headers; });
  request.on("data", (part) => { body += part; });
  request.on("error", (error) => { out.push([String(error.code), {}, ""]); next(); });
  request.on("end", () => { out.push([answer[":status"], answer, body]); next(); });
  request.end(...(size ? [Buffer.alloc(size)] : []));
}
function askAll([first, ...others]) {
  if (first) { ask(first, () => askAll(others)); return; }
  console.log(JSON.stringify(out));
  client.close();
}
askAll(JSON.parse(asked));
"""


def over_http_2(site, tmp_path, *requests):
    """[[status, headers, body]] of [headers, size of the body]."""
    script = tmp_path / "ask.js"
    script.write_text(NODE)
    done = subprocess.run([find_program("node"), script, site.url, site.authority, json.dumps(requests)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_requests_over_http_2_are_answered_as_others_are(site, tmp_path):
    called = {":path": "/auth/session", "x-requested-with": "x", "sec-fetch-site": "same-origin"}
    own, foreign, internal, dotted = over_http_2(
        site, tmp_path, [called, 0], [{**called, ":authority": "evil.example"}, 0], [{":path": "/auth/healthz"}, 0],
        [{":path": "/auth/x/../metrics"}, 0])
    for status, headers, body in (own, foreign):
        assert status == 200 and json.loads(body)["login_url"] == site.url + "/auth/authorize"
        assert headers[HSTS] == "max-age=31536000" and headers["cache-control"] == "no-store"
    for status, headers, body in (internal, dotted):
        assert status == 404 and json.loads(body)["error"] == "not_found"


WEB_API = """
upstream spotify_api { server 127.0.0.1:1; }
map $host $spotify_api_origin { default https://spotify_api; }
map $host $spotify_api_host { default api.spotify.com; }
include spotify-auth/spotify-api-rules.conf;
"""


def test_a_body_too_large_over_http_2_is_refused_with_json(site, tmp_path):
    site.nginx.change = lambda text: WEB_API + text.replace(
        "include spotify-auth/spotify-auth.conf;",
        "include spotify-auth/spotify-auth.conf; include spotify-auth/spotify-api.conf;")
    site.nginx.stop()
    site.nginx.start()
    post = {":method": "POST"}
    try:
        answers = over_http_2(site, tmp_path, [{**post, ":path": "/auth/swap"}, 65537],
                              [{**post, ":path": "/auth/callback"}, 65537], [{**post, ":path": "/auth"}, 65537],
                              [{":method": "PUT", ":path": "/spotify/v1/me/player"}, 1_100_000])
    finally:
        site.nginx.change = lambda text: text
        site.nginx.stop()
        site.nginx.start()
    assert [(status, json.loads(body)["error"]) for status, _, body in answers] == [
        (413, "invalid_request"), (413, "invalid_request"), (404, "not_found"), (413, "request_too_large")]


# Plain http


@pytest.mark.parametrize("target", ["/", "/auth/authorize?return_to=%2Fapp", "/a%20b?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_plain_http_leads_to_https(site, target, method):
    status, headers, _ = get(site.plain, target, "Host: evil.example", method=method)
    assert (status, headers["location"]) == (301, "https://example.com" + target)
    assert HSTS not in headers and "set-cookie" not in headers


@pytest.mark.parametrize("target", ["/auth/swap", "/auth/api/token", "/auth/refresh", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_is_sent_in_the_clear_is_refused_and_not_led_on(site, target, method):
    status, headers, body = get(site.plain, target, "Content-Length: 6", method=method, body=b"code=x")
    assert (status, json.loads(body)["error"]) == (403, "https_required")
    assert headers["content-type"] == "application/json" and "location" not in headers


def test_a_certificates_authority_finds_its_answer_over_plain_http(site):
    assert get(site.plain, "/.well-known/acme-challenge/word")[2] == b"proof"


# The rest of it


def test_the_log_has_requests_and_no_query(site):
    mark = get(site, "/auth/session?secret=of-the-log", *CALLED)[1]["x-request-id"]
    get(site.plain, "/auth/callback?code=of-the-log&state=x")
    path = site.nginx.directory / "access.log"
    log = wait_until(lambda: mark in (text := path.read_text()) and " 301 " in text and text, 5, "the lines")
    assert "of-the-log" not in log
    assert re.search(rf"^127\.0\.0\.1 .* GET /auth/session HTTP/1.1 200 .*{mark}", log, re.M)
    # Nothing goes to the machine's own log, whose format has the query.
    assert (site.nginx.directory / "other-access.log").read_text() == ""


def test_nothing_says_which_version_it_is(site):
    for place, target in ((site, "/nothing"), (site, "/auth/nothing"), (site.plain, "/x"), (site, "/auth/authorize")):
        _, headers, body = get(place, target)
        assert headers["server"] == "nginx" and b"nginx/" not in body


def test_a_head_that_does_not_come_is_not_waited_for(site):
    site.nginx.change = lambda text: text.replace("client_header_timeout 10s;", "client_header_timeout 1s;")
    site.nginx.stop()
    site.nginx.start()
    try:
        host, port = "127.0.0.1", site.nginx.plain_port
        with socket.create_connection((host, port), 10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
            assert slow.recv(100) == b""
        with socket.create_connection((host, int(site.url.rpartition(":")[2])), 10) as plain:
            context = ssl.create_default_context(cafile=site.authority)
            with context.wrap_socket(plain, server_hostname=host) as slow:
                slow.sendall(b"GET /auth/session HTTP/1.1\r\nHost: x\r\nX-A: ")
                assert slow.recv(100) == b""
    finally:
        site.nginx.change = lambda text: text
        site.nginx.stop()
        site.nginx.start()


def with_everything(text):
    """What the file speaks of besides: the Web API, the metrics, a further proxy."""
    assert text.count("# include ") == 1
    text = text.replace("# include ", "include ")
    text = text.replace("    include spotify-auth/spotify-auth.conf;",
                        "    include spotify-auth/spotify-auth.conf;\n    include spotify-auth/spotify-api.conf;")
    more = ("spotify-api-upstream", "spotify-api-rules", "spotify-auth-metrics")
    return "".join(f"include spotify-auth/{name}.conf;\n" for name in more) + text


@pytest.mark.parametrize("change", [lambda text: text, with_everything], ids=["as it is", "with everything"])
def test_the_files_pass_nginxs_own_test_without_a_warning(tmp_path, change):
    with reserve_port() as plain, reserve_port() as tls, reserve_port() as metrics:
        nginx = Production(tmp_path, ["unix:/run/spotify-auth/spotify-auth.sock"], f"127.0.0.1:{tls.getsockname()[1]}")
        nginx.prepare(plain)
        nginx.change = change
        nginx.write_config()
        files = tmp_path / "spotify-auth"
        # The one name that nginx looks up when it starts: this machine may be away from the net.
        replace(files / "spotify-api-upstream.conf", ("server api.spotify.com:443", "server 127.0.0.1:443"))
        replace(files / "spotify-auth-metrics.conf", ("127.0.0.1:9145;", f"127.0.0.1:{metrics.getsockname()[1]};"))
        done = nginx.check()
        assert done.returncode == 0 and "[warn]" not in done.stderr, done.stderr
        if change is with_everything:
            used = re.findall(r"^ *include \S+/(\S+);", (tmp_path / "conf.d" / "site.conf").read_text(), re.M)
            left = {path.name for path in (TREE / "nginx").glob("*.conf")} - set(used)
            globs = re.search(r"-t /etc/nginx/spotify-auth (.*)", (TREE / "README.md").read_text())[1].split()
            assert set(used) <= {path.name for glob in globs for path in TREE.glob(glob)}
            other = "production-listen.conf" if version() < (1, 25, 1) else "production-listen-1.22.conf"
            assert left == {"nginx.conf", "production.conf", other}
