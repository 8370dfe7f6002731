"""The page in a real Chromium, driven over the WebDriver protocol."""

import base64
import contextlib
import http.server
import json
import pathlib
import shutil
import tempfile
import threading
import urllib.parse

import pytest
import requests

from browser import Browser
from nginx_files import beside
from stack import Process, find_program, reserve_port, wait_until

SCREENSHOTS = pathlib.Path(__file__).resolve().parents[2] / "build" / "screenshots"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver 11: the name of an element's reference
WAIT_S = 10
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --disable-default-apps
    --disable-dev-shm-usage --window-size=900,700""".split()
# Nothing of a test goes to another machine.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class Chromium:
    """One window of its own profile."""

    def __init__(self, driver_url, site):
        self.site = site
        self.profile = tempfile.mkdtemp(prefix="spotify-auth-chromium-")
        self.http = requests.Session()
        self.http.trust_env = False
        self.url = driver_url + "/session"
        options = {"args": [*FLAGS, ALONE, f"--user-data-dir={self.profile}"],
                   "binary": find_program("chromium")}
        wanted = {"goog:chromeOptions": options, "pageLoadStrategy": "normal",
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        made = self.command("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.url += "/" + made["sessionId"]
        self.requests = []

    def command(self, method, path, values=None):
        body = {"json": values or {}} if method == "POST" else {}
        answer = self.http.request(method, self.url + path, timeout=60, **body)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise AssertionError(f"{path}: {value['error']}: {value['message'][:300]}")
        return value

    def open(self, path):
        self.command("POST", "/url", {"url": urllib.parse.urljoin(self.site, path)})

    @property
    def address(self):
        return self.command("GET", "/url")

    def find(self, selector):
        found = self.command("POST", "/element", {"using": "css selector", "value": selector})
        return "/element/" + found[ELEMENT]

    def click(self, selector):
        self.command("POST", self.find(selector) + "/click")

    def type(self, selector, text):
        self.command("POST", self.find(selector) + "/value", {"text": text})

    def text(self, selector="body"):
        return self.command("GET", self.find(selector) + "/text")

    def wait_text(self, text, selector="body"):
        def is_there():
            with contextlib.suppress(AssertionError):  # the page is about to change
                return text in self.text(selector)
            return False
        try:
            wait_until(is_there, WAIT_S, text, 0.05)
        except TimeoutError:
            raise AssertionError(f"no {text!r} in {self.text()!r}") from None

    def run(self, script):
        return self.command("POST", "/execute/sync", {"script": script, "args": []})

    def back(self):
        self.command("POST", "/back")

    def reload(self):
        self.command("POST", "/refresh")

    def new_tab(self):
        """A tab beside this one; its handle."""
        handle = self.command("POST", "/window/new", {"type": "tab"})["handle"]
        self.switch(handle)
        return handle

    def tab(self):
        return self.command("GET", "/window")

    def switch(self, handle):
        self.command("POST", "/window", {"handle": handle})

    def cookies(self):
        return {cookie["name"]: cookie for cookie in self.command("GET", "/cookie")}

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        image = base64.b64decode(self.command("GET", "/screenshot"))
        (SCREENSHOTS / f"{name}.png").write_bytes(image)

    def console(self):
        """Warnings and errors since the last call, but for the icons that the simulator and a
        foreign page do not have."""
        return [entry["message"] for entry in self.command("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("WARNING", "SEVERE") and
                ("/favicon.ico" not in entry["message"] or self.site in entry["message"])]

    def requested(self):
        """Every URL that any page has asked for."""
        for entry in self.command("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return self.requests

    def quit(self):
        with contextlib.suppress(Exception):
            self.command("DELETE", "")
        self.http.close()
        shutil.rmtree(self.profile, ignore_errors=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    program = find_program("chromedriver")
    find_program("chromium")
    with reserve_port() as holder:
        port = holder.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = Process("chromedriver", tmp_path_factory.mktemp("driver") / "driver.log")
    process.launch([program, f"--port={port}"])

    def answers():
        with contextlib.suppress(requests.RequestException):
            return requests.get(url + "/status", timeout=2).json()["value"]["ready"]
        return False
    process.wait_ready(answers)
    yield url
    process.stop()


@pytest.fixture
def page(driver, stack):
    window = Chromium(driver, stack.url)
    try:
        window.open("/")
        window.wait_text("not logged in")
        yield window
    finally:
        window.quit()


def log_in(page, user="ada"):
    page.click("#login")
    page.wait_text("Simulated Spotify")
    if user != "ada":
        page.type("input[name=name]", user)
    page.click("button[value=agree]")
    page.wait_text("Renew now")


def test_page_log_in_profile_renew_log_out(page, stack):
    page.screenshot("1-logged-out")
    page.click("#login")
    page.wait_text("Simulated Spotify")
    assert "A stand-in for tests" in page.text()
    page.screenshot("2-simulated-spotify")
    page.click("button[value=agree]")
    page.wait_text("Ada Lovelace")
    page.wait_text("seconds left")
    assert page.address == stack.url + "/"
    assert "premium" in page.text() and "user-read-email" in page.text()
    page.screenshot("3-logged-in")
    page.click("#renew")
    page.wait_text("The access token is the same")  # younger than 10 s

    def renewed():
        page.click("#renew")
        return "The access token is fresh." in page.text()
    wait_until(renewed, 20, "a renewed token", 0.5)
    page.screenshot("4-renewed")
    page.click("#logout")
    page.wait_text("You are logged out.")
    page.wait_text("Log in with Spotify", "#login")
    page.screenshot("5-logged-out")
    page.reload()
    page.wait_text("not logged in")
    assert "spotify-session" not in page.cookies()
    assert page.console() == []


def test_page_renews_a_token_that_is_about_to_end(page, stack):
    stack.spotify.behave("token", grant="authorization_code", expires_in=30)
    log_in(page)
    page.wait_text("seconds left")
    wait_until(lambda: stack.spotify.calls(grant="refresh_token") == 1, 5, "the renewal")
    assert int(page.text("#seconds").split()[0]) > 60


def test_page_after_declining_says_so(page, stack):
    page.click("#login")
    page.wait_text("Simulated Spotify")
    page.click("button[value=cancel]")
    page.wait_text("You declined at Spotify")
    page.screenshot("6-declined")
    assert any(url.endswith("/?error=access_denied") for url in page.requested())
    assert page.address == stack.url + "/", "the message would come again with a reload"
    page.reload()
    page.wait_text("not logged in")
    assert "declined" not in page.text()
    assert page.console() == []


def test_page_when_spotify_fails_says_so(page, stack):
    stack.spotify.behave("token", status=503)
    page.click("#login")
    page.wait_text("Simulated Spotify")
    page.click("button[value=agree]")
    page.wait_text("Spotify cannot be reached right now")
    page.screenshot("7-spotify-away")


def test_18_callback_opened_again_ends_at_the_page_and_redeems_nothing(page, stack):
    log_in(page)
    callback, = [url for url in page.requested() if "/auth/callback?" in url]
    page.open(callback)
    page.wait_text("Ada Lovelace")
    assert page.address == stack.url + "/"
    assert stack.spotify.calls(grant="authorization_code") == 1


def test_back_button_and_agreeing_again_keeps_the_login(page, stack):
    log_in(page)
    page.back()
    page.wait_text("Simulated Spotify")
    page.click("button[value=agree]")
    wait_until(lambda: page.address.startswith(stack.url), WAIT_S, "our page")
    page.open("/")
    page.wait_text("Ada Lovelace")


def test_callback_of_another_browser_shows_a_person_what_to_do(page, stack):
    other = Browser(stack)
    page.open(other.approve(other.authorize().headers["Location"]))
    page.wait_text("log in again")
    page.screenshot("8-callback-of-another-browser")
    assert "spotify-session" not in page.cookies()


def test_11_two_tabs_log_in_at_the_same_time(page, stack):
    first = page.tab()
    page.click("#login")
    page.wait_text("Simulated Spotify")
    page.new_tab()
    page.open("/")
    page.wait_text("not logged in")
    page.click("#login")
    page.wait_text("Simulated Spotify")
    page.click("button[value=agree]")
    page.wait_text("Ada Lovelace")
    page.switch(first)
    page.click("button[value=agree]")
    page.wait_text("Ada Lovelace")
    assert page.console() == []


def test_second_tab_is_logged_in_and_out_with_the_first(page):
    first = page.tab()
    log_in(page)
    second = page.new_tab()
    page.open("/")
    page.wait_text("Ada Lovelace")
    page.click("#logout")
    page.wait_text("You are logged out.")
    page.switch(first)
    page.click("#renew")
    page.wait_text("Please log in again.")
    page.switch(second)


def test_logout_everywhere_ends_another_browsers_session(page, stack):
    other = Browser(stack)
    assert other.login().status_code == 303
    log_in(page)
    page.click("#logout-all")
    page.wait_text("You are logged out everywhere.")
    assert other.session().json()["authenticated"] is False


def test_scripts_see_no_session_and_no_token_is_stored(page):
    log_in(page)
    session = page.cookies()["spotify-session"]
    assert session["httpOnly"] and session["sameSite"] == "Strict"
    assert page.run("return document.cookie") == ""
    assert page.run("return Object.keys(localStorage).concat(Object.keys(sessionStorage))") == []


def test_a_name_of_markup_is_shown_as_text(page, stack):
    name = "<img src=x onerror=document.title='owned'><b>Eve</b>"
    stack.spotify.behave("api", display_name=name)
    log_in(page)
    page.wait_text(name, "#who")
    assert page.run("return document.title") != "owned"
    assert page.run("return document.querySelector('#who').children.length") == 0


@pytest.mark.parametrize("images, hosts", [("normal", {"i.scdn.co"}), (None, set())], ids=["normal", "as simulated"])
def test_page_asks_no_host_but_ours_and_the_profile_image(page, stack, images, hosts):
    """The simulated profile has none, so that `make run` alone has nobody asked."""
    stack.spotify.behave("api", images=images)
    log_in(page)
    page.wait_text("seconds left")
    page.click("#renew")
    page.wait_text("The access token is the same")
    ours = (stack.url, stack.spotify.url, "data:", "about:", "chrome:")
    foreign = [url for url in page.requested() if not url.startswith(ours)]
    assert {urllib.parse.urlsplit(url).hostname for url in foreign} == hosts


def test_page_policy_is_strict_and_holds(page):
    policy = requests.get(page.site + "/", timeout=5).headers["Content-Security-Policy"]
    parts = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == parts["connect-src"] == "'self'"
    assert parts["frame-ancestors"] == parts["base-uri"] == "'none'"
    assert "unsafe" not in policy
    page.run("const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
             "document.body.append(s)")
    assert page.run("return window.owned === undefined")
    assert any("Content Security Policy" in line for line in page.console())


@contextlib.contextmanager
def foreign_page(html):
    """The URL of a page on another origin."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("path", ["/", "/auth/authorize", "/auth/callback?error=access_denied"])
