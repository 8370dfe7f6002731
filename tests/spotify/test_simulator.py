"""The simulator refuses what Spotify refuses, and each behaviour does what its name says."""

import base64
import hashlib
import json
import socket
import threading
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests

import spotify
from spotify import behaviour, certificates
from spotify.control import Spotify

ID, SECRET = "a" * 32, "b" * 32
PHONE = "c" * 32
BACK = "https://app.example/callback"
LOOPBACK = "http://127.0.0.1/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
PKCE = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
SCOPE = "user-read-private user-read-email"


@pytest.fixture(scope="module")
def running():
    with Spotify.start() as server:
        yield server


@pytest.fixture
def sim(running):
    running.reset()
    running.reset("secrets", "clients", "users")
    running.register(ID, SECRET, [BACK, LOOPBACK, "http://insecure.example/cb", "app://back"])
    running.register(PHONE, None, [BACK])
    return running


def authorize_url(sim, drop=(), **changes):
    params = {
        "client_id": ID, "response_type": "code", "redirect_uri": BACK, "state": "the-state",
        "scope": SCOPE, **changes,
    }
    params = {name: value for name, value in params.items() if name not in drop}
    return f"{sim.url}/authorize?{urlencode(params)}"


def callback(location):
    return dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))


def new_code(sim, user="ada", **changes):
    return callback(sim.agree(authorize_url(sim, **changes), user))["code"]


def token(sim, auth=(ID, SECRET), **form):
    return requests.post(
        f"{sim.url}/api/token", data=form, auth=auth, allow_redirects=False, timeout=10
    )


def redeem(sim, code=None, auth=(ID, SECRET), **form):
    form = {"redirect_uri": BACK, **form}
    code = code or new_code(sim)
    return token(sim, auth, grant_type="authorization_code", code=code, **form)


def login(sim, **changes):
    return redeem(sim, new_code(sim, **changes)).json()


def refresh(sim, value, auth=(ID, SECRET), **form):
    return token(sim, auth, grant_type="refresh_token", refresh_token=value, **form)


def me(sim, value, path="/v1/me", **more):
    return requests.get(
        sim.url + path, headers={"Authorization": f"Bearer {value}"}, timeout=10, **more
    )


def said(answer):
    body = answer.json()
    return answer.status_code, body["error"], body.get("error_description")


