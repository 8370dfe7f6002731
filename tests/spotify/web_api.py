"""The Web API: a few endpoints that read, and an echo for every other path that the Web API may have,
for tests of proxies. Each looks at the token, the method and the scope as Spotify does."""

import datetime
import re
import time

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
    for pattern, work, scope in ENDPOINTS:
        if re.fullmatch(pattern, call.path):
            return endpoint(work, scope, call, token, behaviours)
    if not re.fullmatch(ELSEWHERE, call.path):
        return error(404, "Service not found")
    return Answer(200, {
        "simulated": True, "method": call.method, "path": call.path, "query": dict(call.query),
        "client": token.client_id, "user": token.user.name if token.user else None,
        "body": call.body.decode(errors="replace"),
    })


def endpoint(work, scope, call, token, behaviours):
    """scope: None for what the app's own token may read, too; else what the user has to have
    granted ("": nothing in particular)."""
    if call.method not in ("GET", "HEAD"):
        return error(405, "Method not allowed")
    if scope is not None and token.user is None:
        return error(401, "Unauthorized.")
    if scope and scope not in token.scope.split():
        return error(403, "Insufficient client scope")
    return work(call, token, behaviours)


def me(_call, token, behaviours):
    return Answer(200, profile(token.user, token.scope.split(), behaviours), JSON)


def page_of(items, call):
    return {"href": f"https://api.spotify.com{call.path}", "items": items, "limit": 20, "next": None,
            "total": len(items)}


# What everybody hears, one after the other and round again: name, artist, album, seconds
TRACKS = (
    ("Loopback", "The Public Clients", "One Two Seven", 214),
    ("State of Mine", "Nonce", "Used Once", 187),
    ("Bearer of Good News", "Authorization Header", "Six Seven Fifty", 243),
    ("Redirect Me Home", "The Callbacks", "Exact Match", 201),
    ("Refresh", "Six Months", "Until We Meet Again", 176),
    ("Proof Key", "Verifier & Challenge", "Forty-Three Characters", 229),
)
ROUND_S = sum(seconds for *_, seconds in TRACKS)


def track(index):
    name, artist, album, seconds = TRACKS[index % len(TRACKS)]
    number = f"{index % len(TRACKS):022d}"
    return {"id": number, "type": "track", "uri": f"spotify:track:{number}", "name": name,
            "artists": [{"name": artist, "type": "artist"}], "duration_ms": seconds * 1000,
            "album": {"name": album, "type": "album", "images": [{"url": f"https://i.scdn.co/image/{number}",
                                                                 "height": 640, "width": 640}]},
            "external_urls": {"spotify": f"https://open.spotify.com/track/{number}"}}


def now_playing():
    """Which track, and how many seconds of it have been played."""
    played = time.time() % ROUND_S
    for index, (*_, seconds) in enumerate(TRACKS):
        if played < seconds:
            return index, played
        played -= seconds
    return 0, 0


def playlist_of(user):
    return {"type": "playlist", "uri": f"spotify:user:{user.name}:playlist:37i9dQZF1DX4sWSpwq3LiO"}


def currently_playing(_call, token, behaviours):
    if behaviours.playing == "nothing":
        return Answer(204)
    index, seconds = now_playing()
    item = None if behaviours.playing == "advertisement" else track(index)
    return Answer(200, {"timestamp": int(time.time() * 1000), "is_playing": behaviours.playing != "paused",
                        "progress_ms": int(seconds * 1000), "item": item, "context": playlist_of(token.user),
                        "currently_playing_type": "track" if item else "ad", "actions": {"disallows": {}}})


def recently_played(call, token, _behaviours):
    index, seconds = now_playing()
    items, ended_at = [], time.time() - seconds
    for back in range(1, 1 + min(int(call.query.get("limit", 20)), 50)):
        at = datetime.datetime.fromtimestamp(ended_at, datetime.timezone.utc)
        items.append({"track": track(index - back), "context": playlist_of(token.user),
                      "played_at": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"})
        ended_at -= items[-1]["track"]["duration_ms"] / 1000
    return Answer(200, page_of(items, call))


def playlists(call, token, _behaviours):
    owned = {"id": "37i9dQZF1DX4sWSpwq3LiO", "name": f"Playlist of {token.user.name}",
             "owner": {"id": token.user.name}, "public": False}
    return Answer(200, page_of([owned], call))


def album(call, _token, _behaviours):
    return Answer(200, {"id": call.path.rpartition("/")[2], "name": "A simulated album",
                        "album_type": "album", "total_tracks": 3})


def bad_id(_call, _token, _behaviours):
    return error(400, "Invalid base62 id")


def search(call, _token, _behaviours):
    if not call.query.get("q"):
        return error(400, "No search query")
    if call.query.get("type") not in ("album", "artist", "playlist", "track"):
        return error(400, "Bad search type field")
    found = {"id": "4aawyAB9vmqN3uQ7FjRGTy", "name": call.query["q"]}
    return Answer(200, {call.query["type"] + "s": page_of([found], call)})


# path, what answers it, the scope it takes
ENDPOINTS = (
    ("/v1/me", me, ""),
    ("/v1/me/player/currently-playing", currently_playing, "user-read-currently-playing"),
    ("/v1/me/player/recently-played", recently_played, "user-read-recently-played"),
    ("/v1/me/playlists", playlists, "playlist-read-private"),
    ("/v1/albums/[0-9A-Za-z]{22}", album, None),
    ("/v1/albums/[^/]+", bad_id, None),
    ("/v1/search", search, None),
)
# What else there is, by its first word.
ELSEWHERE = ("/v1/(albums|artists|audio-analysis|audio-features|audiobooks|browse|chapters|episodes|markets|me|playlists|"
             "recommendations|shows|tracks|users)(/.*)?")


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
