"""What openapi.yaml says, held against what the service answers: each answer has to be of a path and method that the
document names, with a status, media type, headers and body as it says. What was met is for openapi_met.py to count."""

import collections
import functools
import json
import posixpath
import re
import urllib.parse

import jsonschema
import yaml

from stack import TREE

DOCUMENT = TREE / "nginx" / "www" / "openapi.yaml"
METHODS = ("get", "put", "post", "delete")
# Headers by which a client acts: none comes that the document does not name.
NAMED = re.compile("set-cookie|location|retry-after|allow|clear-site-data|pragma|access-control-.*|x-spotify-.*|x-auth-.*")
OF_EVERY_ANSWER = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
OF_EVERY_PAGE = {"content-security-policy": "frame-ancestors 'none'", "x-frame-options": "DENY"}
WITH_CORS = {"access-control-allow-credentials": "true", "access-control-expose-headers": "Retry-After, X-Request-Id",
             "vary": "Origin"}
OTHER = "(other)"

Said = collections.namedtuple("Said", "method path status headers body by_nginx", defaults=[True])


class Document:
    """The document with every $ref in its place, so that nothing has to be looked up while answers pass."""

    def __init__(self, text):
        self._raw = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.used = set()
        self.whole = self._resolve(self._raw)
        self.paths = self.whole["paths"]
        self.components = {f"#/components/{kind}/{name}" for kind, named in self._raw["components"].items()
                           for name in named if kind != "securitySchemes"}

    def _resolve(self, node):
        if isinstance(node, list):
            return [self._resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        rest = {key: self._resolve(value) for key, value in node.items() if key != "$ref"}
        if "$ref" not in node:
            return rest
        self.used.add(node["$ref"])
        found = self._raw
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        found = self._resolve(found)
        # JSON Schema 2020-12: what stands beside a $ref holds as well.
        return {"allOf": [found], **rest} if rest else found

    def responses(self, path, method):
        """Of an operation, by status; of HEAD and preflights, too. None where it is not in the document."""
        item = self.paths.get(path, {})
        if method == "options":
            return {**item["x-preflight"], **self.whole["x-other-requests"]} if "x-preflight" in item else None
        if method == "head":
            return {**item["get"]["responses"], **item.get("x-head", {})} if "get" in item else None
        return item[method]["responses"] if method in item else None

    def statuses(self):
        """(path, method, status) of all that is listed."""
        for path, item in self.paths.items():
            for status in item.get("x-preflight", ()):
                yield path, "options", status
            for status in item.get("x-head", ()):
                yield path, "head", status
            for method in METHODS:
                for status in item.get(method, {}).get("responses", ()):
                    yield path, method, status


class Description:
    def __init__(self, text):
        self.document = Document(text)
        self.met = set()  # (path, method, status as listed, status)
        self._paths = [(re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(path))), path) for path in self.document.paths]
        self._good = set()
        self.validator = functools.lru_cache(maxsize=None)(self._compile)

    def complaints(self, said):
        """What of this answer is not in the document."""
        headers = [(name.lower(), value) for name, value in said.headers]
        key = (said.method, said.path, said.status, said.body,
               *(pair for pair in headers if pair[0] not in ("date", "x-request-id", "server")))
        if key in self._good:
            return []
        path, method, listed, response = self._find(said)
        what = f"{said.method} {said.path} {said.status}"
        if response is None:
            return [f"{what}: not in the document"]
        found = [f"{what}: {text}" for text in (*self._headers(said, path, response, headers),
                                                *self._body(said, (path, method, listed), response, dict(headers)))]
        if not found:
            self.met.add((path, method, listed, str(said.status)))
            self._good.add(key)
        return found

    def _find(self, said):
        """(path, method, status, response) as the document names them."""
        method = said.method.lower()
        path = next((path for pattern, path in self._paths if pattern.fullmatch(said.path)), OTHER)
        responses = self.document.responses(path, method)
        if responses is None:
            path, responses = OTHER, self.document.whole["x-other-requests"]
        status = str(said.status)
        if status in responses:
            return path, method, status, responses[status]
        default = responses.get("default")
        if default and status not in default.get("x-statuses", [status]):
            default = None
        return path, method, "default", default

    @staticmethod
    def _headers(said, path, response, headers):
        first = dict(reversed(headers))
        listed = {name.lower(): header for name, header in response.get("headers", {}).items()}
        wanted = OF_EVERY_ANSWER if said.path.startswith("/auth/") and not path.endswith(".yaml") else {}
        if first.get("content-type", "").startswith("text/html") and wanted:
            wanted = {**wanted, **OF_EVERY_PAGE}
        if first.get("access-control-allow-origin", "*") != "*":
            wanted = {**wanted, **WITH_CORS}
        for name, value in wanted.items():
            if value not in first.get(name, ""):
                yield f"no {name}: {value}"
        if not said.by_nginx:  # whose id the service repeats
            listed.pop("x-request-id", None)
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        for name, header in listed.items():
            if header.get("required") and name not in first:
                yield f"no header {name}"
        of_spotify = "*/*" in response.get("content", {})
        for name, value in headers:
            if name in listed:
                yield from Description._header(name, value, listed[name]["schema"])
            elif NAMED.fullmatch(name) and name not in WITH_CORS and not of_spotify:
                yield f"header {name} is not in the document"

    @staticmethod
    def _header(name, value, schema):
        typed = int(value) if schema["type"] == "integer" and value.isdecimal() else value
        for error in jsonschema.Draft202012Validator(schema).iter_errors(typed):
            yield f"header {name}: {error.message}"

    def _body(self, said, place, response, headers):
        content = response.get("content", {})
        media = headers.get("content-type", "").partition(";")[0]
        if said.method == "HEAD" or not content:
            if said.body:
                yield "a body"
            return
        if media not in content:
            if "*/*" not in content:
                yield f"of type {media!r}"
            return
        if media == "application/json":
            try:
                body = json.loads(said.body)
            except ValueError:
                yield "no JSON"
                return
            for error in self.validator(*place, media).iter_errors(body):
                yield f"{error.json_path}: {error.message}"

    def _compile(self, path, method, status, media):
        if path == OTHER:
            responses = self.document.whole["x-other-requests"]
        else:
            responses = self.document.responses(path, method)
        return jsonschema.Draft202012Validator(responses[status]["content"][media].get("schema", {}))


