"""The client module nginx/www/spotify-auth.js: in Node, against a fake and against the running service; in Chromium, in
two tabs and on another origin; its types; its size."""

import os
import re
import subprocess

import requests

import npm
from chromium import WAIT_S, agree, foreign_page
from stack import TREE, find_program, wait_until

MODULE = TREE / "nginx" / "www" / "spotify-auth.js"
TYPES = MODULE.with_suffix(".d.ts")
TESTS = TREE / "tests" / "web"
SIZE_MAX = 4096


def run(*command, **environment):
    done = subprocess.run(command, cwd=TREE, text=True, timeout=120, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout
    return done.stdout


def node_tests(name, **environment):
    """The names of the tests in that file, all of which passed."""
    text = run(find_program("node"), "--test", TESTS / name, NODE_DISABLE_COLORS="1", **environment)
    return re.findall(r"^ *(?:ok \d+ -|✔) (.*?)(?: \([\d.]+ms\))?$", text, re.M)


def test_module_in_node_with_odd_clocks_late_answers_and_other_tabs():
    assert len(node_tests("module.test.mjs")) >= 40


def test_module_in_node_against_the_service(stack):
    assert len(node_tests("service.test.mjs", SITE=stack.url, SPOTIFY=stack.spotify.url)) >= 6


LOAD = """const {SpotifyAuth} = await import("/spotify-auth.js"); window.auth = new SpotifyAuth(%s);
    window.events = []; for (const type of ["login", "logout"]) auth.addEventListener(type, () => events.push(type));
    return (await auth.session()).authenticated"""


def test_module_in_chromium_asks_once_for_all_tabs_and_forgets_in_all(page, stack):
    stack.spotify.behave("token", grant="authorization_code", expires_in=30)
    page.open("/auth/authorize?return_to=/icon.svg")
    page.wait_text("Simulated Spotify")
    agree(page)
    wait_until(lambda: page.address.endswith("/icon.svg"), WAIT_S, "the end of the login")
    tabs = [page.tab(), page.new_tab()]
    for tab in tabs:
        page.switch(tab)
        page.open("/icon.svg")
        assert page.run_async(LOAD % "") is True
    stack.spotify.behave("token", answer_delay=0.5)  # the tabs wait for it together

    def asked():
        return sum(line.get("route") == "/token" for service in stack.services for line in service.log_lines())
    before, renewals = asked(), stack.spotify.calls(grant="refresh_token")
    for tab in tabs:
        page.switch(tab)
        page.run("window.got = null; auth.token().then((token) => { got = token.access_token; })")
    got = []
    for tab in tabs:
        page.switch(tab)
        got.append(wait_until(lambda: page.run("return window.got"), WAIT_S, "a token"))
    assert got[0] == got[1]
    assert asked() == before + 1 and stack.spotify.calls(grant="refresh_token") == renewals + 1
    page.run_async("await auth.logout()")
    page.switch(tabs[0])
    wait_until(lambda: page.run("return events.join()") == "login,logout", WAIT_S, "the logout in the other tab")
    assert page.run_async("return await auth.token()") == {"error": "login_required"}


def test_module_in_chromium_on_a_listed_other_origin(chromium, make_stack):
    html = "<!doctype html><title>Frontend</title><h1>Frontend</h1>"
    with foreign_page(html, {"/spotify-auth.js": MODULE.read_text()}) as app:
        stack = make_stack(settings={"ALLOWED_ORIGINS": app.rstrip("/")})
        page = chromium.visit(stack)
        load = LOAD % f'{{base: "{stack.url}/auth"}}'
        page.open(app + "?list=5#song")
        assert page.run_async(load) is False
        page.run("auth.login()")
        page.wait_text("Simulated Spotify")
        agree(page)
        page.wait_text("Frontend")
        assert page.address == app + "?list=5#song"
        assert page.run_async(load) is True
        assert page.run_async("return (await auth.token()).expires_in") > 3500
        assert page.run_async("return (await (await auth.fetch('me')).json()).id") == "ada"
        changed = page.run_async("return (await auth.fetch('me/player/pause', {method: 'PUT', body: '{}', headers: "
                                 "{'Content-Type': 'application/json'}})).json()")
        assert (changed["method"], changed["body"]) == ("PUT", "{}")
        assert page.run_async("return auth.sessions().then((all) => all.length)") == 1
        stack.redis.kill()
        error = page.run_async("return auth.refresh().catch(({status, retryAfter}) => ({status, retryAfter}))")
        assert error["status"] == 503 and error["retryAfter"] >= 1, "which another origin may read, too"
        stack.redis.start()
        page.run_async("await auth.logout()")
        assert page.run("return events.join()") == "login,logout"


def test_types_of_the_module_hold():
    tsc = npm.installed() / "node_modules" / "typescript" / "bin" / "tsc"
    run(find_program("node"), tsc, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext",
        "--lib", "es2022,dom,dom.iterable", TESTS / "types.ts")


def test_types_name_what_the_module_has():
    """Neither more nor less: a method that is only promised is found when somebody calls it."""
    script = (f"const {{SpotifyAuth}} = await import({str(MODULE)!r});"
              "console.log(Object.getOwnPropertyNames(SpotifyAuth.prototype).sort().join());")
    has = run(find_program("node"), "--input-type=module", "--eval", script).strip().split(",")
    declared = TYPES.read_text().partition("class SpotifyAuth")[2]
    assert sorted(set(re.findall(r"^  (\w+)\(", declared, re.M)) - {"addEventListener"}) == has


def test_module_is_small_as_nginx_delivers_it(stack, capsys):
    wanted = {"Accept-Encoding": "gzip"}
    with requests.get(stack.url + "/spotify-auth.js", headers=wanted, timeout=5, stream=True) as answer:
        sent = len(answer.raw.read(decode_content=False))
        assert answer.headers["Content-Type"].startswith("text/javascript")
    with capsys.disabled():
        print(f"\nspotify-auth.js: {sent} bytes on the wire (gzip), {MODULE.stat().st_size} as a file")
    assert sent < SIZE_MAX
