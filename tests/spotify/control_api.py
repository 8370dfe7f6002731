"""/_control/: how tests switch behaviours on and ask what happened. Not part of Spotify."""

import json
from dataclasses import asdict
from urllib.parse import parse_qsl

from .behaviour import DEFAULTS, Refused
from .delivery import Answer, response
from .state import Client

RESET_DEFAULT = ("behaviour", "log", "counters", "grants", "clock", "hanging")


def handle(server, method, path, query_text, body):
    name = path[len("/_control/") :]
    action = ROUTES.get((method, name))
    if action is None:
        return response(Answer(404, {"error": f"no control call {method} {name}"}))
    try:
        given = json.loads(body) if body else {}
        if not isinstance(given, dict):
            raise Refused("the body is an object")
        if method == "GET":
            given = dict(parse_qsl(query_text))
        return response(Answer(200, action(server, given) or {}))
    except (KeyError, TypeError, ValueError) as error:
        return response(Answer(400, {"error": f"{type(error).__name__}: {error}"}))


def where(given):
    return {name: given.get(name) for name in ("endpoint", "client", "grant")}


def set_behaviour(server, given):
    unknown = set(given) - {"set", "endpoint", "client", "grant", "next"}
    if unknown:
        raise Refused(f"unknown: {', '.join(sorted(unknown))}")
    if given.get("next") is not None:
        server.behaviours.queue(given["next"], given["set"], **where(given))
    else:
        server.behaviours.change(given["set"], **where(given))


def get_behaviour(server, _given):
    rules = server.behaviours
    return {
        "defaults": DEFAULTS,
        "layers": [rule.describe() for rule in rules.layers.values()],
        "pending": [rule.describe() for rule in rules.pending],
    }


def reset(server, given):
    parts = {
        "behaviour": server.behaviours.reset,
        "log": server.journal.log.clear,
        "counters": server.journal.reset_counters,
        "grants": server.state.reset_grants,
        "clock": lambda: set_clock(server, {"offset": 0}),
        "hanging": server.hanging.release,
        "secrets": server.journal.secrets.clear,
        "clients": server.state.clients.clear,
        "users": server.state.reset_users,
    }
    chosen = given.get("only", RESET_DEFAULT)
    for part in chosen:
        if part not in parts:
            raise Refused(f"no part is called {part!r}")
    for part in chosen:
        parts[part]()


def get_log(server, given):
    endpoint, since = given.get("endpoint"), int(given.get("since", 0))
    entries = [
        entry.describe() for entry in server.journal.log
        if entry.number > since and endpoint in (None, entry.endpoint)
    ]
    return {"log": entries}


def get_counters(server, _given):
    return {
        **server.journal.describe_counters(),
        "hanging": len(server.hanging), "connections": len(server.web.connections),
    }


def get_secrets(server, _given):
    kinds = server.journal.describe_secrets()
    # Also those that the cap has driven out.
    kinds["client_secret"] = list(
        {client.secret: 1 for client in server.state.clients.values() if client.secret}
        | dict.fromkeys(kinds.get("client_secret", ()))
    )
    return kinds


def add_client(server, given):
    client = Client(given["id"], given["secret"], list(given["redirect_uris"]))
    server.state.clients[client.id] = client
    server.journal.secret("client_secret", client.secret)


def get_clients(server, _given):
    return {"clients": [asdict(client) for client in server.state.clients.values()]}


def add_user(server, given):
    user = server.state.user(given["name"])
    for name in ("display_name", "email", "product", "country"):
        if name in given:
            setattr(user, name, given[name])
    return {**asdict(user), "account_id": user.account_id}


def get_grants(server, _given):
    return {"grants": server.state.living_grants()}


def revoke(server, given):
    access_tokens = bool(given.get("access_tokens", False))
    return {"revoked": server.state.revoke(given.get("user"), given.get("client"), access_tokens)}


def set_clock(server, given):
    offset = given["offset"] if "offset" in given else server.state.clock_offset + given["advance"]
    server.state.clock_offset = float(offset)
    return {"offset": server.state.clock_offset, "now": server.state.now()}


def release(server, _given):
    return {"released": server.hanging.release()}


def limits(server, given):
    server.journal.limit(given.get("log"), given.get("secrets"))


ROUTES = {
    ("POST", "behaviour"): set_behaviour,
    ("GET", "behaviour"): get_behaviour,
    ("POST", "reset"): reset,
    ("GET", "log"): get_log,
    ("GET", "counters"): get_counters,
    ("GET", "secrets"): get_secrets,
    ("POST", "clients"): add_client,
    ("GET", "clients"): get_clients,
    ("POST", "users"): add_user,
    ("GET", "grants"): get_grants,
    ("POST", "revoke"): revoke,
    ("POST", "clock"): set_clock,
    ("POST", "release"): release,
    ("POST", "limits"): limits,
}
