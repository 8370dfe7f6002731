"""The README's examples for React, Vue and a server, as they stand there: type-checked and run."""

import re
import shutil
import socket

import pytest

import npm
from browser import Browser, redirect_of
from stack import TREE, Nginx, Process, can_connect, find_program, reserve_port
from test_adapters import check_types
from test_verify import snippet

WEB = TREE / "nginx" / "www"
SECTION = "## In React, Vue, a page of your server's, Spotify's SDKs"
SHOWN = ["Log in with Spotify", "Log in with Spotify", "Playlist of ada"]

# What stands before that example, and what Spotify's hosted script defines.
AROUND_SDKS = """import {SpotifyAuth} from "./spotify-auth.js";
declare const auth: SpotifyAuth;
declare global {
  interface Window { onSpotifyWebPlaybackSDKReady(): void }
}
declare namespace Spotify {
  class Player {
    constructor(options: {name: string; getOAuthToken: (done: (token: string) => void) => void});
    connect(): Promise<boolean>;
  }
}
"""


def example(kind, has):
    """The README's block of that kind with these words in it."""
    text = (TREE / "README.md").read_text().partition(f"\n{SECTION}\n")[2].partition("\n## ")[0]
    found, = [block for block in re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S) if has in block]
    return found


@pytest.fixture
def folder():
    """Where a reader would put them: beside a copy of the module, with packages installed."""
    place = npm.installed() / "examples"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(WEB / "adapters", place / "adapters")
    for name in ("spotify-auth.js", "spotify-auth.d.ts"):
        shutil.copy(WEB / name, place)
    (place / "Playlists.tsx").write_text(example("tsx", "Playlists.tsx"))
    (place / "Playlists.vue").write_text(example("vue", "Playlists.vue"))
    scripts = re.findall(r"<script.*?>\n(.*?)</script>", example("vue", "Playlists.vue"), re.S)
    (place / "vue-script.ts").write_text("".join(scripts))
    (place / "sdks.ts").write_text(AROUND_SDKS + example("js", "web-api-ts-sdk"))
    return place


def test_they_type_check(folder):
    check_types("examples", folder / "Playlists.tsx", folder / "vue-script.ts", folder / "sdks.ts")


def test_they_show_the_login_until_somebody_agreed_and_then_the_playlists(stack, folder):
    shown = npm.node("examples.mjs", stack.url, str(TREE / "tests" / "web" / "person.mjs"), str(folder))
    assert shown == {"react": SHOWN, "vue": SHOWN}


@pytest.fixture
def members(make_stack, monkeypatch, tmp_path):
    """nginx before the README's server, which asks the simulated Web API."""
    plain = Nginx.write_config
    with reserve_port() as holder:
        port = holder.getsockname()[1]

    def write_config(nginx):
        plain(nginx)
        location = snippet("## Pages for those who are logged in").replace("127.0.0.1:3000", f"127.0.0.1:{port}")
        location = location.replace("    proxy_pass ", example("nginx", "$spotify_token") + "    proxy_pass ", 1)
        assert "X-Spotify-Access-Token" in location
        text = nginx.config.read_text()
        nginx.config.write_text(text.replace("\n        location / {", f"\n{location}\n        location / {{", 1))
    monkeypatch.setattr(Nginx, "write_config", write_config)
    stack = make_stack(workers=1, settings={"COOKIE_SAMESITE": "Lax", "SPOTIFY_SCOPE": "playlist-read-private"})
    script = tmp_path / "server.mjs"
    script.write_text(example("js", "server.mjs").replace("https://api.spotify.com", stack.spotify.url)
                      .replace("3000", str(port)))
    server = Process("server.mjs", tmp_path / "server.log")
    server.launch([find_program("node"), script])
    server.wait_ready(lambda: can_connect(socket.AF_INET, ("127.0.0.1", port)))
    yield stack
    server.stop()


def test_the_servers_page_shows_the_playlists_to_who_is_logged_in(members):
    browser = Browser(members)
    away = browser.navigate("/members/")
    back = browser.callback(browser.approve(redirect_of(away)))
    page = browser.navigate(back.headers["Location"], "cross-site")
    assert page.status_code == 200 and page.text == "<h1>ada</h1><ul><li>Playlist of ada</li></ul>"