def as_nginx_reads(target):
    path = re.sub("/+", "/", urllib.parse.unquote(target.partition("?")[0]))
    return posixpath.normpath(path) + "/" * (path.endswith("/") and path != "/")


def is_ours(path):
    return path.startswith(("/auth/", "/spotify/v1/", "/catalog/v1/"))


class Witness:
    """Hears every answer of the service that passes a test's client, and says at its end what was wrong with them."""

    def __init__(self, description):
        self.description = description
        self._heard = collections.deque()

    def hear(self, said):
        self._heard.append(said)

    def hear_browser(self, answer):
        if is_ours(path := as_nginx_reads(urllib.parse.urlsplit(answer.url).path)):
            self.hear(Said(answer.method, path, answer.status, answer.headers, answer.body))

    def hear_raw(self, data, status, headers, body):
        """Of a request that a test wrote byte by byte."""
        line = re.match(rb"([A-Z]+) (/\S*) HTTP/1\.[01]\r\n", data)
        if line and is_ours(path := as_nginx_reads(line[2].decode("latin-1"))):
            self.hear(Said(line[1].decode(), path, status, list(headers.items()), body))

    def hear_fastcgi(self, pairs, reply):
        """Of a request past nginx: of a public route, as nginx would ask."""
        variables = dict(pairs)
        path = "/auth" + (variables.get("PATH_INFO") or variables.get("SCRIPT_NAME") or "")
        if path in self.description.document.paths:
            headers = [pair for pair in reply.headers if pair[0] != "Status"]
            self.hear(Said(variables["REQUEST_METHOD"], path, reply.status, headers, reply.body, False))

    def complaints(self):
        found = []
        while self._heard:
            found += self.description.complaints(self._heard.popleft())
        return sorted(set(found))
