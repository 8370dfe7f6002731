"""The page in a real Chromium: each of its states, what it sends and what it weighs. Pictures: build/screenshots."""

import contextlib
import json
import pathlib

import pytest
import requests

from browser import Browser
from chromium import WAIT_S, agree, foreign_page, log_in
from nginx_files import beside
from stack import TREE, wait_until

SIZE_MAX = 60_000
TAB, ENTER = "\ue004", "\ue007"
PLAYER = "user-read-currently-playing user-read-recently-played"


def log_in_as_listener(page):
    page.open(f"/auth/authorize?scope={PLAYER}&return_to=/".replace(" ", "%20"))
    page.wait_text("Simulated Spotify")
    agree(page)
    page.wait_text("Before that")


# From the login to the logout


def test_page_log_in_profile_renew_log_out(page, stack):
    page.check("1-logged-out")
    page.click("#login")
    page.wait_text("Simulated Spotify")
    assert "A stand-in for tests" in page.text()
    page.screenshot("2-simulated-spotify")
    agree(page)
    page.wait_text("ada@example.com", "#profile")
    page.wait_text("Chrom", "#sessions")
    assert page.text("#who") == "Ada Lovelace"
    assert page.address == stack.url + "/"
    assert "premium" in page.text("#profile") and "user-read-email" in page.text("#granted")
    assert page.text("#days") in ("in 179 days", "in 180 days")
    page.wait_text("59:", "#left")
    page.check("3-logged-in")
    page.click("#renew")
    page.wait_text("The access token is the same")  # younger than 10 s

    def renewed():
        page.click("#renew")
        return "The access token is fresh." in page.text("#message")
    wait_until(renewed, 20, "a renewed token", 0.5)
    page.click("#logout")
    page.wait_text("You are logged out.")
    page.wait_text("Log in with Spotify", "#login")
    page.check("4-after-the-logout")
    page.reload()
    page.wait_text("not logged in")
    assert "spotify-session" not in page.cookies()
    assert page.console() == []


def test_page_renews_a_token_that_is_about_to_end(page, stack):
    stack.spotify.behave("token", grant="authorization_code", expires_in=30)
    log_in(page)
    page.wait_text("59:", "#left")
    assert stack.spotify.calls(grant="refresh_token") == 1


@pytest.mark.parametrize("life_s, gone", [(3600, 0), (1800, 0.5), (900, 0.75)])
def test_page_shows_the_tokens_life_as_a_ring(page, stack, life_s, gone):
    stack.spotify.behave("token", grant="authorization_code", expires_in=life_s)
    log_in(page)
    page.wait_text(":", "#left")
    assert 0 <= float(page.run("return document.getElementById('ring').getAttribute('stroke-dashoffset')")) - gone < 0.02


def test_page_by_keyboard_alone(page):
    page.press(TAB)
    assert page.run("return document.activeElement.id") == "login"
    page.press(ENTER)
    page.wait_text("Simulated Spotify")
    agree(page)
    page.wait_text("Renew now")
    for _ in range(90):  # each other session of this user's has a button
        page.press(TAB)
        if page.run("return document.activeElement.id") == "logout":
            break
    page.press(ENTER)
    page.wait_text("You are logged out.")
    assert page.run("return document.activeElement.tagName + document.activeElement.closest('section').id") == "H1out"


def test_page_after_declining_says_so(page, stack):
    page.click("#login")
    page.wait_text("Simulated Spotify")
    page.click("button[value=cancel]")
    page.wait_text("You declined at Spotify. You are not logged in.")
    page.check("5-declined")
    assert any(url.endswith("/?error=access_denied") for url in page.requested())
    assert page.address == stack.url + "/", "the message would come again with a reload"
    page.reload()
    page.wait_text("not logged in")
    assert "declined" not in page.text()
    assert page.console() == []


# What plays, and more scopes


def test_page_asks_for_more_scopes_and_shows_what_plays(page, stack):
    log_in(page)
    page.wait_text("You have not allowed this page to see that yet.")
    page.click("#play-ask button")
    page.wait_text("Simulated Spotify")
    assert "user-read-email" in page.text(), "what was granted is not lost"
    agree(page)
    page.wait_text("Before that")
    assert page.text("#play-title") == "Now playing"
    assert PLAYER.split()[0] in page.text("#granted")
    page.wait_text(":", "#track-at")
    page.check("6-playing")
    stack.spotify.behave("api", playing="nothing")
    page.reload()
    page.wait_text("Recently played")
    page.check("7-recently-played")
    stack.spotify.behave("api", playing="advertisement")
    page.reload()
    page.wait_text("Recently played")
    assert not [line for line in page.console() if "Content Security Policy" in line], "a cover was asked for"


