"""The Web API: /v1/me, and an echo for every other path under /v1/, for tests of proxies."""

from .delivery import JSON, TEXT, Answer

TEXTS_401 = {
    "old": {"expired": "The access token expired", "invalid": "Invalid access token"},
    "new": {
        "expired": "Missing/invalid/expired access token",
        "invalid": "Missing/invalid/expired access token",
    },
}
NOT_REGISTERED = (
    "Check settings on developer.spotify.com/dashboard, the user may not be registered."
)
PREMIUM = "Active premium subscription required for the owner of the app."


def error(status, message, **more):
    return Answer(status, {"error": {"status": status, "message": message, **more}})


def unauthorized(kind, behaviours):
    answer = error(401, TEXTS_401[behaviours.api_401_text][kind])
    answer.headers["WWW-Authenticate"] = 'Bearer realm="spotify"'
    return answer


def chosen_error(behaviours):
    kind = behaviours.api_error
    if kind in ("expired", "invalid"):
        return unauthorized(kind, behaviours)
    if kind == "bad_request":
        return error(400, "Only valid bearer authentication supported")
    if kind == "not_registered":
        return error(403, NOT_REGISTERED)
    if kind == "premium":
        return Answer(403, PREMIUM.encode(), TEXT)
    answer = error(429, "API rate limit exceeded", reason="QUOTA_EXCEEDED")
    answer.headers["Retry-After"] = "30"
    return answer


def bearer(authorization):
    """The token of an Authorization header (RFC 6750 2.1), or None."""
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" and token and " " not in token else None


def answer(call, state, behaviours):
    if behaviours.api_error:
        return chosen_error(behaviours)
    if call.authorization is None:
        return unauthorized("invalid", behaviours)
    value = bearer(call.authorization)
    if value is None:
        return error(400, "Only valid bearer authentication supported")
    token = state.access_tokens.get(value)
    if token is None:
        return unauthorized("invalid", behaviours)
    if token.expires_at <= state.now():
        return unauthorized("expired", behaviours)
    allowed = behaviours.api_allowed_users
    if allowed is not None and token.user and token.user.name not in allowed:
        return error(403, NOT_REGISTERED)
    if call.path == "/v1/me":
        return me(call, token, behaviours)
    return Answer(200, {
        "simulated": True, "method": call.method, "path": call.path, "query": dict(call.query),
        "client": token.client_id, "user": token.user.name if token.user else None,
        "body": call.body.decode(errors="replace"),
    })


def me(call, token, behaviours):
    if call.method not in ("GET", "HEAD"):
        return error(405, "Method not allowed")
    if token.user is None:
        return error(401, "Unauthorized.")
    return Answer(200, profile(token.user, token.scope.split(), behaviours), JSON)


def profile(user, scopes, behaviours):
    fields = {
        "display_name": user.display_name,
        "external_urls": {"spotify": f"https://open.spotify.com/user/{user.name}"},
        "href": f"https://api.spotify.com/v1/users/{user.name}",
        "id": user.name,
        "images": [
            {"url": f"https://i.scdn.co/image/{user.account_id}{size}", "height": size,
             "width": size}
            for size in (300, 64)
        ],
        "type": "user",
        "uri": f"spotify:user:{user.name}",
        "followers": {"href": None, "total": 3},
    }
    if behaviours.account_id:
        fields["account_id"] = user.account_id
    if "user-read-private" in scopes:
        fields.update(
            country=user.country, product=user.product,
            explicit_content={"filter_enabled": False, "filter_locked": False},
        )
    if "user-read-email" in scopes:
        fields["email"] = user.email
    for name in ("product", "display_name"):
        put_text(fields, name, getattr(behaviours, name))
    put_images(fields, behaviours.images)
    fields.update(behaviours.me_fields or {})
    return fields


def put_text(fields, name, value):
    if value == "missing":
        fields.pop(name, None)
    elif value is not None:
        fields[name] = None if value == "null" else value


def put_images(fields, kind):
    if kind == "missing":
        del fields["images"]
    elif kind != "normal":
        hostile = [{"url": "javascript:alert(1)//\"><script>", "height": None, "width": "x"}]
        fields["images"] = {"empty": [], "null": None, "hostile": hostile}[kind]
