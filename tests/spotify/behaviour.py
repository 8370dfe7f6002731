"""What is switched on: the table of behaviours with defaults and allowed values, layers narrowed by
endpoint, client and grant type, and rules for the next N requests. The package's docstring says
what each name does."""

from types import SimpleNamespace

ENDPOINTS = ("authorize", "token", "api")
STAGES = ("before", "after", "headers", "body")


def flag(value):
    return isinstance(value, bool)


def count(value):
    return isinstance(value, int) and not flag(value) and value >= 0


def seconds(value):
    return isinstance(value, (int, float)) and not flag(value)


def text(value):
    return isinstance(value, str)


def number_or_text(value):
    return text(value) or seconds(value)


def fields(value):
    return isinstance(value, dict)


def names(value):
    return isinstance(value, list) and all(map(text, value))


def http_status(value):
    return count(value) and 200 <= value <= 999


def anything(_value):
    return True


def one_of(*choices):
    return lambda value: value in choices and isinstance(value, type(choices[0]))


def stage(value):
    return value is True or value in STAGES


# name: (default, check)
AUTHORIZE = {
    "auto_approve": (None, text),
    "remember_consent": (False, flag),
    "known_scopes_only": (True, flag),
    "pkce_required": (False, flag),
    "code_ttl": (600, seconds),
    "code_length": (194, count),
    "callback_order": ("code_first", one_of("code_first", "state_first")),
    "callback_error": (None, text),
    "callback_code": ("normal", one_of("normal", "missing", "empty", "wrong")),
    "callback_state": ("same", one_of("same", "missing", "empty", "changed")),
    "callback_iss": (None, text),
    "callback_duplicate": (None, one_of("code", "state", "error", "iss")),
    "callback_code_and_error": (False, flag),
    "callback_extra": (None, fields),
}

TOKEN = {
    "body_credentials": (False, flag),
    "invalid_client_status": (400, one_of(400, 401)),
    "invalid_client_text": (True, flag),
    "verifier_unasked": ("refuse", one_of("refuse", "ignore")),
    "code_refusal": (None, one_of("invalid", "expired", "redirect", "verifier")),
    "code_reuse_revokes": (False, flag),
    "refresh_refusal": (None, one_of("invalid", "revoked", "expired", "no_text")),
    "token_error": (None, text),
    "token_error_text": (None, text),
    "token_error_status": (400, http_status),
    "rotation": ("omit", one_of("omit", "new", "new_keep_old", "same", "empty", "null")),
    "kill_grant_on_reuse": (False, flag),
    "refresh_token_ttl": (15552000, seconds),
    "refresh_token": ("normal", one_of("normal", "missing", "empty", "null", "number")),
    "refresh_token_length": (131, count),
    "access_token": ("normal", one_of("normal", "missing", "empty", "null", "number", "object")),
    "access_token_length": (266, count),
    "access_token_lifetime": (None, seconds),
    "expires_in": (3600, anything),
    "token_type": ("Bearer", text),
    "scope": ("as_asked", text),
}

API = {
    "api_error": (
        None,
        one_of("expired", "invalid", "bad_request", "not_registered", "premium", "quota"),
    ),
    "api_401_text": ("new", one_of("new", "old")),
    "api_allowed_users": (None, names),
    "account_id": (True, flag),
    "product": (None, text),
    "images": ("empty", one_of("normal", "empty", "missing", "null", "hostile")),
    "display_name": (None, text),
    "me_fields": (None, fields),
    "playing": ("track", one_of("track", "paused", "advertisement", "nothing")),
}

