"""A phone with Spotify's SDK: it gets its codes at an address of the app's own, and sends the bytes that the SDKs send.

IOS_SWAP and IOS_REFRESH are the bodies of iOS SDK 3.0.0 (contract B.2): the code as it came, the handle with everything
but letters and digits percent-encoded."""

import base64
import hashlib
import re
import secrets
import urllib.parse

import requests

from browser import RECORDER, TIMEOUT_S, Answer

FORM = "application/x-www-form-urlencoded"
IOS_SWAP = "code={code}"
IOS_REFRESH = "client_id={client_id}&grant_type=refresh_token&refresh_token={handle}"
IOS_HEADERS = {"Content-Type": FORM, "Accept": "*/*", "Accept-Language": "en-GB,en;q=0.9",
               "User-Agent": "PartyPlayer/1 CFNetwork/1568.300.101 Darwin/24.2.0"}


def ios_encode(text):
    return re.sub(r"[^A-Za-z0-9]", lambda found: f"%{ord(found[0]):02X}", text)


def new_verifier():
    """A PKCE verifier and its challenge (RFC 7636 4.1, 4.2)."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Phone:
    def __init__(self, stack, redirect_uri=None, user="ada"):
        self.stack = stack
        self.redirect_uri = redirect_uri or stack.app_uris[0]
        self.user = user
        self.handle = None

    def code(self, scope="user-read-private streaming", challenge=None):
        """What the SDK's authorization leads to: without state, and mostly without PKCE."""
        query = {"client_id": self.stack.client_id, "redirect_uri": self.redirect_uri, "scope": scope,
                 "response_type": "code", "nosignup": "true", "nolinks": "true", "utm_source": "spotify-sdk"}
        if challenge:
            query.update(code_challenge=challenge, code_challenge_method="S256")
        url = self.stack.spotify.url + "/authorize?" + urllib.parse.urlencode(query)
        back = self.stack.spotify.agree(url, self.user)
        assert back.startswith(self.redirect_uri)
        return urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]

    def post(self, route, body, headers=IOS_HEADERS, method="POST"):
        url = self.stack.url + "/auth" + route
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, url, data=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
        RECORDER.add(Answer(method, url, answer))
        return answer

    def swap(self, code=None, **fields):
        body = IOS_SWAP.format(code=code or self.code())
        if fields:
            body += "&" + urllib.parse.urlencode(fields)
        answer = self.post("/swap", body)
        if answer.status_code == 200:
            self.handle = answer.json()["refresh_token"]
        return answer

    def refresh(self, handle=None):
        body = IOS_REFRESH.format(client_id=self.stack.client_id, handle=ios_encode(handle or self.handle))
        return self.post("/swap/refresh", body)

    def log_in(self, **first_answer):
        """first_answer: how Spotify answers the code, like expires_in=30."""
        if first_answer:
            self.stack.spotify.next(1, grant="authorization_code", **first_answer)
        answer = self.swap()
        assert answer.status_code == 200, answer.text
        return self
