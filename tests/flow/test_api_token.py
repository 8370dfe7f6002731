"""POST /api/token with Client Credentials, for servers (API.md 3; RFC 6749 2.3.1, 4.4, 5; C.3 67): who gets the app's
token, and what everybody else is told."""

import base64
import json
import secrets
import signal
import urllib.parse

import pytest
import requests

import fastcgi
from browser import RECORDER, Answer
from clients import Client
from conftest import EVIDENCE, running
from sessions import assert_error
from stack import wait_until

KEYS = {"access_token", "token_type", "expires_in"}
BOB, EVE = Client("bob"), Client("eve-2_Z")


@pytest.fixture(scope="module")
def shared():
    settings = {"SERVICE_CLIENTS": f"{BOB.entry},{EVE.entry}", "ALLOWED_ORIGINS": "https://app.example.test",
                "LOG_LEVEL": "debug"}
    with running(services=1, workers=1, settings=settings) as stack:
        yield stack


@pytest.fixture
def stack(shared):
    shared.spotify.reset("behaviour", "hanging", "clock")
    yield shared
    shared.services[0].check_sanitizers()


def post(stack, authorization=None, data="grant_type=client_credentials", method="POST", query="", headers=None):
    """The request of a program: no cookies, no proxies, nothing but what is said here."""
    url = stack.url + "/auth/api/token" + query
    own = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
    if authorization is not None:
        own["Authorization"] = authorization
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, url, data=data, headers=own, timeout=30, allow_redirects=False)
    RECORDER.add(Answer(method, url, answer))
    return answer


def basic(text):
    encoded = base64.b64encode(text.encode()).decode()
    EVIDENCE.secrets[encoded] = "basic"
    return "Basic " + encoded


def form(**fields):
    return urllib.parse.urlencode({"grant_type": "client_credentials", **fields})


