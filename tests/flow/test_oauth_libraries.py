"""Libraries for RFC 6749 that others wrote get the app's token unchanged: Debian's python3-authlib, and openid-client of
npm."""

import json
import subprocess

import pytest

import npm
from clients import Client
from conftest import running

BOB = Client("bob-1_Z")


@pytest.fixture(scope="module")
def stack():
    with running(services=1, workers=1, settings={"SERVICE_CLIENTS": BOB.entry}) as stack:
        yield stack


def endpoint(stack):
    return stack.url + "/auth/api/token"


def test_authlib_gets_the_app_token(stack):
    # Debian's own library, whatever python runs the tests.
    script = ("import json, sys; from authlib.integrations.requests_client import OAuth2Session; "
              "url, name, secret = sys.argv[1:]; session = OAuth2Session(name, secret); session.trust_env = False; "
              "print(json.dumps(session.fetch_token(url, grant_type='client_credentials')))")
    done = subprocess.run(["/usr/bin/python3", "-c", script, endpoint(stack), BOB.name, BOB.secret], text=True,
                          stdout=subprocess.PIPE, timeout=60, check=True)
    token = json.loads(done.stdout)
    assert token["access_token"] in stack.spotify.secrets("access_token") and token["token_type"] == "Bearer"


def test_openid_client_gets_the_app_token(stack):
    """It form-encodes "-" and "_" of name and secret, too, as RFC 6749 2.3.1 allows."""
    token = npm.node("app_token.mjs", endpoint(stack), BOB.name, BOB.secret)
    assert token["access_token"] in stack.spotify.secrets("access_token") and 0 < token["expires_in"] <= 3600


def test_openid_client_understands_the_refusal(stack):
    refusal = npm.node("app_token.mjs", endpoint(stack), BOB.name, "wrong")
    assert refusal["status"] == 401 and refusal["challenges"][0]["scheme"] == "basic"
