"""Simulated Spotify: the accounts service and the Web API on one origin, for tests and `make run`.

    python3 -m spotify --listen 127.0.0.1:0        prints "ready http://127.0.0.1:PORT"

It refuses what Spotify refuses, and says so in Spotify's words. Tests start it with
`control.Spotify.start()`; a person sees a page where one chooses a user and agrees or cancels.

Files: `server.py` takes requests, `accounts.py` is /authorize and /api/token, `web_api.py` is /v1,
`pages.py` the HTML, `state.py` clients, users, codes and tokens, `journal.py` the request log, the
counters and the secrets, `behaviour.py` what is switched on, `delivery.py` how an answer is spoilt
and sent, `control_api.py` is /_control/, `control.py` the client of that, `certificates.py` makes
certificates for TLS tests.


Control API (JSON; a wrong name or value is refused with 400 and a text)

POST /_control/behaviour  {"set": {NAME: VALUE}} merges; a null value goes back to the default.
                          "endpoint" ("authorize", "token", "api"), "client" (id) and "grant"
                          (grant_type) narrow it. "next": N makes it hold for the next N matching
                          requests only; such rules queue up, a request uses the oldest that fits.
GET  /_control/behaviour  {"defaults", "layers", "pending"}
POST /_control/reset      {"only": [PART]}; parts: behaviour, log, counters, grants, clock, hanging
                          (these six without "only"), secrets, clients, users
GET  /_control/log        {"log": [...]}, oldest first; ?endpoint= and ?since=NUMBER narrow it
                          Entries: number, at, endpoint, method, path, query, headers, form, client,
                          grant, status (null under way; "reset", "closed", "gone" without one);
                          endpoint is also "decision" (the page's form), "elsewhere", "other"
GET  /_control/counters   calls per endpoint, per grant type, per code, per refresh token, per
                          endpoint and status; requests hanging; connections open
GET  /_control/secrets    {KIND: [VALUE]}: client_secret, basic, code, state, code_verifier,
                          access_token, refresh_token
POST /_control/clients    {"id", "secret", "redirect_uris"}; a null secret makes a public client
GET  /_control/clients    the registered clients
POST /_control/users      {"name", and any of "display_name", "email", "product", "country"}
GET  /_control/grants     living grants: user, client, scope, authorized_at, refresh_token
POST /_control/revoke     {"user", "client"}, both optional: their refresh tokens die, as when a
                          person removes the app; "access_tokens": true kills those too
POST /_control/clock      {"offset": SECONDS} or {"advance": SECONDS}
POST /_control/release    lets every hanging request go on
POST /_control/limits     {"log": N, "secrets": N}: how many are kept


Behaviours of /authorize

auto_approve          user name: redirects at once, without a page (default null)
remember_consent      true: no page for a browser whose user agreed to these scopes before, unless
                      show_dialog=true (default false)
known_scopes_only     false: accepts scopes that Spotify does not have (default true)
pkce_required         true: refuses a request without code_challenge (default false; public clients
                      always need one)
code_ttl              seconds that a code lives (default 600)
code_length           characters of a code (default 194)
callback_order        "code_first" or "state_first"
callback_error        this `error` instead of a code ("access_denied", "server_error", ...)
callback_code         "normal", "missing", "empty" or "wrong" (never issued)
callback_state        "same", "missing", "empty" or "changed"
callback_iss          null, "right" (this origin), "wrong", or the value itself
callback_duplicate    "code", "state", "error" or "iss": sent twice, the second with another value
callback_code_and_error  true: `error=access_denied` besides the code
callback_extra        object of further parameters

Behaviours of /api/token

body_credentials      true: takes client_secret from the form (default false: invalid_client)
invalid_client_status 400 or 401 (then with WWW-Authenticate)
invalid_client_text   false: invalid_client without error_description (default true)
verifier_unasked      a verifier for a code without challenge: "refuse" (default) or "ignore"
code_refusal          refuses every code: "invalid", "expired", "redirect", "verifier"
code_reuse_revokes    true: a second use of a code kills the grant it gave (default false)
refresh_refusal       refuses every refresh token, and leaves it alive: "invalid", "revoked",
                      "expired", "no_text"
token_error           any other `error` word; token_error_text and token_error_status go with it
token_error_text      error_description for token_error, or null for none
token_error_status    HTTP status for token_error (default 400)
rotation              refresh answers: "omit" (default), "new" (the old one dies), "new_keep_old",
                      "same", "empty", "null"
kill_grant_on_reuse   true: a rotated refresh token that comes again kills its grant
refresh_token_ttl     seconds from the authorization to the refresh token's death (15552000)
refresh_token         code answers: "normal", "missing", "empty", "null", "number"
refresh_token_length  characters of a refresh token (default 131)
access_token          "normal", "missing", "empty", "null", "number", "object"
access_token_length   characters of an access token (default 266)
access_token_lifetime seconds it really works at /v1 (default: expires_in if that is positive)
expires_in            any JSON value: 3600, "3600", 0, -1, 1e99, ...; "missing" and "null"
token_type            any text; "missing" and "null"
scope                 "as_asked", "reduced" (without the last), "empty", "missing", "null", or the
                      text itself

Behaviours of /v1

api_error             "expired", "invalid" (401), "bad_request" (400), "not_registered" (403),
                      "premium" (403, plain text), "quota" (429 with QUOTA_EXCEEDED)
api_401_text          "new" (since July 2026) or "old"
api_allowed_users     list of user names; all others get the 403 "not_registered"
account_id            false: /v1/me without account_id (default true)
product               text instead of the user's own; "missing"
images                "empty" (default: a browser asks nobody else), "normal" (at Spotify's own host),
                      "missing", "null", "hostile" (a javascript: URL)
display_name          text instead of the user's own; "missing", "null"
me_fields             object laid over the answer of /v1/me
playing               what /v1/me/player/currently-playing finds: "track", "paused", "advertisement", "nothing"

Behaviours of any answer (without "endpoint" they hold for /api/token and /v1, not for pages)

status                answers this status; the request is not carried out
status_body           "default" (429 JSON, 500 HTML, others text), "json", "text", "html", "empty"
process               true: the request is carried out, then `status` is answered all the same
retry_after           Retry-After: number, "date", "huge", or the text itself
location              Location of a 3xx `status` (default: /elsewhere here, which gives a token)
latency               seconds before the request is carried out
answer_delay          seconds between carrying it out and answering
slow_headers          seconds over which the header is spread, in small pieces
slow_body             seconds over which the body is spread, in small pieces
hang                  "before" (not carried out), "after", "headers" (half of them), "body" (half):
                      waits there for /_control/release or the end of the connection
reset                 TCP RST: "before", "after", "headers", "body"
early_close           clean close: "before", "after", "headers", "body"
chunked               true: chunked transfer coding
content_length        "short", "long", "missing", "negative", "text", "two" or the value itself
garbage               true: bytes that are not HTTP
interim               true: a 103 answer comes first
connection_close      true: Connection: close
body_size             the body is filled up to so many bytes
header_size           a header of so many bytes is added
extra_headers         object of further headers
content_type          Content-Type instead of the right one
extra_fields          object of further JSON fields
json_shape            "duplicate_keys", "deep_nesting", "truncated", "trailing_garbage", "array",
                      "string", "null", "number", "empty", "not_json", "html", "bom"
poison                puts into a string: "nul", "raw_nul", "invalid_utf8", "control",
                      "raw_control", "newline", "lone_surrogate", "unicode", "quote"
poison_field          which field (default "access_token" at /api/token, "display_name" at /v1)
"""