def raw(sim, code=None):
    """The bytes that a client-credentials call is answered with, until the connection ends."""
    body = b"grant_type=client_credentials"
    basic = base64.b64encode(f"{ID}:{SECRET}".encode())
    place = urlsplit(sim.url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
        connection.sendall(
            b"POST /api/token HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + basic
            + b"\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close"
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def wait_until(check):
    end = time.monotonic() + 5
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


# The documentation and the control API


def test_every_behaviour_is_described():
    lines = [line.split()[0] for line in spotify.__doc__.splitlines() if line[:1].strip()]
    assert set(behaviour.TABLE) <= set(lines)


def test_wrong_behaviours_are_refused(sim):
    for values in ({"no_such": 1}, {"rotation": "sometimes"}, {"chunked": 1}, {"status": "503"}):
        with pytest.raises(ValueError):
            sim.behave(**values)
    with pytest.raises(ValueError):
        sim.behave("nowhere", status=503)


def test_null_goes_back_to_the_default(sim):
    sim.behave("token", status=503)
    sim.behave("token", status=None)
    assert redeem(sim).status_code == 200


def test_behaviour_for_one_client_or_grant_only(sim):
    sim.behave(client=PHONE, status=503)
    assert redeem(sim).status_code == 200
    sim.behave("token", grant="refresh_token", status=502)
    tokens = login(sim)
    assert refresh(sim, tokens["refresh_token"]).status_code == 502


def test_next_requests_queue_up(sim):
    sim.next(2, status=503)
    sim.next(1, status=429, retry_after=7)
    tokens = [token(sim, grant_type="client_credentials") for _ in range(4)]
    assert [answer.status_code for answer in tokens] == [503, 503, 429, 200]
    assert tokens[2].headers["Retry-After"] == "7"


def test_log_counters_and_secrets(sim):
    code = new_code(sim, show_dialog="true", **PKCE)
    tokens = redeem(sim, code, code_verifier=VERIFIER).json()
    refresh(sim, tokens["refresh_token"])
    refresh(sim, tokens["refresh_token"])
    counters = sim.counters()
    assert counters["codes"] == {code: 1}
    assert counters["refresh_tokens"] == {tokens["refresh_token"]: 2}
    assert (sim.calls("token"), sim.calls("token", grant="refresh_token")) == (3, 2)
    assert sim.log("decision")[0]["query"]["show_dialog"] == "true"
    entry = sim.log("token")[0]
    assert entry["form"]["code"] == code and entry["status"] == 200
    assert entry["headers"]["content-type"] == "application/x-www-form-urlencoded"
    basic = base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
    known = {code, VERIFIER, SECRET, "the-state", basic, tokens["access_token"]}
    assert known | {tokens["refresh_token"]} <= set(sim.secrets())
    assert sim.secrets("code") == [code]


def test_log_and_secrets_are_capped(sim):
    sim.limits(log=3, secrets=5)
    for _ in range(5):
        token(sim, grant_type="client_credentials")
    assert len(sim.log()) == 3 and sim.calls() == 5
    assert len(sim.secrets("access_token")) <= 5 and SECRET in sim.secrets()
    sim.limits(log=10000, secrets=50000)


# /authorize


@pytest.mark.parametrize("changes, text", [
    ({"client_id": "nobody"}, "INVALID_CLIENT: Failed to get client"),
    ({"redirect_uri": BACK + "/"}, "INVALID_CLIENT: Invalid redirect URI"),
    ({"redirect_uri": BACK.upper()}, "INVALID_CLIENT: Invalid redirect URI"),
    ({"redirect_uri": BACK + "?x=1"}, "INVALID_CLIENT: Invalid redirect URI"),
    ({"redirect_uri": "https://app.example:444/callback"}, "INVALID_CLIENT: Invalid redirect URI"),
    ({"redirect_uri": "http://insecure.example/cb"}, "INVALID_CLIENT: Insecure redirect URI"),
    ({"redirect_uri": "http://localhost/callback"}, "INVALID_CLIENT: Insecure redirect URI"),
    ({"redirect_uri": "nonsense"}, "Illegal redirect_uri"),
    ({"redirect_uri": BACK + "#f"}, "Illegal redirect_uri"),
    ({"drop": ["redirect_uri"]}, "Illegal redirect_uri"),
    ({"drop": ["client_id"]}, "Missing required parameter: client_id"),
    ({"response_type": "token"}, "response_type must be code"),
    ({"drop": ["response_type"]}, "response_type must be code"),
    ({"scope": "user-read-everything"}, "INVALID_SCOPE: Invalid scope"),
    ({"scope": "a  b"}, "INVALID_SCOPE: Invalid scope"),
    ({"code_challenge": CHALLENGE}, "code_challenge_method must be S256"),
    ({**PKCE, "code_challenge_method": "plain"}, "code_challenge_method must be S256"),
    ({**PKCE, "code_challenge": "short"}, "code_challenge must be"),
    ({"client_id": PHONE}, "code_challenge required"),
])
def test_authorize_shows_an_error_page_and_never_redirects(sim, changes, text):
    url = authorize_url(sim, **changes)
    for method in ("GET", "POST"):
        answer = requests.request(
            method, url, data={"decision": "agree", "user": "ada"}, allow_redirects=False,
            timeout=10,
        )
        assert answer.status_code == 400 and "Location" not in answer.headers
        assert text in answer.text and "Simulated Spotify" in answer.text


def test_repeated_parameter_is_refused(sim):
    answer = requests.get(authorize_url(sim) + "&state=again", timeout=10)
    assert answer.status_code == 400


def test_loopback_registered_without_port_matches_any_port(sim):
    location = sim.agree(authorize_url(sim, redirect_uri="http://127.0.0.1:4567/callback"))
    assert location.startswith("http://127.0.0.1:4567/callback?")
    for other in ("http://127.0.0.2:4567/callback", "http://127.0.0.1:4567/other"):
        with pytest.raises(RuntimeError):
            sim.agree(authorize_url(sim, redirect_uri=other))


def test_page_offers_users_and_ignores_unknown_parameters(sim):
    answer = requests.get(authorize_url(sim, utm_source="x", nolinks="true"), timeout=10)
    assert answer.status_code == 200
    for text in ("Simulated Spotify", "Agree", "Cancel", "Ada Lovelace", "user-read-email"):
        assert text in answer.text


def test_page_escapes_what_it_shows(sim):
    sim.user("<script>", display_name="<b>")
    page = requests.get(authorize_url(sim), timeout=10).text
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_agreeing_and_cancelling(sim):
    assert set(callback(sim.agree(authorize_url(sim)))) == {"code", "state"}
    assert callback(sim.cancel(authorize_url(sim))) == {
        "error": "access_denied", "state": "the-state"
    }
    assert set(callback(sim.agree(authorize_url(sim, drop=["state"])))) == {"code"}
    assert sim.agree(authorize_url(sim, redirect_uri="app://back")).startswith("app://back?code=")


def test_an_app_of_a_phone_is_sent_to_its_very_address(sim):
    app = "my-app://callback"
    sim.register(ID, SECRET, [app])
    assert sim.agree(authorize_url(sim, redirect_uri=app)).startswith(app + "?code=")


def test_auto_approve(sim):
    sim.behave(auto_approve="grace")
    answer = requests.get(authorize_url(sim), allow_redirects=False, timeout=10)
    tokens = redeem(sim, callback(answer.headers["Location"])["code"]).json()
    assert me(sim, tokens["access_token"]).json()["id"] == "grace"


def test_remember_consent(sim):
    person = requests.Session()

    def visit(**changes):
        url = authorize_url(sim, **changes)
        return person.get(url, allow_redirects=False, timeout=10).status_code

    sim.behave(remember_consent=True)
    assert visit() == 200
    form = {"user": "çağla", "decision": "agree"}
    person.post(authorize_url(sim), data=form, allow_redirects=False, timeout=10)
    assert visit() == 302
    assert visit(show_dialog="true") == 200
    assert visit(scope="streaming") == 200
    sim.revoke("çağla")
    assert visit() == 200


@pytest.mark.parametrize("values, wanted", [
    ({"callback_error": "server_error"}, "error=server_error&state=the-state"),
    ({"callback_state": "missing"}, "code=C"),
    ({"callback_state": "empty"}, "code=C&state="),
    ({"callback_state": "changed"}, "code=C&state=etats-ehtx"),
    ({"callback_order": "state_first"}, "state=the-state&code=C"),
    ({"callback_code": "missing"}, "state=the-state"),
    ({"callback_code": "empty"}, "code=&state=the-state"),
    ({"callback_code": "wrong"}, "code=AQ-never-issued&state=the-state"),
    ({"callback_iss": "other"}, "code=C&state=the-state&iss=other"),
    ({"callback_duplicate": "state"}, "code=C&state=the-state&state=the-state-again"),
    ({"callback_code_and_error": True}, "code=C&error=access_denied&state=the-state"),
    ({"callback_extra": {"x": 1}}, "code=C&state=the-state&x=1"),
])
def test_callback_behaviours(sim, values, wanted):
    sim.behave(**values)
    query = urlsplit(sim.agree(authorize_url(sim))).query
    for code in sim.secrets("code"):
        query = query.replace(code, "C")
    assert query == wanted


def test_callback_iss_right(sim):
    sim.behave(callback_iss="right")
    assert callback(sim.agree(authorize_url(sim)))["iss"] == sim.url
    sim.behave(callback_iss="wrong")
    assert callback(sim.agree(authorize_url(sim)))["iss"] != sim.url


@pytest.mark.parametrize("length", [194, 412, 2048])
def test_code_length(sim, length):
    sim.behave(code_length=length)
    code = new_code(sim)
    assert len(code) == length and code.startswith("AQ")
    assert redeem(sim, code).status_code == 200


# /api/token: what is refused


def test_code_gives_tokens_once(sim):
    code = new_code(sim)
    first = redeem(sim, code)
    assert first.json() == {
        "access_token": first.json()["access_token"], "token_type": "Bearer", "expires_in": 3600,
        "scope": SCOPE, "refresh_token": first.json()["refresh_token"],
    }
    assert said(redeem(sim, code)) == (400, "invalid_grant", "Invalid authorization code")
    assert refresh(sim, first.json()["refresh_token"]).status_code == 200


def test_code_reuse_revokes(sim):
    sim.behave(code_reuse_revokes=True)
    code = new_code(sim)
    tokens = redeem(sim, code).json()
    redeem(sim, code)
    assert said(refresh(sim, tokens["refresh_token"]))[2] == "Refresh token revoked"


def test_code_is_bound(sim):
    sim.register("d" * 32, SECRET, [BACK])
    assert said(redeem(sim, auth=("d" * 32, SECRET)))[2] == "Invalid authorization code"
    assert said(redeem(sim, redirect_uri=LOOPBACK))[2] == "Invalid redirect URI"
    assert said(redeem(sim, "AQunknown"))[2] == "Invalid authorization code"
    assert said(token(sim, grant_type="authorization_code")) == (
        400, "invalid_request", "code must be supplied"
    )


def test_code_expires(sim):
    sim.behave(code_ttl=5)
    code = new_code(sim)
    sim.advance(6)
    assert said(redeem(sim, code)) == (400, "invalid_grant", "Authorization code expired")


@pytest.mark.parametrize("form, wanted", [
    ({"code_verifier": VERIFIER}, None),
    ({}, ("invalid_request", "code_verifier required")),
    ({"code_verifier": "w" * 43}, ("invalid_grant", "code_verifier was incorrect")),
    ({"code_verifier": "short"}, ("invalid_grant", "code_verifier was invalid")),
])
def test_pkce(sim, form, wanted):
    answer = redeem(sim, new_code(sim, **PKCE), **form)
    assert (said(answer)[1:] if answer.status_code == 400 else None) == wanted


def test_verifier_without_challenge(sim):
    assert said(redeem(sim, code_verifier=VERIFIER))[2] == "code_verifier was invalid"
    sim.behave(verifier_unasked="ignore")
    assert redeem(sim, code_verifier=VERIFIER).status_code == 200


def test_public_client(sim):
    form = {"client_id": PHONE, "code_verifier": VERIFIER}
    tokens = redeem(sim, new_code(sim, client_id=PHONE, **PKCE), None, **form).json()
    assert refresh(sim, tokens["refresh_token"], None, client_id=PHONE).status_code == 200
    answer = token(sim, None, grant_type="client_credentials", client_id=PHONE)
    assert said(answer)[1] == "invalid_client"
    with_secret = login(sim)["refresh_token"]
    assert said(refresh(sim, with_secret, None, client_id=ID))[1] == "invalid_client"
    assert said(redeem(sim, new_code(sim), None, client_id=ID))[1] == "invalid_client"


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("header, text", [
    (basic(f"{ID}:wrong"), "Invalid client secret"),
    (basic(f"nobody:{SECRET}"), "Invalid client"),
    (basic(f"{ID}{SECRET}"), "Invalid client"),
    (basic(f"{ID}:{SECRET}").rstrip("=") + "!", "Invalid client"),
    ("Basic  " + basic(f"{ID}:{SECRET}")[6:], "Invalid client"),
    ("Bearer " + basic(f"{ID}:{SECRET}")[6:], "Invalid client"),
    ("Basic", "Invalid client"),
    (None, "Invalid client"),
])
def test_basic_is_parsed_strictly(sim, header, text):
    def ask():
        return requests.post(
            f"{sim.url}/api/token", data={"grant_type": "client_credentials"},
            headers={"Authorization": header} if header else {}, timeout=10,
        )

    assert said(ask()) == (400, "invalid_client", text)
    sim.behave(invalid_client_status=401, invalid_client_text=False)
    assert said(ask()) == (401, "invalid_client", None)
    assert ask().headers["WWW-Authenticate"].startswith("Basic ")


def test_body_credentials_only_when_switched_on(sim):
    form = {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET}
    assert said(token(sim, None, **form))[1] == "invalid_client"
    sim.behave(body_credentials=True)
    assert token(sim, None, **form).status_code == 200
    assert said(token(sim, **form))[1] == "invalid_client"


def test_malformed_form_is_refused_and_counted(sim):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = requests.post(f"{sim.url}/api/token", data="code=%ff", headers=headers, timeout=10)
    assert answer.status_code == 400 and sim.calls("other") == 1


def test_grant_type_method_and_content_type(sim):
    assert said(token(sim, x="y")) == (
        400, "unsupported_grant_type", "grant_type parameter is missing"
    )
    assert said(token(sim, grant_type="password"))[1] == "unsupported_grant_type"
    assert requests.get(f"{sim.url}/api/token", timeout=10).status_code == 405
    answer = requests.post(f"{sim.url}/api/token", json={"grant_type": "x"}, timeout=10)
    assert answer.status_code == 415
    doubled = "grant_type=client_credentials&grant_type=client_credentials"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = requests.post(
        f"{sim.url}/api/token", data=doubled, headers=headers, auth=(ID, SECRET), timeout=10
    )
    assert said(answer)[1] == "invalid_request"


def test_client_credentials(sim):
    answer = token(sim, grant_type="client_credentials").json()
    assert set(answer) == {"access_token", "token_type", "expires_in"}
    assert me(sim, answer["access_token"]).status_code == 401
    echo = me(sim, answer["access_token"], "/v1/markets?market=SE").json()
    assert (echo["client"], echo["user"], echo["query"]) == (ID, None, {"market": "SE"})


# /api/token: refresh tokens


@pytest.mark.parametrize("kind", ["omit", "empty", "null", "same"])
def test_rotation_that_keeps_the_token(sim, kind):
    sim.behave(rotation=kind)
    value = login(sim)["refresh_token"]
    answer = refresh(sim, value).json()
    wanted = {"omit": "absent", "empty": "", "null": None, "same": value}[kind]
    assert answer.get("refresh_token", "absent") == wanted
    assert refresh(sim, value).status_code == 200


def test_rotation_new_kills_the_old_token(sim):
    sim.behave(rotation="new")
    old = login(sim)["refresh_token"]
    new = refresh(sim, old).json()["refresh_token"]
    assert said(refresh(sim, old)) == (400, "invalid_grant", "Refresh token revoked")
    assert refresh(sim, new).status_code == 200


def test_rotation_new_keep_old(sim):
    sim.behave(rotation="new_keep_old")
    old = login(sim)["refresh_token"]
    assert refresh(sim, old).json()["refresh_token"] != old
    assert refresh(sim, old).status_code == 200


def test_kill_grant_on_reuse(sim):
    sim.behave(rotation="new", kill_grant_on_reuse=True)
    old = login(sim)["refresh_token"]
    new = refresh(sim, old).json()["refresh_token"]
    refresh(sim, old)
    assert said(refresh(sim, new)) == (400, "invalid_grant", "Refresh token revoked")


def test_refresh_token_dies_by_the_age_of_the_authorization(sim):
    sim.behave(rotation="new")
    first = login(sim)["refresh_token"]
    sim.advance(15552000 - 60)
    second = refresh(sim, first).json()["refresh_token"]
    sim.advance(61)
    assert said(refresh(sim, second)) == (400, "invalid_grant", "Refresh token expired")


@pytest.mark.parametrize("kind, text", [
    ("invalid", "Invalid refresh token"), ("revoked", "Refresh token revoked"),
    ("expired", "Refresh token expired"), ("no_text", None),
])
def test_false_refusals_leave_the_token_alive(sim, kind, text):
    value = login(sim)["refresh_token"]
    sim.next(1, refresh_refusal=kind)
    assert said(refresh(sim, value)) == (400, "invalid_grant", text)
    assert refresh(sim, value).status_code == 200


def test_refresh_token_is_bound_to_its_client(sim):
    sim.register("d" * 32, SECRET, [BACK])
    value = login(sim)["refresh_token"]
    assert said(refresh(sim, value, ("d" * 32, SECRET)))[2] == "Invalid refresh token"
    assert said(refresh(sim, "AQx"))[2] == "Invalid refresh token"
    assert said(token(sim, grant_type="refresh_token"))[1] == "invalid_request"


def test_revoking_kills_refresh_tokens_but_not_access_tokens(sim):
    tokens, other = login(sim, user="ada"), login(sim, user="grace")
    assert len(sim.grants()) == 2
    assert sim.revoke("ada") == 1
    assert said(refresh(sim, tokens["refresh_token"]))[2] == "Refresh token revoked"
    assert me(sim, tokens["access_token"]).status_code == 200
    assert refresh(sim, other["refresh_token"]).status_code == 200
    sim.revoke("ada", access_tokens=True)
    assert me(sim, tokens["access_token"]).status_code == 401


def test_other_errors_of_the_token_endpoint(sim):
    sim.next(1, code_refusal="expired")
    assert said(redeem(sim, "AQx"))[2] == "Authorization code expired"
    sim.next(1, token_error="server_error", token_error_text="oh", token_error_status=500)
    assert said(redeem(sim, "AQx")) == (500, "server_error", "oh")


# /api/token: odd answers


@pytest.mark.parametrize("values, wanted", [
    ({"token_type": "bearer"}, {"token_type": "bearer"}),
    ({"token_type": "missing"}, {"token_type": "absent"}),
    ({"scope": "reduced"}, {"scope": "user-read-private"}),
    ({"scope": "empty"}, {"scope": ""}),
    ({"scope": "missing"}, {"scope": "absent"}),
    ({"scope": "streaming"}, {"scope": "streaming"}),
    ({"expires_in": "3600"}, {"expires_in": "3600"}),
    ({"expires_in": 0}, {"expires_in": 0}),
    ({"expires_in": -5}, {"expires_in": -5}),
    ({"expires_in": 1 << 80}, {"expires_in": 1 << 80}),
    ({"expires_in": "missing"}, {"expires_in": "absent"}),
    ({"expires_in": "null"}, {"expires_in": None}),
    ({"access_token": "missing"}, {"access_token": "absent"}),
    ({"access_token": "empty"}, {"access_token": ""}),
    ({"access_token": "number"}, {"access_token": 12345}),
    ({"refresh_token": "missing"}, {"refresh_token": "absent"}),
    ({"refresh_token": "empty"}, {"refresh_token": ""}),
    ({"extra_fields": {"x": [1]}}, {"x": [1]}),
])
def test_odd_fields(sim, values, wanted):
    sim.behave("token", **values)
    answer = login(sim)
    assert {name: answer.get(name, "absent") for name in wanted} == wanted


@pytest.mark.parametrize("length", [83, 582, 2048, 8192, 100000])
def test_access_token_length(sim, length):
    sim.behave(access_token_length=length)
    value = login(sim)["access_token"]
    assert len(value) == length
    assert length > 8192 or me(sim, value).json()["id"] == "ada"


def test_access_token_expires(sim):
    sim.behave(expires_in=5)
    value = login(sim)["access_token"]
    assert me(sim, value).status_code == 200
    sim.advance(6)
    assert me(sim, value).status_code == 401


def body_of(sim, **values):
    sim.behave("token", **values)
    return raw(sim).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("shape, check", [
    ("duplicate_keys", lambda body: body.count(b'"access_token"') == 2),
    ("deep_nesting", lambda body: b"[" * 100000 in body),
    ("truncated", lambda body: body.startswith(b"{") and not body.endswith(b"}")),
    ("trailing_garbage", lambda body: body.endswith(b"}}garbage")),
    ("array", lambda body: isinstance(json.loads(body), list)),
    ("string", lambda body: isinstance(json.loads(body), str)),
    ("null", lambda body: body == b"null"),
    ("number", lambda body: body == b"42"),
    ("empty", lambda body: body == b""),
    ("not_json", lambda body: body.startswith(b"access_token=")),
    ("html", lambda body: body.startswith(b"<!doctype")),
    ("bom", lambda body: body.startswith(b"\xef\xbb\xbf{")),
])
def test_json_shape(sim, shape, check):
    assert check(body_of(sim, json_shape=shape))


@pytest.mark.parametrize("kind, marker", [
    ("nul", b"\\u0000"), ("raw_nul", b"\0"), ("invalid_utf8", b"\xc3\x28"),
    ("control", b"\\u0007"), ("raw_control", b"\x01"), ("newline", b"\\r\\n"),
    ("lone_surrogate", b"\\ud800"), ("unicode", "🎵".encode()), ("quote", b'\\"'),
])
def test_poison(sim, kind, marker):
    assert marker in body_of(sim, poison=kind).partition(b'"token_type"')[0]
    assert marker in body_of(sim, poison=kind, poison_field="scope").partition(b'"scope"')[2]


def test_body_over_a_cap_and_big_header(sim):
    sim.behave("token", body_size=3_000_000, header_size=9000)
    answer = raw(sim)
    assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000 and b"x" * 9000 in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["token_type"] == "Bearer"


# Statuses and the connection


@pytest.mark.parametrize("values, body", [
    ({"status": 503}, "upstream connect error"),
    ({"status": 502}, "Bad gateway"),
    ({"status": 500}, "<html>"),
    ({"status": 429}, '"status":429'),
    ({"status": 429, "status_body": "text"}, "Simulated 429"),
    ({"status": 429, "status_body": "empty"}, ""),
    ({"status": 200, "status_body": "html"}, "<html>"),
])
def test_status(sim, values, body):
    code = new_code(sim)
    sim.next(1, **values)
    answer = redeem(sim, code)
    assert answer.status_code == values["status"]
    assert answer.text == body or (body and body in answer.text)
    assert redeem(sim, code).status_code == 200


def test_process_carries_the_request_out_and_loses_the_answer(sim):
    code = new_code(sim)
    sim.next(1, status=503, process=True)
    assert redeem(sim, code).status_code == 503
    assert said(redeem(sim, code))[2] == "Invalid authorization code"


@pytest.mark.parametrize("value, check", [
    (11742, lambda text: text == "11742"),
    ("date", lambda text: text.endswith("GMT")),
    ("huge", lambda text: int(text) > 1 << 64),
    ("soon", lambda text: text == "soon"),
])
def test_retry_after(sim, value, check):
    sim.behave("token", status=429, retry_after=value)
    assert check(redeem(sim).headers["Retry-After"])


@pytest.mark.parametrize("status", [302, 307])
def test_redirect_leads_to_a_trap(sim, status):
    sim.behave("token", status=status)
    answer = redeem(sim)
    assert answer.headers["Location"] == "/elsewhere"
    assert "access_token" in requests.post(f"{sim.url}/elsewhere", timeout=10).json()
    assert sim.calls("elsewhere") == 1


def test_faults_without_endpoint_spare_the_page(sim):
    sim.behave(status=503)
    code = new_code(sim)
    assert redeem(sim, code).status_code == 503 and me(sim, "x").status_code == 503
    sim.behave("authorize", status=500)
    assert requests.get(authorize_url(sim), timeout=10).status_code == 500


@pytest.mark.parametrize("name", ["latency", "answer_delay", "slow_headers", "slow_body"])
def test_slowness(sim, name):
    sim.behave("token", **{name: 0.4})
    begin = time.monotonic()
    assert token(sim, grant_type="client_credentials").status_code == 200
    assert 0.3 < time.monotonic() - begin < 3


def test_client_that_leaves_a_slow_answer(sim):
    sim.next(1, slow_body=0.5)
    body = {"grant_type": "client_credentials"}
    answer = requests.post(
        f"{sim.url}/api/token", data=body, auth=(ID, SECRET), stream=True, timeout=5
    )
    answer.close()
    wait_until(lambda: sim.log("token")[0]["status"] == "gone")
    assert token(sim, **body).status_code == 200


@pytest.mark.parametrize("stage", ["before", "after", "headers", "body"])
def test_hang_until_released(sim, stage):
    sim.hang(stage=stage)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(token(sim, grant_type="client_credentials"))
    )
    thread.start()
    wait_until(lambda: sim.counters()["hanging"] == 1)
    assert sim.log("token")[0]["status"] is None and sim.calls() == 1
    assert not answers
    assert sim.release() == 1
    thread.join(5)
    assert answers[0].status_code == 200


def test_hang_until_the_client_goes(sim):
    code = new_code(sim)
    sim.hang()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{sim.url}/api/token", data=form, auth=(ID, SECRET), timeout=0.2)
    wait_until(lambda: sim.counters()["hanging"] == 0)
    assert sim.log("token")[0]["status"] == "gone"
    sim.release()
    assert redeem(sim, code).status_code == 200


@pytest.mark.parametrize("stage", ["before", "after", "headers", "body"])
def test_reset(sim, stage):
    code = new_code(sim)
    sim.next(1, reset=stage)
    with pytest.raises(requests.exceptions.RequestException):
        redeem(sim, code)
    assert sim.log("token")[-1]["status"] == "reset"
    assert redeem(sim, code).status_code == (200 if stage == "before" else 400)


def test_reset_is_a_real_one(sim):
    sim.next(1, reset="after")
    with pytest.raises(ConnectionResetError):
        raw(sim)


@pytest.mark.parametrize("stage, check", [
    ("before", lambda answer: answer == b""),
    ("after", lambda answer: answer == b""),
    ("headers", lambda answer: answer and b"\r\n\r\n" not in answer),
    ("body", lambda answer: b"\r\n\r\n{" in answer and not answer.endswith(b"}")),
])
def test_early_close(sim, stage, check):
    sim.next(1, early_close=stage)
    assert check(raw(sim))
    assert sim.log("token")[-1]["status"] == "closed"


def test_chunked(sim):
    sim.behave("token", chunked=True)
    answer = token(sim, grant_type="client_credentials")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.json()["token_type"] == "Bearer"


@pytest.mark.parametrize("kind", ["short", "long", "missing", "negative", "text", "two", 5])
def test_content_length(sim, kind):
    sim.behave("token", content_length=kind)
    head, _, body = raw(sim).partition(b"\r\n\r\n")
    lengths = [line.split(b": ")[1] for line in head.split(b"\r\n") if b"Content-Length" in line]
    right = str(len(body)).encode()
    assert right not in lengths or kind == "two"
    assert len(lengths) == {"missing": 0, "two": 2}.get(kind, 1)


def test_other_spoilt_answers(sim):
    sim.next(1, garbage=True)
    assert not raw(sim).startswith(b"HTTP")
    sim.next(1, interim=True)
    assert raw(sim).startswith(b"HTTP/1.1 103 ")
    sim.next(1, connection_close=True, content_type="text/html", extra_headers={"X-Y": "z"})
    headers = token(sim, grant_type="client_credentials").headers
    assert (headers["Connection"], headers["Content-Type"]) == ("close", "text/html")
    assert headers["X-Y"] == "z"


# /v1/me


def test_me_needs_a_bearer_token(sim):
    value = login(sim)["access_token"]
    assert me(sim, value).json()["id"] == "ada"
    assert me(sim, "wrong").json()["error"] == {
        "status": 401, "message": "Missing/invalid/expired access token"
    }
    assert requests.get(f"{sim.url}/v1/me", timeout=10).status_code == 401
    answer = requests.get(f"{sim.url}/v1/me", auth=(ID, SECRET), timeout=10).json()
    assert answer["error"]["message"] == "Only valid bearer authentication supported"


def test_me_shows_what_the_scope_allows(sim):
    profile = me(sim, login(sim)["access_token"]).json()
    assert {"product", "email", "account_id", "images"} <= set(profile)
    poor = me(sim, login(sim, scope="")["access_token"]).json()
    assert not {"product", "email"} & set(poor)


@pytest.mark.parametrize("path, scope, status, found", [
    ("/v1/me/playlists", "playlist-read-private", 200, "Playlist of ada"),
    ("/v1/me/playlists", "user-read-private", 403, "Insufficient client scope"),
    ("/v1/me/player/recently-played", "user-read-recently-played", 200, "spotify:user:ada:"),
    ("/v1/me/player/currently-playing", "user-read-currently-playing", 200, "progress_ms"),
    ("/v1/me/player/currently-playing", "", 403, "Insufficient client scope"),
    ("/v1/me/player/recently-played", "", 403, "Insufficient client scope"),
    ("/v1/albums/4aawyAB9vmqN3uQ7FjRGTy", "", 200, "A simulated album"),
    ("/v1/albums/7", "", 400, "Invalid base62 id"),
    ("/v1/search?q=moon&type=track", "", 200, "moon"),
    ("/v1/search?q=moon", "", 400, "Bad search type"),
    ("/v1/search?type=track", "", 400, "No search query"),
    ("/v1/me/tracks", "", 200, "simulated"),
    ("/v1/nothing", "", 404, "Service not found"),
    ("/v1/men", "", 404, "Service not found"),
])
def test_what_can_be_read(sim, path, scope, status, found):
    answer = me(sim, login(sim, scope=scope)["access_token"], path)
    assert (answer.status_code, found in answer.text) == (status, True)


def test_what_plays(sim):
    value = login(sim, scope="user-read-currently-playing user-read-recently-played")["access_token"]
    path = "/v1/me/player/currently-playing"
    playing = me(sim, value, path).json()
    assert playing["is_playing"] and 0 <= playing["progress_ms"] < playing["item"]["duration_ms"]
    sim.behave(playing="paused")
    assert not me(sim, value, path).json()["is_playing"]
    sim.behave(playing="advertisement")
    assert me(sim, value, path).json()["item"] is None
    sim.behave(playing="nothing")
    assert (me(sim, value, path).status_code, me(sim, value, path).content) == (204, b"")
    played = me(sim, value, "/v1/me/player/recently-played?limit=3").json()["items"]
    assert len(played) == 3 and played == sorted(played, key=lambda item: item["played_at"], reverse=True)


def test_the_apps_own_token_reads_the_catalogue_alone(sim):
    value = token(sim, grant_type="client_credentials").json()["access_token"]
    assert me(sim, value, "/v1/albums/4aawyAB9vmqN3uQ7FjRGTy").status_code == 200
    assert me(sim, value, "/v1/me/playlists").status_code == 401


@pytest.mark.parametrize("values, status, text", [
    ({"api_error": "expired"}, 401, "Missing/invalid/expired access token"),
    ({"api_error": "expired", "api_401_text": "old"}, 401, "The access token expired"),
    ({"api_error": "invalid", "api_401_text": "old"}, 401, "Invalid access token"),
    ({"api_error": "bad_request"}, 400, "Only valid bearer authentication supported"),
    ({"api_error": "not_registered"}, 403, "the user may not be registered"),
    ({"api_error": "premium"}, 403, "Active premium subscription required"),
    ({"api_error": "quota"}, 429, "QUOTA_EXCEEDED"),
    ({"api_allowed_users": ["grace"]}, 403, "the user may not be registered"),
])
def test_api_errors(sim, values, status, text):
    value = login(sim)["access_token"]
    sim.behave(**values)
    answer = me(sim, value)
    assert answer.status_code == status and text in answer.text
    if values.get("api_error") == "premium":
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert not answer.text.startswith("{")


@pytest.mark.parametrize("values, name, wanted", [
    ({"account_id": False}, "account_id", "absent"),
    ({"product": "missing"}, "product", "absent"),
    ({"product": "free"}, "product", "free"),
    ({"display_name": "null"}, "display_name", None),
    ({"display_name": "<script>"}, "display_name", "<script>"),
    ({}, "images", []),
    ({"images": "missing"}, "images", "absent"),
    ({"images": "null"}, "images", None),
    ({"me_fields": {"id": 7}}, "id", 7),
])
def test_me_fields(sim, values, name, wanted):
    sim.behave(**values)
    assert me(sim, login(sim)["access_token"]).json().get(name, "absent") == wanted


def test_hostile_image(sim):
    sim.behave(images="hostile")
    assert "javascript:" in me(sim, login(sim)["access_token"]).json()["images"][0]["url"]


# TLS


@pytest.mark.parametrize("name, problem", [
    ("good", None), ("wrong_name", "doesn't match|not valid for|mismatch"), ("expired", "expired"),
    ("unknown_ca", "unable to get local issuer|self.signed|unable to verify"),
])
def test_certificates(tmp_path_factory, name, problem):
    made = certificates.make(tmp_path_factory.getbasetemp() / "certificates")
    cert, key = made[name]
    with Spotify.start(cert=cert, key=key, ca=made["ca"]) as server:
        if problem is None:
            server.register(ID, SECRET, [BACK])
            assert server.url.startswith("https://")
            assert callback(server.agree(authorize_url(server)))["state"] == "the-state"
            server.next(1, reset="before")
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.get(f"{server.url}/api/token", verify=made["ca"], timeout=5)
        else:
            with pytest.raises(requests.exceptions.SSLError, match=problem):
                server.counters()
