"""The accounts service: at /authorize a person agrees, at /api/token programs redeem."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from . import pages
from .delivery import HTML, Answer

SCOPES = frozenset(
    """ugc-image-upload user-read-playback-state user-modify-playback-state
    user-read-currently-playing app-remote-control streaming playlist-read-private
    playlist-read-collaborative playlist-modify-private playlist-modify-public user-follow-modify
    user-follow-read user-read-playback-position user-top-read user-read-recently-played
    user-library-modify user-library-read user-read-email user-read-private user-soa-link
    user-soa-unlink soa-manage-entitlements soa-manage-partner soa-create-partner
    user-read-birthdate user-personalized openid""".split()
)
SCOPE_SYNTAX = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
CHALLENGE_SYNTAX = re.compile(r"[A-Za-z0-9_-]{43}")
VERIFIER_SYNTAX = re.compile(r"[A-Za-z0-9._~-]{43,128}")
USERS_SHOWN = 8
USER_COOKIE = "simulated-spotify-user"

CODE_REFUSALS = {
    "invalid": "Invalid authorization code", "expired": "Authorization code expired",
    "redirect": "Invalid redirect URI", "verifier": "code_verifier was incorrect",
}
REFRESH_REFUSALS = {
    "invalid": "Invalid refresh token", "revoked": "Refresh token revoked",
    "expired": "Refresh token expired", "no_text": None,
}


class Refusal(Exception):
    """Shown on a page at /authorize, answered as JSON at /api/token."""

    def __init__(self, error, text=None, status=400):
        super().__init__(text or error)
        self.error, self.text, self.status = error, text, status


# /authorize


def is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_port(uri):
    parts = urlsplit(uri)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=host).geturl()


def check_redirect_uri(client, uri):
    try:
        parts = urlsplit(uri)
        parts.port
    except ValueError:
        raise Refusal("Illegal redirect_uri") from None
    if not parts.scheme or "#" in uri or not uri.isascii() or not uri.isprintable() or " " in uri:
        raise Refusal("Illegal redirect_uri")
    host = parts.hostname or ""
    if parts.scheme in ("http", "https"):
        if not host or "@" in parts.netloc:
            raise Refusal("Illegal redirect_uri")
        if host == "localhost" or (parts.scheme == "http" and not is_loopback(host)):
            raise Refusal("INVALID_CLIENT: Insecure redirect URI")
    if uri in client.redirect_uris:
        return
    # A loopback address registered without a port leaves the port to the app (RFC 8252 7.3).
    if parts.scheme == "http" and parts.port and without_port(uri) in client.redirect_uris:
        return
    raise Refusal("INVALID_CLIENT: Invalid redirect URI")


def check_request(params, state, behaviours):
    """The client of a sound authorization request. Raises Refusal, for a page."""
    names = [name for name, _ in params.pairs]
    if "client_id" not in params:
        raise Refusal("Missing required parameter: client_id")
    client = state.clients.get(params["client_id"])
    if client is None or names.count("client_id") > 1:
        raise Refusal("INVALID_CLIENT: Failed to get client")
    if "redirect_uri" not in params or names.count("redirect_uri") > 1:
        raise Refusal("Illegal redirect_uri")
    check_redirect_uri(client, params["redirect_uri"])
    for name in set(names):
        if names.count(name) > 1:
            raise Refusal("Repeated parameter")
    if params.get("response_type") != "code":
        raise Refusal("response_type must be code")
    check_scope(params.get("scope", ""), behaviours)
    check_challenge(client, params, behaviours)
    return client


def check_scope(scope, behaviours):
    if scope and not SCOPE_SYNTAX.fullmatch(scope):
        raise Refusal("INVALID_SCOPE: Invalid scope")
    if behaviours.known_scopes_only and not SCOPES.issuperset(scope.split()):
        raise Refusal("INVALID_SCOPE: Invalid scope")


def check_challenge(client, params, behaviours):
    challenge = params.get("code_challenge")
    if challenge is None:
        if client.secret is None or behaviours.pkce_required:
            raise Refusal("code_challenge required")
        if "code_challenge_method" in params:
            raise Refusal("code_challenge required")
        return
    if params.get("code_challenge_method") != "S256":
        raise Refusal("code_challenge_method must be S256")
    if not CHALLENGE_SYNTAX.fullmatch(challenge):
        raise Refusal("code_challenge must be 43 characters of base64url")


def authorize(call, state, behaviours):
    """GET shows the page (or skips it), POST is the page's form."""
    params = call.query
    call.journal.secret("state", params.get("state"))
    try:
        client = check_request(params, state, behaviours)
    except Refusal as refusal:
        return Answer(refusal.status, pages.error(call.label, refusal.error).encode(), HTML)
    if call.method == "POST":
        return decided(call, client, state, behaviours)
    if behaviours.auto_approve is not None:
        return approved(call, client, state.user(behaviours.auto_approve), state, behaviours)
    known = call.cookies.get(USER_COOKIE)
    known = known if known in state.users else None
    if behaviours.remember_consent and known and may_skip(call, client, known, state):
        return approved(call, client, state.user(known), state, behaviours)
    chosen = known or next(iter(state.users))
    html = pages.consent(
        call.label, client.id, params.get("scope", ""), params["redirect_uri"],
        list(state.users.values())[:USERS_SHOWN], chosen,
    )
    return Answer(200, html.encode(), HTML)


