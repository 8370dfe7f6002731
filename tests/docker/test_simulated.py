"""docker compose --profile simulated up: a first look, without credentials."""

import json

from browser import Browser
from conftest import log_in, written


def test_login_through_the_containers(simulated):
    browser = log_in(simulated)
    session = browser.session().json()
    assert session["authenticated"] and session["user"]["id"] == "ada"
    assert browser.token().json()["access_token"]
    assert browser.logout().status_code == 204
    assert browser.session().json()["authenticated"] is False


def test_page_and_its_scripts_are_there(simulated):
    browser = Browser(simulated)
    page = browser.navigate("/")
    assert page.status_code == 200 and "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert browser.navigate("/app.js").status_code == 200


def test_web_api_answers_without_a_token_in_the_browser(simulated):
    browser = log_in(simulated)
    answer = browser.fetch("GET", simulated.url + "/spotify/v1/me")
    assert answer.status_code == 200 and answer.json()["id"] == "ada"


def test_simulated_spotify_says_that_it_is_none(simulated):
    assert "SIMULATED SPOTIFY" in simulated.logs("simulated-spotify")


def test_health_of_all_is_known(simulated):
    states = {line["Service"]: line["Health"] for line in
              map(json.loads, simulated.run("ps", "--format", "json").splitlines())}
    parts = ("nginx", "worker", "spotify", "redis")
    assert states == {f"simulated-{part}": "healthy" for part in parts}


def test_nothing_is_written_outside_of_tmpfs_and_volumes(simulated):
    log_in(simulated)
    for service in ("simulated-nginx", "simulated-worker", "simulated-spotify", "simulated-redis"):
        assert written(simulated.container(service)) == [], service