def test_12_nothing_of_ours_can_be_framed(page, stack, path):
    with foreign_page(f'<iframe src="{stack.url}{path}"></iframe>') as url:
        page.open(url)
        wait_until(lambda: stack.url + path in page.requested(), 5, "the frame")
        wait_until(lambda: any("frame" in line for line in page.console()), 5, "the refusal")
    assert stack.spotify.calls("authorize") == 0


# A script of a page, and everything that the browser was sent for it

CALL_THE_WEB_API = """
    const done = arguments[arguments.length - 1];
    (async () => {
        const got = [];
        for (const path of ["/spotify/v1/me", "/catalog/v1/albums/4aawyAB9vmqN3uQ7FjRGTy", "/spotify/v1/me/playlists",
                            "/spotify/v1/me/player/recently-played", "/auth/session", "/auth/sessions"]) {
            const answer = await fetch(path, {headers: {"X-Requested-With": "page"}});
            const headers = Array.from(answer.headers, ([name, value]) => name + ": " + value).join("\\n");
            got.push({path, status: answer.status, headers, body: await answer.text()});
        }
        done(got);
    })();
"""


def received(page):
    """What the browser was sent, by its own account: every header, and every body that it still has."""
    texts = []
    for entry in page.command("POST", "/se/log", {"type": "performance"}):
        message = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.responseReceived", "Network.responseReceivedExtraInfo",
                                 "Network.requestWillBeSentExtraInfo", "Network.requestWillBeSent"):
            texts.append(entry["message"])
        if message["method"] == "Network.loadingFinished":
            wanted = {"cmd": "Network.getResponseBody", "params": {"requestId": message["params"]["requestId"]}}
            with contextlib.suppress(AssertionError):  # of a page that was left
                texts.append(page.command("POST", "/goog/cdp/execute", wanted)["body"])
    return texts