def may_skip(call, client, user_name, state):
    agreed = state.consents.get((client.id, user_name))
    asked = call.query.get("scope", "").split()
    return (
        agreed is not None and agreed.issuperset(asked)
        and call.query.get("show_dialog", "false") != "true"
    )


def decided(call, client, state, behaviours):
    name = call.form.get("name", "").strip() or call.form.get("user", "")
    if call.form.get("decision") == "cancel":
        return redirected(call, [("error", "access_denied")], behaviours)
    if call.form.get("decision") != "agree" or not name or len(name) > 60:
        return Answer(400, pages.error(call.label, "Choose a user").encode(), HTML)
    answer = approved(call, client, state.user(name), state, behaviours)
    cookie = f"{USER_COOKIE}={quote(name)}; Path=/; HttpOnly; SameSite=Lax"
    answer.headers["Set-Cookie"] = cookie
    return answer


def approved(call, client, user, state, behaviours):
    params = call.query
    if behaviours.callback_error is not None:
        return redirected(call, [("error", behaviours.callback_error)], behaviours)
    code = state.new_code(
        client, user, params.get("scope", ""), params["redirect_uri"],
        params.get("code_challenge"), behaviours,
    )
    call.journal.secret("code", code)
    code = {"normal": code, "empty": "", "wrong": "AQ-never-issued"}.get(behaviours.callback_code)
    back = [("code", code)] if code is not None else []
    if behaviours.callback_code_and_error:
        back.append(("error", "access_denied"))
    return redirected(call, back, behaviours)


def redirected(call, back, behaviours):
    """The redirect to the app with `back`, the state, and what the behaviours add."""
    asked = call.query.get("state")
    if asked is not None and behaviours.callback_state != "missing":
        changed = {"empty": "", "changed": asked[::-1] + "x"}
        state_pair = ("state", changed.get(behaviours.callback_state, asked))
        back.insert(0 if behaviours.callback_order == "state_first" else len(back), state_pair)
    if behaviours.callback_iss is not None:
        known = {"right": call.origin, "wrong": "https://accounts.spotify.example"}
        back.append(("iss", known.get(behaviours.callback_iss, behaviours.callback_iss)))
    doubled = behaviours.callback_duplicate
    back += [(name, value + "-again") for name, value in back if name == doubled]
    back += [(name, str(value)) for name, value in (behaviours.callback_extra or {}).items()]
    uri = call.query["redirect_uri"]
    glue = "&" if urlsplit(uri).query else "" if uri.endswith("?") else "?"
    return Answer(302, b"", HTML, {"Location": uri + glue + urlencode(back)})


# /api/token


