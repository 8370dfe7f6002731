"""nginx/www/openapi.yaml: it is a good document, nginx serves it, it names what the program has; and the tool that holds
every answer of these tests against it (description.py, conftest.py) sees what is wrong."""

import re

import pytest
import yaml

import npm
from browser import Browser
from conftest import LISTED_ORIGIN, WITNESS, check_answers
from description import DOCUMENT, METHODS, Description, Said
from sessions import ask, cookie_header, log_in
from stack import TREE
from test_nginx import get

TEXT = DOCUMENT.read_text()
ROUTES = (TREE / "cgi" / "front" / "routes.c").read_text()
# Asked by nginx and operators, never public (test_nginx.py): not in the document.
INTERNAL = {"/verify", "/verify/app", "/verify/preflight", "/healthz", "/readyz", "/metrics"}


def routes():
    """Of the route table: path, its parameters."""
    table = ROUTES[ROUTES.index("static const struct route routes[]"):]
    starts = [*re.finditer(r'^    \{"(/[a-z/]+)",', table, re.M)]
    ends = [found.start() for found in starts[1:]] + [table.index("\n};")]
    return {found[1]: set(re.findall(r'\{"(\w+)", ', table[found.end():end])) for found, end in zip(starts, ends)}


def parameters(item):
    """The query and form parameters that a path's operations name."""
    for method in METHODS:
        operation = item.get(method, {})
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query":
                yield parameter["name"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            yield from content.get("schema", {}).get("properties", ())


def test_the_linter_finds_nothing():
    assert npm.node("lint.mjs", str(DOCUMENT)) == []


def test_the_linter_finds_what_is_wrong(tmp_path):
    wrong = tmp_path / "openapi.yaml"
    text = TEXT.replace("user_code: BCDF-GHJK\n", "user_code: 4\n")
    wrong.write_text(text.replace("operationId: swap\n", "operationId: x y\n"))
    rules = {rule for rule, _, _ in npm.node("lint.mjs", str(wrong))}
    assert rules == {"no-invalid-media-type-examples", "operation-operationId-url-safe"}


def test_every_public_route_is_described_with_its_parameters():
    document = Description(TEXT).document
    described = {path.removeprefix("/auth"): set(parameters(item)) for path, item in document.paths.items()
                 if path.startswith("/auth/") and path != "/auth/openapi.yaml"}
    table = {path: names for path, names in routes().items() if path not in INTERNAL}
    assert described.keys() == table.keys() and INTERNAL < routes().keys()
    # What a public client may say of itself; a secret is refused in a form.
    table["/device"].add("client_id")
    table["/api/token"] -= {"client_secret", "scope"}
    assert described == table


def test_its_error_codes_are_those_of_the_program_and_of_nginx():
    words = set(re.findall(r'\{\d{3}, "(\w+)"', (TREE / "cgi" / "base" / "err.c").read_text()))
    words |= {"login_required", "temporarily_unavailable", "server_error"}  # by macros, in err.c
    for path in (TREE / "nginx" / "spotify-auth.conf", TREE / "nginx" / "spotify-api.conf"):
        words |= set(re.findall(r"_error (\w+);", path.read_text()))
        words |= set(re.findall(r'"error":"(\w+)"', path.read_text()))
    assert set(Description(TEXT).document.whole["components"]["schemas"]["ErrorCode"]["enum"]) == words


def test_the_client_module_knows_no_other_codes():
    types = (TREE / "nginx" / "www" / "spotify-auth.d.ts").read_text()
    codes = set(re.findall(r'\| "(\w+)"', types.partition("export type Code")[2].partition(";")[0]))
    assert "rate_limited" in codes
    assert codes <= set(Description(TEXT).document.whole["components"]["schemas"]["ErrorCode"]["enum"])


def test_nothing_in_it_is_unused():
    document = Description(TEXT).document
    assert document.components - document.used == set()


# Served


@pytest.fixture
def served(stack):
    def get(**headers):
        return Browser(stack).request("GET", stack.url + "/auth/openapi.yaml", headers, "cross-site")
    return get


def test_any_page_may_read_it_and_a_cache_keep_it(served):
    answer = served(Origin="https://anywhere.example")
    assert answer.status_code == 200 and answer.content == DOCUMENT.read_bytes()
    assert answer.headers["Content-Type"] == "application/yaml"
    assert answer.headers["Access-Control-Allow-Origin"] == "*" and "max-age=" in answer.headers["Cache-Control"]
    assert served(**{"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_where_it_is_not_installed_it_is_404(make_stack):
    stack = make_stack(workers=1)
    stack.nginx.stop()
    stack.nginx.values["files"] = stack.directory / "files"
    stack.nginx.values["files"].mkdir()
    for path in (TREE / "nginx").glob("*.conf"):
        (stack.nginx.values["files"] / path.name).write_text(path.read_text())
    stack.nginx.start()
    answer = Browser(stack).request("GET", stack.url + "/auth/openapi.yaml", {}, "same-origin")
    assert answer.status_code == 404 and answer.json()["error"] == "not_found"


# Answers that other tests have no reason to ask for


@pytest.mark.parametrize("origin, status", [(LISTED_ORIGIN, 204), ("https://evil.example", 403)])
def test_preflight_of_the_list_of_sessions(stack, origin, status):
    assert Browser(stack).fetch("OPTIONS", "/sessions", origin=origin).status_code == status


def test_a_repeated_parameter_of_the_list_of_sessions(stack):
    assert log_in(stack).fetch("GET", "/sessions?a=1&a=2").status_code == 400


def test_a_large_body_for_the_catalogue(stack):
    assert Browser(stack).fetch("GET", stack.url + "/catalog/v1/albums/x", data=bytes(2048)).status_code == 413


# The tool itself


def changed(*path, value=None):
    """The document with one thing in it changed, or taken out."""
    document = yaml.safe_load(TEXT)
    *parents, last = path
    node = document
    for name in parents:
        node = node[name]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return yaml.safe_dump(document)


SESSION = ("paths", "/auth/session", "get", "responses", "200")
SCHEMAS = ("components", "schemas")


@pytest.mark.parametrize("change, value, complaint", [
    (("paths", "/auth/session"), None, "not in the document"),
    (("paths", "/auth/session", "get"), None, "not in the document"),
    (SESSION, None, "not in the document"),
    ((*SESSION, "content"), {"text/plain": {}}, "of type 'application/json'"),
    ((*SESSION, "content"), None, "a body"),
    ((*SESSION, "headers", "X-More"), {"required": True, "schema": {"type": "string"}}, "no header x-more"),
    ((*SESSION, "headers", "X-Request-Id"), {"schema": {"type": "string", "pattern": "^no$"}}, "header x-request-id: "),
    ((*SCHEMAS, "LoggedIn", "properties", "scope"), None, "is not valid under any of the given schemas"),
    ((*SCHEMAS, "LoggedIn", "required"), ["more"], "is not valid under any of the given schemas"),
    ((*SCHEMAS, "User", "properties", "product"), {"type": "integer"}, "is not valid under any of the given schemas"),
])
def test_an_answer_that_is_not_as_described_is_seen(stack, change, value, complaint):
    browser = log_in(stack)
    answer = browser.session()
    said = Said("GET", "/auth/session", 200, list(answer.headers.items()), answer.content)
    assert Description(TEXT).complaints(said) == []
    complaints = Description(changed(*change, value=value)).complaints(said)
    assert complaints and all(complaint in text for text in complaints), complaints


@pytest.mark.parametrize("change, complaint", [
    (lambda headers: [*headers, ("Set-Cookie", "spotify-session=x")], "header set-cookie: "),
    (lambda headers: [*headers, ("Location", "/")], "header location is not in the document"),
    (lambda headers: [(name, value) for name, value in headers if name != "Cache-Control"], "no cache-control"),
    (lambda headers: [*headers, ("Access-Control-Allow-Origin", "https://app.example")], "no access-control-allow-cr"),
])
def test_headers_that_are_not_as_described_are_seen(stack, change, complaint):
    answer = log_in(stack).session()
    headers = change(list(answer.headers.items()))
    complaints = Description(TEXT).complaints(Said("GET", "/auth/session", 200, headers, answer.content))
    assert any(complaint in text for text in complaints), complaints


def test_every_client_of_these_tests_is_heard(stack, monkeypatch):
    browser = log_in(stack)
    heard = []
    monkeypatch.setattr(WITNESS, "hear", heard.append)
    browser.session()
    get(stack, "/auth/session", "Cookie: " + cookie_header(browser))
    ask(stack.services[0], browser, "/session")
    assert [(said.path, said.status, said.by_nginx) for said in heard] == [
        ("/auth/session", 200, True), ("/auth/session", 403, True), ("/auth/session", 200, False)]


def test_a_complaint_fails_the_test_that_it_is_of():
    check_answers()
    WITNESS.hear(Said("GET", "/auth/session", 200, [], b""))
    with pytest.raises(AssertionError, match="GET /auth/session 200: no header x-request-id"):
        check_answers()
    check_answers()
