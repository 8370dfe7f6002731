"""A program in a terminal, a notebook or a TV, and the person who enters its code in a browser (RFC 8628)."""

import urllib.parse

import requests

from browser import RECORDER, TIMEOUT_S, Answer, FormReader, redirect_of

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Terminal:
    def __init__(self, stack):
        self.stack = stack
        self.codes = None

    def post(self, route, fields=None, **how):
        url = self.stack.url + "/auth" + route
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request("POST", url, data=fields, timeout=TIMEOUT_S, allow_redirects=False, **how)
        RECORDER.add(Answer("POST", url, answer))
        return answer

    def begin(self, **fields):
        """Ask for codes; the terminal itself."""
        answer = self.post("/device", fields)
        assert answer.status_code == 200, answer.text
        self.codes = answer.json()
        return self

    def poll(self, **fields):
        form = {"grant_type": GRANT, "device_code": self.codes["device_code"], **fields}
        return self.post("/api/token", {name: value for name, value in form.items() if value is not None})

    def refresh(self, handle):
        return self.post("/api/token", {"grant_type": "refresh_token", "refresh_token": handle})

    @property
    def user_code(self):
        return self.codes["user_code"]


def open_page(browser, code=None):
    """The page as a person comes to it: by typing its address, or from a link or picture with the code in it."""
    query = "" if code is None else "?" + urllib.parse.urlencode({"user_code": code})
    return browser.navigate(browser.mount + "/device" + query)


def submit(browser, page, action="connect", typed=None, headers=None, **changes):
    """Press one of the page's buttons; the answer."""
    form, = FormReader(page.text).forms
    assert form["method"] == "POST" and ("action", action) in form["buttons"], page.text
    fields = {**form["fields"], "action": action, **changes}
    if typed is not None:
        fields["user_code"] = typed
    fields = {name: value for name, value in fields.items() if value is not None}
    url = urllib.parse.urljoin(page.url, form["action"])
    return browser.navigate(url, "same-origin", "POST", data=fields, headers=headers)


def connect(browser, terminal, user="ada", typed=None):
    """The person's whole part: page, Spotify, callback; the page on which it ends."""
    page = open_page(browser, None if typed else terminal.user_code)
    to_spotify = redirect_of(submit(browser, page, typed=typed))
    back = browser.callback(browser.approve(to_spotify, user))
    return browser.navigate(redirect_of(back), "cross-site")
