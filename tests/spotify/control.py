"""The tests' handle on the simulated Spotify.

    with Spotify.start() as spotify:
        spotify.register("client", "secret", ["http://127.0.0.1/callback"])
        spotify.next(2, status=503)
        ...
        assert spotify.calls("token", grant="refresh_token") == 1
"""

import os
import select
import subprocess
from pathlib import Path

import requests

START_S = 15
STOP_S = 5
CALL_S = 30


class Spotify:
    """A running simulator; `start` runs one, the constructor attaches to one at `url`. `ca` is the
    CA file for an https URL, or False to look at no certificate."""

    def __init__(self, url, ca=None, process=None):
        self.url = url
        self.process = process
        self.verify = True if ca is None else ca
        self.session = requests.Session()
        # Proxies and ~/.netrc of the machine are no business of a test.
        self.session.trust_env = False

    @classmethod
    def start(cls, listen="127.0.0.1:0", cert=None, key=None, ca=None, label=None, arguments=()):
        """Runs a simulator of its own. It ends with stop(), or when this process ends."""
        command = ["/usr/bin/python3", "-m", "spotify", "--listen", listen, "--until-eof"]
        if cert:
            command += ["--tls-cert", str(cert), "--tls-key", str(key)]
        if label:
            command += ["--label", label]
        tests = str(Path(__file__).resolve().parent.parent)
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": tests}, text=True,
        )
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        words = process.stdout.readline().split() if readable else []
        if len(words) != 2 or words[0] != "ready":
            process.kill()
            process.wait()
            raise RuntimeError("the simulated Spotify did not start")
        return cls(words[1], ca if ca is not None else (None if not cert else False), process)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        """Ends a simulator that start() began; may be called twice."""
        self.session.close()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None

    # What happens

    def behave(self, endpoint=None, client=None, grant=None, **values):
        """Switches behaviours on; None as a value goes back to the default."""
        where = {"endpoint": endpoint, "client": client, "grant": grant}
        self._post("behaviour", set=values, **where)

    def next(self, count, endpoint="token", client=None, grant=None, **values):
        """The same for the next `count` requests only. Calls queue up."""
        where = {"endpoint": endpoint, "client": client, "grant": grant}
        self._post("behaviour", set=values, next=count, **where)

    def hang(self, endpoint="token", stage="before", **where):
        self.behave(endpoint, hang=stage, **where)

    def release(self, endpoint="token", **where):
        """No more hanging, and those that hang go on. Returns how many did."""
        self.behave(endpoint, hang=None, **where)
        return self._post("release")["released"]

    def reset(self, *only):
        self._post("reset", **({"only": only} if only else {}))

    def register(self, client_id, secret, redirect_uris):
        self._post("clients", id=client_id, secret=secret, redirect_uris=list(redirect_uris))

    def user(self, name, **fields):
        return self._post("users", name=name, **fields)

    def revoke(self, user=None, client=None, access_tokens=False):
        answer = self._post("revoke", user=user, client=client, access_tokens=access_tokens)
        return answer["revoked"]

    def advance(self, seconds):
        """Moves Spotify's clock on."""
        return self._post("clock", advance=seconds)["offset"]

    def limits(self, log=None, secrets=None):
        self._post("limits", log=log, secrets=secrets)

    # What a person does

    def agree(self, authorize_url, user="ada"):
        """Agrees on the page at that URL; returns the URL of the redirect to the app."""
        return self._decide(authorize_url, {"decision": "agree", "name": user})

    def cancel(self, authorize_url):
        return self._decide(authorize_url, {"decision": "cancel"})

    def _decide(self, authorize_url, form):
        # A fresh person each time: no cookies of an earlier one.
        with requests.Session() as person:
            person.trust_env = False
            answer = person.post(
                authorize_url, data=form, allow_redirects=False, timeout=CALL_S,
                verify=self.verify,
            )
        if answer.status_code != 302:
            raise RuntimeError(f"/authorize answered {answer.status_code}: {answer.text[-300:]}")
        return answer.headers["Location"]

    # What happened

    def log(self, endpoint=None, since=0):
        """Requests, oldest first: dicts with number, at, endpoint, method, path, query, headers,
        form, client, grant, status."""
        return self._get("log", endpoint=endpoint, since=since)["log"]

    def counters(self):
        return self._get("counters")

    def calls(self, endpoint="token", grant=None):
        """How many requests: to "token", "authorize", "decision", "api", "elsewhere", "other"; or
        how many token calls with that grant_type."""
        counters = self.counters()
        return counters["grants"].get(grant, 0) if grant else counters["calls"].get(endpoint, 0)

    def grants(self):
        return self._get("grants")["grants"]

    def secrets(self, *kinds):
        """All values, or those of some kinds, that nobody else may ever see."""
        found = self._get("secrets")
        return [value for kind in kinds or found for value in found.get(kind, ())]

    def secrets_by_kind(self):
        return self._get("secrets")

    def _post(self, name, /, **fields):
        return self._result(self.session.post(
            f"{self.url}/_control/{name}", json=fields, timeout=CALL_S, verify=self.verify
        ))

    def _get(self, name, /, **params):
        return self._result(self.session.get(
            f"{self.url}/_control/{name}", params=params, timeout=CALL_S, verify=self.verify
        ))

    @staticmethod
    def _result(answer):
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code}: {answer.text}")
        return answer.json()