def test_a_page_calls_the_web_api_and_no_token_ever_reaches_the_browser(page, stack):
    page.open("/auth/authorize?return_to=/icon.svg&scope=user-read-private%20playlist-read-private")
    page.wait_text("Simulated Spotify")
    page.click("button[value=agree]")
    wait_until(lambda: page.address == stack.url + "/icon.svg", WAIT_S, "the page after the login")
    answers = page.command("POST", "/execute/async", {"script": CALL_THE_WEB_API, "args": []})
    me, album, playlists, played, session, sessions = answers
    assert me["status"] == 200 and json.loads(me["body"])["id"] == "ada"
    assert album["status"] == 200 and "A simulated album" in album["body"]
    assert playlists["status"] == 200 and "Playlist of ada" in playlists["body"]
    assert played["status"] == 403 and "Insufficient client scope" in played["body"]
    assert session["status"] == sessions["status"] == 200
    assert json.loads(sessions["body"])["sessions"][0]["user_agent"].startswith("Chrom")
    assert stack.spotify.calls("api") == 5, "the profile at the login, and four calls of the page"
    dump = "\n".join([*received(page), json.dumps(answers), page.run("return document.cookie"),
                      page.run("return JSON.stringify([localStorage, sessionStorage])")])
    assert "Ada Lovelace" in dump and "A simulated album" in dump and "spotify-session=" in dump
    secrets = stack.spotify.secrets_by_kind()
    for kind in ("access_token", "refresh_token", "client_secret", "code_verifier"):
        assert secrets[kind]
        assert not [value for value in secrets[kind] if len(value) > 16 and value in dump], kind


