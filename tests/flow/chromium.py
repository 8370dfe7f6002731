"""A real Chromium, driven over the WebDriver protocol, and what axe-core finds in its pages."""

import base64
import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import tempfile
import threading
import urllib.parse

import pytest
import requests

import npm
from stack import Process, find_program, reserve_port, wait_until

SCREENSHOTS = pathlib.Path(__file__).resolve().parents[2] / "build" / "screenshots"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver 11: the name of an element's reference
WAIT_S = 10
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --disable-default-apps
    --disable-dev-shm-usage --force-prefers-reduced-motion --window-size=900,700""".split()
# Nothing of a test goes to another machine.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@functools.cache
def axe_source():
    return (npm.installed() / "node_modules" / "axe-core" / "axe.min.js").read_text()


class Chromium:
    """A browser with a profile of its own."""

    def __init__(self, driver_url):
        self.site = None
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

    def visit(self, stack):
        """Our page of that stack, as somebody sees it who was never there; one tab, nothing kept of an earlier test."""
        first, *others = self.command("GET", "/window/handles")
        for handle in others:
            self.switch(handle)
            self.command("DELETE", "/window")
        self.switch(first)
        self.open("about:blank")
        self.devtools("Network.clearBrowserCookies")
        self.devtools("Network.clearBrowserCache")
        self.devtools("Emulation.clearDeviceMetricsOverride")
        self.site = stack.url
        self.console()
        self.requested()
        self.requests = []
        self.open("/")
        self.wait_text("not logged in")
        return self

    def open(self, path):
        self.command("POST", "/url", {"url": urllib.parse.urljoin(self.site or path, path)})

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

    def run_async(self, body):
        """What an async function with that body returns in the page."""
        script = ("const done = arguments[arguments.length - 1];"
                  f"(async () => {{ {body} }})().then(done, (error) => done({{error: error.code ?? String(error)}}));")
        return self.command("POST", "/execute/async", {"script": script, "args": []})

    def devtools(self, command, **parameters):
        return self.command("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, key):
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def resize(self, width, height):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=width < 500)

    def check(self, name):
        """No violation in the eyes of axe-core, in light and dark; a picture of each."""
        self.run(axe_source() + "; window.axe = axe")
        for scheme in ("light", "dark"):
            self.devtools("Emulation.setEmulatedMedia", features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"}])
            found = self.run_async("return (await axe.run(document, {resultTypes: ['violations']})).violations")
            assert found == [], (name, scheme, [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"])
                                                for one in found])
            self.screenshot(f"{name}-{scheme}")
        self.devtools("Emulation.setEmulatedMedia", features=[])

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
        image = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(image))

    def console(self):
        """Warnings and errors since the last call, but for the icons that the simulator and a
        foreign page do not have."""
        return [entry["message"] for entry in self.command("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("WARNING", "SEVERE") and
                ("/favicon.ico" not in entry["message"] or (self.site or "-") in entry["message"])]

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


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One for all tests: to start it takes longer than most of them."""
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
    browser = Chromium(url)
    yield browser
    browser.quit()
    process.stop()


@pytest.fixture
def page(chromium, stack):
    yield chromium.visit(stack)
    chromium.open("about:blank")


def log_in(page, user="ada"):
    page.click("#login")
    page.wait_text("Simulated Spotify")
    if user != "ada":
        page.type("input[name=name]", user)
    agree(page)
    page.wait_text("Renew now")


def agree(page):
    page.click("button[value=agree]")


@contextlib.contextmanager
def foreign_page(html, files=None):
    """The URL of a page on another origin, beside which are files {path: text of a script}."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            script = (files or {}).get(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript" if script else "text/html")
            self.end_headers()
            self.wfile.write((script or html).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