def parse_basic(header):
    """(id, secret) of a Basic header, None when it is malformed (RFC 7617 2, RFC 6749 2.3.1)."""
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(credentials, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    client_id, colon, secret = text.partition(":")
    return (unquote_plus(client_id), unquote_plus(secret)) if colon else None


def claimed_client(call):
    """The client a token call says it comes from; nothing is checked yet."""
    basic = parse_basic(call.authorization) if call.authorization is not None else None
    return basic[0] if basic else call.form.get("client_id")


def token(call, state, behaviours):
    for kind in ("code", "refresh_token", "code_verifier", "client_secret"):
        call.journal.secret(kind, call.form.get(kind))
    if call.authorization is not None:
        call.journal.secret("basic", call.authorization.partition(" ")[2])
    if "code" in call.form:
        call.journal.used(call.journal.codes, call.form["code"])
    if "refresh_token" in call.form:
        call.journal.used(call.journal.refresh_tokens, call.form["refresh_token"])
    try:
        return Answer(200, redeem(call, state, behaviours))
    except Refusal as refusal:
        return refused(refusal, behaviours)


def refused(refusal, behaviours):
    answer = Answer(refusal.status, {"error": refusal.error})
    if refusal.text is not None:
        answer.body["error_description"] = refusal.text
    if refusal.error == "invalid_client":
        answer.status = behaviours.invalid_client_status
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="spotify"'
        if not behaviours.invalid_client_text:
            answer.body.pop("error_description", None)
    return answer


def redeem(call, state, behaviours):
    if call.method != "POST":
        raise Refusal("invalid_request", "Method not allowed", 405)
    if call.content_type != "application/x-www-form-urlencoded":
        raise Refusal("server_error", "Unexpected status: 415", 415)
    form = call.form
    if form is None or len(form) != len(form.pairs):
        raise Refusal("invalid_request", "Malformed or repeated parameter")
    if behaviours.token_error:
        status = behaviours.token_error_status
        raise Refusal(behaviours.token_error, behaviours.token_error_text, status)
    if not form.get("grant_type"):
        raise Refusal("unsupported_grant_type", "grant_type parameter is missing")
    redeemers = {
        "authorization_code": redeem_code, "refresh_token": redeem_refresh_token,
        "client_credentials": redeem_client,
    }
    if form["grant_type"] not in redeemers:
        names = "client_credentials, authorization_code or refresh_token"
        raise Refusal("unsupported_grant_type", f"grant_type must be {names}")
    client, with_secret = authenticate(call, state, behaviours)
    return redeemers[form["grant_type"]](form, client, with_secret, call, state, behaviours)


def authenticate(call, state, behaviours):
    """The client and whether it proved its secret. Raises Refusal. One way only (RFC 6749 2.3)."""
    form = call.form
    if call.authorization is not None:
        basic = parse_basic(call.authorization)
        if basic is None or "client_secret" in form or form.get("client_id", basic[0]) != basic[0]:
            raise Refusal("invalid_client", "Invalid client")
        client_id, secret = basic
    else:
        client_id, secret = form.get("client_id"), form.get("client_secret")
        if secret is not None and not behaviours.body_credentials:
            raise Refusal("invalid_client", "Invalid client")
    client = state.clients.get(client_id)
    if client is None:
        raise Refusal("invalid_client", "Invalid client")
    if secret is None:
        return client, False
    if client.secret is None or not hmac.compare_digest(client.secret.encode(), secret.encode()):
        raise Refusal("invalid_client", "Invalid client secret")
    return client, True


def redeem_code(form, client, with_secret, call, state, behaviours):
    if not form.get("code"):
        raise Refusal("invalid_request", "code must be supplied")
    if behaviours.code_refusal:
        raise Refusal("invalid_grant", CODE_REFUSALS[behaviours.code_refusal])
    code = state.codes.get(form["code"])
    if code is None or code.grant.client_id != client.id:
        raise Refusal("invalid_grant", CODE_REFUSALS["invalid"])
    if not with_secret and not code.challenge:
        raise Refusal("invalid_client", "Invalid client")
    if code.used:
        # RFC 6749 4.1.2: a code that comes twice may have been stolen.
        if behaviours.code_reuse_revokes:
            code.grant.alive = False
        raise Refusal("invalid_grant", CODE_REFUSALS["invalid"])
    # One attempt, good or bad.
    code.used = True
    if code.expires_at <= state.now():
        raise Refusal("invalid_grant", CODE_REFUSALS["expired"])
    if not code.grant.alive:
        raise Refusal("invalid_grant", CODE_REFUSALS["invalid"])
    if form.get("redirect_uri") != code.redirect_uri:
        raise Refusal("invalid_grant", CODE_REFUSALS["redirect"])
    check_verifier(form.get("code_verifier"), code.challenge, behaviours)
    code.grant.with_secret = with_secret
    fields = access_fields(client, code.grant.user, code.grant.scope, call, state, behaviours)
    if behaviours.refresh_token == "normal":
        fields["refresh_token"] = issue_refresh_token(code.grant, call, state, behaviours)
    elif behaviours.refresh_token != "missing":
        fields["refresh_token"] = {"empty": "", "null": None, "number": 7}[behaviours.refresh_token]
    return fields


def check_verifier(verifier, challenge, behaviours):
    if challenge is None:
        # RFC 9700 4.8.2: somebody may have taken the challenge out of the request.
        if verifier is not None and behaviours.verifier_unasked == "refuse":
            raise Refusal("invalid_grant", "code_verifier was invalid")
        return
    if not verifier:
        raise Refusal("invalid_request", "code_verifier required")
    if not VERIFIER_SYNTAX.fullmatch(verifier):
        raise Refusal("invalid_grant", "code_verifier was invalid")
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    if digest.rstrip(b"=").decode() != challenge:
        raise Refusal("invalid_grant", CODE_REFUSALS["verifier"])


def redeem_refresh_token(form, client, with_secret, call, state, behaviours):
    value = form.get("refresh_token")
    if not value:
        raise Refusal("invalid_request", "refresh_token must be supplied")
    if behaviours.refresh_refusal:
        raise Refusal("invalid_grant", REFRESH_REFUSALS[behaviours.refresh_refusal])
    grant = living_grant(value, client, state, behaviours)
    if grant.with_secret and not with_secret:
        raise Refusal("invalid_client", "Invalid client")
    fields = access_fields(client, grant.user, grant.scope, call, state, behaviours)
    if behaviours.rotation in ("new", "new_keep_old"):
        fields["refresh_token"] = issue_refresh_token(grant, call, state, behaviours)
        if behaviours.rotation == "new":
            state.retire_refresh_token(value)
    elif behaviours.rotation != "omit":
        kinds = {"same": value, "empty": "", "null": None}
        fields["refresh_token"] = kinds[behaviours.rotation]
    return fields


def living_grant(value, client, state, behaviours):
    grant = state.refresh_tokens.get(value)
    retired = state.dead_refresh_tokens.get(value)
    owner = grant or retired
    if owner is None or owner.client_id != client.id:
        raise Refusal("invalid_grant", REFRESH_REFUSALS["invalid"])
    if grant is None:
        if behaviours.kill_grant_on_reuse:
            retired.alive = False
        raise Refusal("invalid_grant", REFRESH_REFUSALS["revoked"])
    if not grant.alive:
        raise Refusal("invalid_grant", REFRESH_REFUSALS["revoked"])
    if grant.authorized_at + behaviours.refresh_token_ttl <= state.now():
        raise Refusal("invalid_grant", REFRESH_REFUSALS["expired"])
    return grant


def redeem_client(form, client, with_secret, call, state, behaviours):
    if not with_secret:
        raise Refusal("invalid_client", "Invalid client")
    fields = access_fields(client, None, "", call, state, behaviours)
    if behaviours.scope == "as_asked":
        fields.pop("scope", None)
    return fields


def issue_refresh_token(grant, call, state, behaviours):
    value = state.new_refresh_token(grant, behaviours.refresh_token_length)
    call.journal.secret("refresh_token", value)
    return value


def access_fields(client, user, scope, call, state, behaviours):
    """A token answer but for the refresh token, with a fresh access token."""
    fields = {}
    if behaviours.access_token == "normal":
        granted = granted_scope(scope, behaviours.scope)
        value = state.new_access_token(
            client.id, user, scope if granted is None else granted, lifetime(behaviours),
            behaviours.access_token_length,
        )
        call.journal.secret("access_token", value)
        fields["access_token"] = value
    elif behaviours.access_token != "missing":
        kinds = {"empty": "", "null": None, "number": 12345, "object": {"value": "BQ"}}
        fields["access_token"] = kinds[behaviours.access_token]
    put(fields, "token_type", behaviours.token_type)
    put(fields, "expires_in", behaviours.expires_in)
    if behaviours.scope != "missing":
        fields["scope"] = granted_scope(scope, behaviours.scope)
    return fields


def put(fields, name, value):
    if value != "missing":
        fields[name] = None if value == "null" else value


def granted_scope(scope, kind):
    """The scope of a token answer; None where the answer has none."""
    if kind == "reduced":
        return " ".join(scope.split()[:-1])
    kinds = {"as_asked": scope, "empty": "", "missing": None, "null": None}
    return kinds.get(kind, kind)


def lifetime(behaviours):
    if behaviours.access_token_lifetime is not None:
        return behaviours.access_token_lifetime
    told = behaviours.expires_in
    return told if isinstance(told, (int, float)) and 0 < told < 1e9 else 3600