def test_48_another_site_can_neither_read_nor_end_a_session(page, stack):
    log_in(page)
    script = f"""<body><script>(async () => {{
        const got = [];
        for (const headers of [{{}}, {{"X-Requested-With": "x"}}])
            for (const [method, route] of [["GET", "token"], ["GET", "session"], ["POST", "logout"]])
                try {{ const answer = await fetch("{stack.url}/auth/" + route,
                           {{method, headers, credentials: "include"}});
                      got.push(route + answer.status);
                }} catch {{ got.push("refused"); }}
        document.body.textContent = got.join(" ");
    }})()</script>"""
    with foreign_page(script) as url:
        page.open(url)
        page.wait_text(" ".join(["refused"] * 6))
    page.open("/")
    page.wait_text("Ada Lovelace")


def test_a_frontend_of_another_origin_reads_of_an_outage_where_it_is_listed(driver, stack):
    """It hears 503 and when to try again, preflight and all; who is not listed sees a broken network."""
    script = """<body>…</body><script>async function ask(auth) {
        const got = [];
        for (const [method, path] of [["GET", "/auth/token"], ["POST", "/auth/refresh"], ["GET", "/auth/session"]])
            try { const headers = {"X-Requested-With": "x"};
                  const answer = await fetch(auth + path, {method, headers, credentials: "include"});
                  got.push(answer.status + " " + (await answer.json()).error + " " + answer.headers.get("Retry-After"));
            } catch { got.push("refused"); }
        document.body.textContent = got.join(", ");
    }</script>"""
    heard = "503 temporarily_unavailable 5"
    window = Chromium(driver, stack.url)
    with foreign_page(script) as url, contextlib.closing(contextlib.ExitStack()) as opened:
        opened.callback(window.quit)
        for origins, text in ((url.rstrip("/"), heard), ("https://other.example", "refused")):
            with beside(stack, lambda _, text: text, [f"unix:{stack.directory}/nobody.sock"], origins) as place:
                window.open(url)
                window.run(f"ask('{place.url}')")
                window.wait_text(", ".join([text] * 3))


def test_page_without_redis_says_that_nobody_was_logged_out(driver, make_stack):
    stack = make_stack()
    window = Chromium(driver, stack.url)
    try:
        window.open("/")
        window.wait_text("not logged in")
        log_in(window)
        stack.redis.kill()
        window.click("#renew")
        window.wait_text("The service is not available. If you were logged in, you still are")
        window.screenshot("9-redis-away")
        stack.redis.start()
        window.reload()
        window.wait_text("Ada Lovelace")
    finally:
        window.quit()
