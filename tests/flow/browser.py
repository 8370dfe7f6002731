"""A scripted browser: cookies and Sec-Fetch headers as a real one sends them, and no redirect
followed by itself. Whatever the service answered is kept for the search for secrets."""

import email.utils
import html.parser
import http.cookiejar
import threading
import time
import urllib.parse

import requests

PAGE_HEADERS = {
    "User-Agent": "scripted-browser",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-User": "?1",
}
FETCH_HEADERS = {
    "User-Agent": "scripted-browser",
    "Accept": "*/*",
    "Accept-Language": "en",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
}
TIMEOUT_S = 90


class Answer:
    """What the service answered to one request."""

    def __init__(self, method, url, response):
        self.method = method
        self.url = url
        self.status = response.status_code
        self.headers = list(response.raw.headers.items())
        self.body = response.content

    def parts(self):
        """(where, text) of all that was sent: each header by its name, and the body."""
        for name, value in self.headers:
            yield name.lower(), value
        yield "body", self.body.decode("utf-8", "replace")


class Recorder:
    """Every answer of the service that any browser of this test run got."""

    def __init__(self):
        self.answers = []
        self.listener = None  # is told of each as well

    def add(self, answer):
        self.answers.append(answer)
        if self.listener:
            self.listener(answer)

    def find(self, secret):
        """[(answer, where)] of all places that show the secret, raw or percent-encoded."""
        forms = {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
        return [(answer, where) for answer in self.answers for where, text in answer.parts()
                if any(form in text for form in forms)]


RECORDER = Recorder()


class Cookie:
    """One cookie with the attributes it was set with (RFC 6265bis 5.7)."""

    def __init__(self, line):
        pair, *attributes = line.split(";")
        self.name, _, self.value = (part.strip() for part in pair.partition("="))
        self.attributes = {}
        for attribute in attributes:
            name, _, value = attribute.partition("=")
            self.attributes[name.strip().lower()] = value.strip()
        self.expires_at = self._expires_at()

    def _expires_at(self):
        if "max-age" in self.attributes:
            return time.time() + int(self.attributes["max-age"])
        if "expires" in self.attributes:
            return email.utils.parsedate_to_datetime(self.attributes["expires"]).timestamp()
        return None

    @property
    def secure(self):
        return "secure" in self.attributes

    @property
    def http_only(self):
        return "httponly" in self.attributes

    @property
    def same_site(self):
        return self.attributes.get("samesite", "Lax").lower()

    @property
    def path(self):
        path = self.attributes.get("path", "/")
        return path if path.startswith("/") else "/"

    @property
    def expired(self):
        return self.expires_at is not None and self.expires_at <= time.time()

    def acceptable(self, scheme):
        """Whether a browser keeps it: Secure needs https, the __Host- prefix its attributes."""
        if self.secure and scheme != "https":
            return False
        if self.name.startswith("__Host-"):
            return self.secure and self.path == "/" and "domain" not in self.attributes
        return not (self.same_site == "none" and not self.secure)

    def goes_with(self, path, site, top_level, method):
        """Whether a request to path carries it; site as in Sec-Fetch-Site."""
        if self.expired or not (path + "/").startswith(self.path.rstrip("/") + "/"):
            return False
        if site != "cross-site" or self.same_site == "none":
            return True
        return self.same_site == "lax" and top_level and method in ("GET", "HEAD")


class Jar:
    """Cookies by origin. Real jars share them between ports of a host, but Spotify is another host
    than ours, and the simulated one, on another port, shall get no cookies of ours either."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cookies = {}

    def store(self, origin, response):
        with self._lock:
            cookies = self._cookies.setdefault(origin, {})
            for line in response.raw.headers.getlist("Set-Cookie"):
                cookie = Cookie(line)
                if not cookie.acceptable(urllib.parse.urlsplit(origin).scheme):
                    continue
                cookies.pop(cookie.name, None)
                if not cookie.expired:
                    cookies[cookie.name] = cookie

    def header(self, origin, path, site, top_level, method):
        with self._lock:
            cookies = self._cookies.get(origin, {}).values()
            return "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies
                             if cookie.goes_with(path, site, top_level, method))

    def get(self, origin, name):
        with self._lock:
            cookie = self._cookies.get(origin, {}).get(name)
        return None if cookie is None or cookie.expired else cookie

    def put(self, origin, cookie):
        with self._lock:
            self._cookies.setdefault(origin, {})[cookie.name] = cookie

    def names(self, origin):
        with self._lock:
            return sorted(name for name, cookie in self._cookies.get(origin, {}).items()
                          if not cookie.expired)

    def end_of_session(self):
        """What closing the browser does: cookies without a life time are gone."""
        with self._lock:
            for cookies in self._cookies.values():
                for name in [n for n, cookie in cookies.items() if cookie.expires_at is None]:
                    del cookies[name]


class FormReader(html.parser.HTMLParser):
    """The forms of a page: action, method, fields with their values, buttons."""

    def __init__(self, text):
        super().__init__()
        self.forms = []
        self._select = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "form":
            self.forms.append({"action": values.get("action") or "", "fields": {}, "buttons": [],
                               "method": (values.get("method") or "get").upper()})
        if not self.forms:
            return
        form = self.forms[-1]
        name, value, kind = values.get("name"), values.get("value") or "", values.get("type")
        if tag == "button" or (tag == "input" and kind == "submit"):
            form["buttons"].append((name, value))
        elif tag == "input" and name:
            if kind not in ("radio", "checkbox") or "checked" in values:
                form["fields"][name] = value
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            if self._select not in form["fields"] or "selected" in values:
                form["fields"][self._select] = value

    def handle_endtag(self, tag):
        if tag == "select":
            self._select = None


class Browser:
    """One browser with its cookies, on the page of the stack's own origin."""

    def __init__(self, stack, recorder=RECORDER):
        self.stack = stack
        self.origin = stack.url
        self.mount = stack.url + "/auth"
        self.recorder = recorder
        self.jar = Jar()
        self._local = threading.local()

    # Requests

    def request(self, method, url, headers, site, top_level=False, data=None, cookies=True):
        """Send one request; the response. A header that is None is left out."""
        parts = urllib.parse.urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        headers = {"Sec-Fetch-Site": site, **headers}
        if cookies and "Cookie" not in headers:
            headers["Cookie"] = self.jar.header(origin, parts.path, site, top_level, method) or None
        response = self._session().request(method, url, headers=headers, data=data,
                                           allow_redirects=False, timeout=TIMEOUT_S)
        if cookies:
            self.jar.store(origin, response)
        if origin == self.origin:
            self.recorder.add(Answer(method, url, response))
        return response

    def _session(self):
        """A connection of its own for each thread, without a jar and defaults of its own."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = False
            session.verify = getattr(self.stack, "authority", True)
            session.headers.clear()
            session.headers["Accept-Encoding"] = "identity"
            policy = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
            session.cookies.set_policy(policy)
            self._local.session = session
        return self._local.session

    def navigate(self, url, site="none", method="GET", data=None, headers=None):
        """Open url in the tab, like a typed address ("none") or a link from another site."""
        url = urllib.parse.urljoin(self.origin + "/", url)
        own = dict(PAGE_HEADERS)
        if method == "POST":
            own["Origin"] = self.origin if site == "same-origin" else "null"
        return self.request(method, url, {**own, **(headers or {})}, site, True, data)

    def fetch(self, method, path, headers=None, data=None, site="same-origin", origin=None,
              cookies=True):
        """fetch() of a script; path is a route like "/token". origin: of a page elsewhere, which
        makes the request a cross-site one, unless site says otherwise."""
        url = path if "://" in path else self.mount + path
        own = {**FETCH_HEADERS, "X-Requested-With": "spotify-auth"}
        if origin is not None:
            own["Origin"] = origin
            site = "cross-site" if site == "same-origin" else site
        elif method not in ("GET", "HEAD"):
            own["Origin"] = self.origin
        return self.request(method, url, {**own, **(headers or {})}, site, False, data, cookies)

    # Cookies

    def cookie(self, name):
        """The Cookie with that name, or with it behind `__Host-`; None without one."""
        return self.jar.get(self.origin, name) or self.jar.get(self.origin, "__Host-" + name)

    def set_cookie(self, line):
        """Put a cookie into the jar, as a Set-Cookie line says."""
        self.jar.put(self.origin, Cookie(line))

    def script_cookies(self):
        """What a script on the page could read: the cookies without HttpOnly."""
        return [name for name in self.jar.names(self.origin)
                if not self.jar.get(self.origin, name).http_only]

    # The login

    def authorize(self, site="same-origin", headers=None, **parameters):
        """L1-L5: a click on the login link; the redirect to Spotify."""
        query = urllib.parse.urlencode(parameters)
        return self.navigate(self.mount + "/authorize" + ("?" + query if query else ""), site,
                             headers=headers)

    def approve(self, location, user="ada"):
        """Log in at Spotify's page and agree; the URL of our callback."""
        return self._answer_spotify(location, user, agree=True)

    def decline(self, location, user="ada"):
        return self._answer_spotify(location, user, agree=False)

    def callback(self, url, headers=None, method="GET"):
        """C1-C7: follow Spotify's redirect, which is a navigation from another site."""
        return self.navigate(url, "cross-site", method, headers=headers)

    def login(self, user="ada", **parameters):
        """The whole login; the answer of the callback."""
        return self.callback(self.approve(redirect_of(self.authorize(**parameters)), user))

    def _answer_spotify(self, location, user, agree):
        page = self.navigate(location, "cross-site")
        for _ in range(5):
            target = page.headers.get("Location")
            if target is None:
                page = self._fill_in(page, location, user, agree)
            elif self._is_ours(urllib.parse.urljoin(location, target)):
                return urllib.parse.urljoin(location, target)
            else:
                location = urllib.parse.urljoin(location, target)
                page = self.navigate(location, "same-origin")
        raise AssertionError("Spotify's pages do not lead back to us")

    def _fill_in(self, page, location, user, agree):
        forms = FormReader(page.text).forms if page.status_code == 200 else []
        if not forms:
            raise AssertionError(f"no form at Spotify: {page.status_code} {page.text[-500:]}")
        wanted = ("agree", "approve", "allow", "accept") if agree else ("cancel", "decline", "deny")
        for form in forms:
            for name, value in form["buttons"]:
                if value.lower() in wanted:
                    fields = dict(form["fields"])
                    if agree:
                        fields["name"] = user
                    fields[name] = value
                    return self._submit(form, fields, location)
        raise AssertionError(f"no button {wanted[0]} at Spotify: {page.text[-500:]}")

    def _submit(self, form, fields, location):
        url = urllib.parse.urljoin(location, form["action"])
        if form["method"] == "POST":
            return self.navigate(url, "same-origin", "POST", data=fields)
        url = url.split("?")[0] + "?" + urllib.parse.urlencode(fields)
        return self.navigate(url, "same-origin")

    def _is_ours(self, url):
        return url.startswith(self.stack.redirect_uri)

    # The session

    def session(self, **how):
        return self.fetch("GET", "/session", **how)

    def token(self, scope=None, **how):
        query = "" if scope is None else "?" + urllib.parse.urlencode({"scope": scope})
        return self.fetch("GET", "/token" + query, **how)

    def refresh(self, **how):
        return self.fetch("POST", "/refresh", **how)

    def logout(self, all=False, **how):
        return self.fetch("POST", "/logout", data={"all": "true"} if all else None, **how)


def redirect_of(response):
    """The Location of a redirect; AssertionError with the answer for anything else."""
    if response.status_code not in (302, 303) or "Location" not in response.headers:
        raise AssertionError(f"no redirect: {response.status_code} {response.text[:500]}")
    return urllib.parse.urljoin(response.url, response.headers["Location"])