def test_page_after_declining_more_scopes_is_as_before(page):
    log_in(page)
    page.wait_text("not allowed this page")
    page.click("#play-ask button")
    page.wait_text("Simulated Spotify")
    page.click("button[value=cancel]")
    page.wait_text("You declined at Spotify. You are logged in as before.")
    page.wait_text("Ada Lovelace", "#who")


def test_page_says_when_the_service_may_not_ask_for_a_scope(page):
    log_in(page)
    page.click("button[aria-label='Ask for: Your favourite artists and tracks']")
    page.wait_text("This service may not ask for that.")
    assert page.address == page.site + "/"


# What goes wrong


def test_page_when_the_login_fails_says_so(page, stack):
    stack.spotify.behave("token", status=503)
    page.click("#login")
    page.wait_text("Simulated Spotify")
    agree(page)
    page.wait_text("Spotify cannot be reached right now")
    page.check("8-login-failed")


def test_page_while_spotify_is_away_says_so_and_recovers(page, stack):
    log_in(page)
    page.wait_text("ada@example.com")
    stack.spotify.behave("api", reset="before")
    page.reload()
    page.wait_text("Spotify cannot be reached. Please try again soon. You are still logged in.")
    page.wait_text("Ada Lovelace", "#who")
    page.check("9-spotify-away")
    stack.spotify.behave("api", reset=None)
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_text("ada@example.com")
    assert not page.text("#trouble")


def test_page_says_what_development_mode_refuses(page, stack):
    stack.spotify.behave("api", api_error="not_registered")
    log_in(page)
    page.wait_text("While an app is in Development Mode")
    page.wait_text("Check settings on developer.spotify.com/dashboard")
    page.wait_text("Chrom", "#sessions")
    page.check("10-development-mode")


def test_page_shows_words_of_spotify_that_are_no_json(page, stack):
    stack.spotify.behave("api", api_error="premium")
    log_in(page)
    page.wait_text("Active premium subscription required")


def test_page_says_that_spotify_wants_a_pause(page, stack):
    stack.spotify.behave("api", api_error="quota")
    log_in(page)
    page.wait_text("Spotify asks this app to wait")


def test_callback_of_another_browser_shows_a_person_what_to_do(page, stack):
    other = Browser(stack)
    page.open(other.approve(other.authorize().headers["Location"]))
    page.wait_text("log in again")
    page.check("11-expired-link")
    assert "spotify-session" not in page.cookies()


def test_page_while_the_service_is_away_keeps_the_login_and_recovers(chromium, make_stack):
    stack = make_stack()
    page = chromium.visit(stack)
    log_in(page)
    stack.redis.kill()
    page.click("#renew")
    page.wait_text("The session store cannot be reached. Please try again soon. You are still logged in.")
    page.reload()
    page.wait_text("The service does not answer")
    page.wait_text("If you were logged in, you still are.")
    page.check("12-service-away")
    stack.redis.start()
    page.wait_text("Ada Lovelace")  # by itself
    stack.nginx.stop()
    page.click("#renew")
    page.wait_text("The service cannot be reached. You are still logged in.")
    stack.nginx.start()
    page.click("#renew")
    page.wait_text("The access token is")


def test_page_says_that_spotify_will_soon_want_a_new_login(chromium, make_stack):
    stack = make_stack(settings={"SESSION_MAX_AGE": 13 * 86400})
    page = chromium.visit(stack)
    log_in(page)
    page.wait_text("Spotify will soon want to be asked again.")
    assert page.text("#days") in ("in 12 days", "in 13 days")
    page.check("15-next-login-soon")
    page.click("#until-ask a")
    page.wait_text("Simulated Spotify")


# Tabs, reload and the back button


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
    page.wait_text("Ada Lovelace", "#who")
    page.switch(first)
    page.click("button[value=agree]")
    page.wait_text("Ada Lovelace", "#who")
    assert page.console() == []


def test_second_tab_is_logged_in_and_out_with_the_first(page):
    first = page.tab()
    second = page.new_tab()
    page.open("/")
    page.wait_text("not logged in")
    page.switch(first)
    log_in(page)
    page.switch(second)
    page.wait_text("Ada Lovelace")
    page.click("#logout")
    page.wait_text("You are logged out.")
    page.switch(first)
    page.wait_text("Your session has ended. Please log in again.")
    assert page.console() == []


def test_back_to_a_page_of_before_the_logout_shows_nobody(page):
    log_in(page)
    first = page.tab()
    page.open("/icon.svg")
    page.new_tab()
    page.open("/")
    page.wait_text("Renew now")
    page.click("#logout")
    page.wait_text("You are logged out.")
    page.switch(first)
    page.back()
    page.wait_text("Log in with Spotify", "#login")