FAULTS = {
    "status": (None, http_status),
    "status_body": ("default", one_of("default", "json", "text", "html", "empty")),
    "process": (False, flag),
    "retry_after": (None, number_or_text),
    "location": (None, text),
    "latency": (0, seconds),
    "answer_delay": (0, seconds),
    "slow_headers": (0, seconds),
    "slow_body": (0, seconds),
    "hang": (None, stage),
    "reset": (None, stage),
    "early_close": (None, stage),
    "chunked": (False, flag),
    "content_length": (None, number_or_text),
    "garbage": (False, flag),
    "interim": (False, flag),
    "connection_close": (False, flag),
    "body_size": (0, count),
    "header_size": (0, count),
    "extra_headers": (None, fields),
    "content_type": (None, text),
    "extra_fields": (None, fields),
    "json_shape": (
        None,
        one_of(
            "duplicate_keys", "deep_nesting", "truncated", "trailing_garbage", "array", "string",
            "null", "number", "empty", "not_json", "html", "bom",
        ),
    ),
    "poison": (
        None,
        one_of(
            "nul", "raw_nul", "invalid_utf8", "control", "raw_control", "newline",
            "lone_surrogate", "unicode", "quote",
        ),
    ),
    "poison_field": (None, text),
}

TABLE = {**AUTHORIZE, **TOKEN, **API, **FAULTS}
DEFAULTS = {name: default for name, (default, _) in TABLE.items()}


class Refused(ValueError):
    """A behaviour's name, value or place that does not exist."""


def checked(values):
    """The values, `true` for a stage spelt out. Raises Refused."""
    if not isinstance(values, dict):
        raise Refused("behaviours are an object")
    result = {}
    for name, value in values.items():
        if name not in TABLE:
            raise Refused(f"no behaviour is called {name!r}")
        check = TABLE[name][1]
        if value is not None and not check(value):
            raise Refused(f"{name} cannot be {value!r}")
        result[name] = "before" if check is stage and value is True else value
    return result


class Rule:
    """Behaviours for the requests that endpoint, client and grant fit; None fits all."""

    def __init__(self, values, endpoint=None, client=None, grant=None, left=None):
        if endpoint is not None and endpoint not in ENDPOINTS:
            raise Refused(f"no endpoint is called {endpoint!r}")
        self.values = values
        self.where = (endpoint, client, grant)
        self.left = left

    def fits(self, where):
        return all(mine is None or mine == asked for mine, asked in zip(self.where, where))

    def values_for(self, where):
        """A fault without an endpoint is meant for the programs' calls, not for a person's page."""
        if where[0] == "authorize" and self.where[0] is None:
            return {name: value for name, value in self.values.items() if name not in FAULTS}
        return self.values

    def describe(self):
        endpoint, client, grant = self.where
        return {
            "set": self.values, "endpoint": endpoint, "client": client, "grant": grant,
            "left": self.left,
        }


class Behaviours:
    CACHE_MAX = 1000

    def __init__(self):
        self.reset()

    def reset(self):
        self.layers = {}
        self.pending = []
        self._resolved = {}

    def change(self, values, **where):
        values = checked(values)
        rule = Rule({}, **where)
        rule = self.layers.setdefault(rule.where, rule)
        rule.values.update(values)
        for name in [name for name, value in rule.values.items() if value is None]:
            del rule.values[name]
        self._resolved.clear()

    def queue(self, left, values, **where):
        if not count(left) or left < 1:
            raise Refused("next is a positive number")
        values = {name: value for name, value in checked(values).items() if value is not None}
        self.pending.append(Rule(values, left=left, **where))

    def resolve(self, endpoint, client, grant):
        """All behaviours as attributes; `plain` is true when none of them spoils the answer."""
        where = (endpoint, client, grant)
        resolved = self._resolved.get(where)
        if resolved is None:
            if len(self._resolved) >= self.CACHE_MAX:
                self._resolved.clear()
            resolved = self._resolved[where] = self._combine(where)
        return self._with_pending(where, resolved) if self.pending else resolved

    def _combine(self, where):
        values = dict(DEFAULTS)
        # The narrower layer wins: more of endpoint, client and grant named.
        for rule in sorted(self.layers.values(), key=lambda rule: 3 - rule.where.count(None)):
            if rule.fits(where):
                values.update(rule.values_for(where))
        return as_namespace(values)

    def _with_pending(self, where, resolved):
        for rule in self.pending:
            values = rule.values_for(where)
            if rule.fits(where) and values:
                rule.left -= 1
                if rule.left == 0:
                    self.pending.remove(rule)
                return as_namespace({**vars(resolved), **values})
        return resolved


def as_namespace(values):
    plain = all(values[name] == DEFAULTS[name] for name in FAULTS)
    return SimpleNamespace(**{**values, "plain": plain})