def assert_token(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Pragma"] == "no-cache"
    assert answer.json().keys() == KEYS and answer.json()["token_type"] == "Bearer"
    return answer.json()["access_token"]


def assert_refused(answer):
    """RFC 6749 5.2: 401 with a challenge, and nothing that speaks of a login."""
    body = assert_error(answer, 401, "invalid_client")
    assert body.keys() == {"error", "error_description"}
    assert "missing or wrong" in body["error_description"]
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="spotify-auth"'
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Pragma"] == "no-cache"


# The good answer

def test_a_service_client_gets_the_apps_token(stack):
    answer = post(stack, BOB.basic)
    assert assert_token(answer) in stack.spotify.secrets("access_token")
    assert 3590 <= answer.json()["expires_in"] <= 3600
    assert "Set-Cookie" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_all_clients_get_the_same_token(stack):
    assert assert_token(post(stack, BOB.basic)) == assert_token(post(stack, EVE.basic))


def test_67_the_call_to_spotify_is_the_one_of_rfc_6749_4_4_2_and_its_refresh_token_is_dropped(make_stack):
    stack = make_stack(services=1, workers=1, settings={"SERVICE_CLIENTS": BOB.entry})
    refresh = secrets.token_urlsafe(40)
    EVIDENCE.secrets[refresh] = "refresh_token"
    stack.spotify.next(1, grant="client_credentials", extra_fields={"refresh_token": refresh})
    assert_token(post(stack, BOB.basic))
    call = stack.spotify.log("token")[-1]
    credentials = base64.b64encode(f"{stack.client_id}:{stack.client_secret}".encode()).decode()
    assert call["form"] == {"grant_type": "client_credentials"} and call["query"] == {}
    assert call["headers"]["authorization"] == "Basic " + credentials


@pytest.mark.parametrize("encode", [
    lambda text: text,
    urllib.parse.quote_plus,
    lambda text: "".join(f"%{ord(c):02X}" for c in text),
    lambda text: "".join(f"%{ord(c):02x}" for c in text),
], ids=["raw", "as needed", "all of it", "lower case"])
def test_credentials_may_be_form_encoded(stack, encode):
    assert_token(post(stack, basic(f"{encode(EVE.name)}:{encode(EVE.secret)}")))


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic  "])
def test_the_scheme_is_written_in_any_case(stack, scheme):
    assert_token(post(stack, BOB.basic.replace("Basic", scheme)))


def test_client_id_may_be_said_again(stack):
    assert_token(post(stack, BOB.basic, form(client_id=BOB.name)))


def test_an_empty_scope_is_none(stack):
    assert_token(post(stack, BOB.basic, form(scope="")))


def test_unknown_fields_are_ignored(stack):
    assert_token(post(stack, BOB.basic, form(audience="x", resource="https://api.spotify.com")))


def test_the_rules_of_browser_routes_do_not_apply(stack):
    """No cookie is read, so there is nothing that another site could misuse."""
    headers = {"Origin": "https://app.example.test", "Sec-Fetch-Site": "cross-site", "Cookie": "spotify-session=x"}
    answer = post(stack, BOB.basic, headers=headers)
    assert_token(answer)
    assert "Set-Cookie" not in answer.headers and "Vary" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_what_new_client_prints_lets_its_holder_in(make_stack, stack):
    secret, entry = stack.services[0].run("--new-client", "carol").stdout.splitlines()
    EVIDENCE.secrets[secret] = "service_secret"
    other = make_stack(services=1, workers=1, settings={"SERVICE_CLIENTS": entry})
    assert_token(post(other, basic("carol:" + secret)))


def test_clients_come_and_go_with_the_file_and_sighup(make_stack, tmp_path):
    names = tmp_path / "clients"
    names.write_text(BOB.entry + "\n")
    stack = make_stack(services=1, workers=1, settings={"SERVICE_CLIENTS_FILE": names})
    assert_token(post(stack, BOB.basic))
    names.write_text(EVE.entry + "\n")
    stack.services[0].signal(signal.SIGHUP)
    wait_until(lambda: post(stack, EVE.basic).status_code == 200, 10, "the new client is let in")
    wait_until(lambda: post(stack, BOB.basic).status_code == 401, 10, "the old one is not")


# 401

@pytest.mark.parametrize("authorization", [
    None, "", "Basic", "Basic ", "Basic !!!!", "Basic Ym9i", "Bearer abc", "Digest username=bob",
    basic(":"), basic("bob:"), basic(":" + BOB.secret), basic("bob:%zz"), basic("bob:\x01"),
    basic("bob:" + EVE.secret), basic("bob:" + BOB.secret + "x"), basic("bob:" + BOB.secret[:-1]),
    basic("BOB:" + BOB.secret), basic("nobody:" + BOB.secret), basic(f"{BOB.secret}:bob"),
    basic("bob:" + BOB.entry.partition(":")[2]), "Basic " + "A" * 4000,
], ids=lambda value: str(value)[:24])
def test_who_does_not_prove_who_it_is_is_refused(stack, authorization):
    calls = stack.spotify.calls(grant="client_credentials")
    assert_refused(post(stack, authorization))
    assert stack.spotify.calls(grant="client_credentials") == calls


def test_a_secret_in_the_form_is_not_the_way(stack):
    """RFC 6749 5.2: an unsupported authentication method."""
    assert_refused(post(stack, None, form(client_id=BOB.name, client_secret=BOB.secret)))


def test_without_service_clients_nobody_is_let_in(make_stack):
    stack = make_stack(services=1, workers=1)
    assert_refused(post(stack, BOB.basic))
    assert stack.spotify.calls(grant="client_credentials") == 0


def test_the_log_names_clients_that_there_are_and_nothing_else(stack):
    before = len(stack.services[0].log_lines())
    mixed_up = Client("mixed")
    post(stack, BOB.basic)
    post(stack, basic(f"{BOB.name}:{EVE.secret}"))
    post(stack, basic(f"{mixed_up.secret}:{mixed_up.name}"))
    lines = stack.services[0].log_lines()[before:]
    assert [line["client"] for line in lines if line.get("event") == "app token given"] == ["bob"]
    assert [line["client"] for line in lines if line.get("event") == "service client refused"] == ["bob", "unknown"]
    text = "\n".join(map(json.dumps, lines))
    assert mixed_up.secret not in text and EVE.secret not in text


# 400 and the rest

@pytest.mark.parametrize("data", [
    form(client_secret=BOB.secret), form(client_id=EVE.name), form(client_id=BOB.name, client_secret=BOB.secret),
], ids=["a secret", "another client_id", "both"])
def test_a_second_way_to_say_who_it_is_is_refused(stack, data):
    assert_error(post(stack, BOB.basic, data), 400, "invalid_request")


def test_two_authorization_headers_are_refused(stack):
    pairs = fastcgi.variables(REQUEST_METHOD="POST", SCRIPT_NAME="/auth", PATH_INFO="/api/token",
                              CONTENT_TYPE="application/x-www-form-urlencoded", CONTENT_LENGTH="29",
                              HTTP_AUTHORIZATION=BOB.basic) + [("HTTP_AUTHORIZATION", EVE.basic)]
    reply = fastcgi.ask(stack.services[0].listen.removeprefix("unix:"), pairs, b"grant_type=client_credentials")
    assert reply.status == 400 and json.loads(reply.body)["error"] == "invalid_request"


@pytest.mark.parametrize("data, word", [
    ("", "invalid_request"),
    ("grant_type=", "invalid_request"),
    ("scope=x", "invalid_request"),
    ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
    ("grant_type=client_credentials&x=1&x=2", "invalid_request"),
    ("grant_type=%zz", "invalid_request"),
    ("grant_type=client_credentials%00", "invalid_request"),
    ("grant_type=password", "unsupported_grant_type"),
    ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
    ("grant_type=Client_Credentials", "unsupported_grant_type"),
    (form(scope="user-read-private"), "invalid_scope"),
    (form(scope='a"b'), "invalid_scope"),
])
def test_a_request_that_is_wrong_is_400(stack, data, word):
    answer = post(stack, BOB.basic, data)
    assert assert_error(answer, 400, word).keys() == {"error", "error_description"}
    assert answer.headers["Cache-Control"] == "no-store" and "WWW-Authenticate" not in answer.headers


def test_parameters_in_the_address_are_refused(stack):
    """RFC 6749 2.3.1: an address ends up in logs."""
    answer = post(stack, BOB.basic, "", query="?grant_type=client_credentials")
    assert_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_a_body_that_is_no_form_is_415(stack, kind):
    assert_error(post(stack, BOB.basic, headers={"Content-Type": kind}), 415, "unsupported_media_type")


def test_a_charset_behind_the_media_type_is_fine(stack):
    kind = "application/x-www-form-urlencoded; charset=UTF-8"
    assert_token(post(stack, BOB.basic, headers={"Content-Type": kind}))


def test_a_body_over_the_limit_is_413(stack):
    assert_error(post(stack, BOB.basic, form(x="a" * 70000)), 413, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_405(stack, method):
    answer = post(stack, BOB.basic, method=method, headers={"Origin": "https://app.example.test"})
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST"
    assert isinstance(answer.json()["error"], str)
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_head_is_405_without_a_body(stack):
    answer = post(stack, BOB.basic, method="HEAD")
    assert answer.status_code == 405 and answer.content == b""


# 503

@pytest.mark.parametrize("behaviour", [
    {"status": 500}, {"status": 503, "status_body": "text"}, {"reset": "before"}, {"token_error": "invalid_client"},
    {"token_error": "invalid_grant"}, {"json_shape": "html"}, {"expires_in": 0}, {"token_type": "mac"},
    {"access_token": "empty"},
], ids=str)
def test_without_a_token_from_spotify_it_is_503(make_stack, behaviour):
    stack = make_stack(services=1, workers=1, settings={"SERVICE_CLIENTS": BOB.entry})
    stack.spotify.behave("token", **behaviour)
    answer = post(stack, BOB.basic)
    body = assert_error(answer, 503, "temporarily_unavailable")
    assert body.keys() == {"error", "error_description"} and int(answer.headers["Retry-After"]) >= 1
    stack.spotify.reset("behaviour")
    assert_token(wait_for_token(stack))


def wait_for_token(stack):
    answers = []

    def asked():
        answers.append(post(stack, BOB.basic))
        return answers[-1].status_code == 200
    wait_until(asked, 10, "a token once Spotify is back")
    return answers[-1]