def test_page_out_of_the_back_forward_cache_asks_anew_who_is_there(page, stack):
    log_in(page)
    page.wait_text("this one", "#sessions")
    page.run("window.kept = true")
    page.open("/icon.svg")
    other = Browser(stack)
    assert other.login().status_code == 303
    assert other.logout(all=True).status_code == 204
    page.back()
    page.wait_text("Log in with Spotify", "#login")
    assert page.run("return window.kept") is True, "it was loaded again"


def test_sessions_of_other_browsers_are_listed_and_ended(page, stack):
    others = [Browser(stack), Browser(stack)]
    for other in others:
        assert other.login("sessions").status_code == 303
    log_in(page, "sessions")
    page.wait_text("this one", "#sessions")
    wait_until(lambda: page.text("#sessions").count("End") == 2, WAIT_S, "both sessions")
    page.click("#sessions button")
    page.wait_text("That session has ended.")
    assert page.text("#sessions").count("End") == 1
    assert sorted(other.session().json()["authenticated"] for other in others) == [False, True]
    page.click("#logout-all")
    page.wait_text("You are logged out everywhere.")
    assert not any(other.session().json()["authenticated"] for other in others)


def test_page_of_one_user_shows_nothing_of_the_one_before(page):
    log_in_as_listener(page)
    page.wait_text("Ada Lovelace")
    first = page.tab()
    page.new_tab()
    page.open("/auth/authorize")
    page.wait_text("Simulated Spotify")
    page.type("input[name=name]", "grace")
    agree(page)
    page.wait_text("grace@example.com")
    page.switch(first)
    page.wait_text("grace@example.com")
    page.wait_text("You have not allowed this page to see that yet.")
    assert "ada" not in page.text().lower() and "Before that" not in page.text()
    assert not page.run("return document.querySelector('#track').checkVisibility()")


# What it weighs, where it asks, what it lets others do


def test_page_fits_a_phone(page):
    page.resize(390, 844)
    page.check("13-phone-logged-out")
    log_in_as_listener(page)
    page.wait_text("this one", "#sessions")
    assert page.run("return document.documentElement.scrollWidth") == 390
    small = page.run("""return [...document.querySelectorAll("a, button")].filter((one) => one.checkVisibility())
        .map((one) => one.getBoundingClientRect()).filter((box) => box.width < 24 || box.height < 24).length""")
    assert small == 0, "WCAG 2.2, 2.5.8: 24 by 24 pixels at least"
    page.check("14-phone-playing")


def test_page_asks_no_other_host_and_is_small(page, stack, capsys):
    stack.spotify.behave("api", images="normal")
    log_in(page)
    page.wait_text("ada@example.com")
    page.wait_text("Chrom", "#sessions")
    ours = (stack.url, stack.spotify.url, "data:", "about:", "chrome:")
    assert [url for url in page.requested() if not url.startswith(ours)] == []
    page.devtools("Network.clearBrowserCache")
    page.requested()
    page.reload()
    page.wait_text("Chrom", "#sessions")
    entries = page.run("""return ["navigation", "resource"].flatMap((type) => performance.getEntriesByType(type))
        .map(({name, transferSize, decodedBodySize}) => [name, transferSize, decodedBodySize])""")
    assert all(name.startswith(stack.url) for name, *_ in entries)
    sent, files = sum(entry[1] for entry in entries), sum(entry[2] for entry in entries)
    with capsys.disabled():
        print(f"\nthe page: {sent} bytes on the wire in {len(entries)} answers, {files} unpacked")
    assert any(name.endswith("/spotify-auth.js") for name, *_ in entries)
    assert sent < files < SIZE_MAX
    files_of_page = [path for path in pathlib.Path(TREE, "nginx", "www").iterdir() if path.name != "openapi.yaml"]
    assert sum(path.stat().st_size for path in files_of_page) < SIZE_MAX


def test_page_policy_is_strict_and_holds(page):
    policy = requests.get(page.site + "/", timeout=5).headers["Content-Security-Policy"]
    parts = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == parts["connect-src"] == parts["img-src"] == "'self'"
    assert parts["frame-ancestors"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert "unsafe" not in policy
    page.run("const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
             "document.body.append(s)")
    assert page.run("return window.owned === undefined")
    assert any("Content Security Policy" in line for line in page.console())


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


def test_a_frontend_of_another_origin_reads_of_an_outage_where_it_is_listed(page, stack):
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
    with foreign_page(script) as url:
        for origins, text in ((url.rstrip("/"), heard), ("https://other.example", "refused")):
            with beside(stack, lambda _, text: text, [f"unix:{stack.directory}/nobody.sock"], origins) as place:
                page.open(url)
                page.run(f"ask('{place.url}')")
                page.wait_text(", ".join([text] * 3))
