"""The client module nginx/www/spotify-auth.js: in Node, against a fake and against the running service; its types; its
size. Chromium's part is in test_page.py."""

import os
import re
import subprocess

import requests

import npm
from stack import TREE, find_program

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
    with requests.get(stack.url + "/spotify-auth.js", headers={"Accept-Encoding": "gzip"}, timeout=5, stream=True) as answer:
        sent = len(answer.raw.read(decode_content=False))
        assert answer.headers["Content-Type"].startswith("text/javascript")
    with capsys.disabled():
        print(f"\nspotify-auth.js: {sent} bytes on the wire (gzip), {MODULE.stat().st_size} as a file")
    assert sent < SIZE_MAX
