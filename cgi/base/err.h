/* Every way in which something can fail, and what the caller of the service is told about it. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err {
    OK = 0,

    /* What the client asked for cannot be done. */
    ERR_INVALID_REQUEST,    /* RFC 6749 4.1.2.1: missing, repeated or malformed parameter */
    ERR_INVALID_SCOPE,      /* a scope outside SPOTIFY_SCOPE_ALLOWED */
    ERR_INVALID_GRANT,      /* a code or a handle that is not good (RFC 6749 5.2) */
    ERR_INVALID_STATE,      /* state unknown, expired or another browser's (RFC 6749 10.12) */
    ERR_FORBIDDEN,          /* cross-site rule, framed or fetched login, prefetch */
    ERR_NOT_FOUND,          /* no such route */
    ERR_METHOD,             /* route has no such method */
    ERR_MEDIA_TYPE,         /* a body that is not a form */
    ERR_TOO_LARGE,          /* a body or parameter past its limit */
    ERR_INSUFFICIENT_SCOPE, /* the session was not granted that scope (RFC 6750 3.1) */
    ERR_UNALLOWED_SCOPE,    /* nor can a login ask for it */
    ERR_INVALID_CLIENT,     /* no service client, or one that does not prove it (RFC 6749 5.2) */
    ERR_GRANT_TYPE,         /* a grant_type that is not offered (RFC 6749 5.2) */

    /* What a device is told (RFC 8628 3.5). */
    ERR_PENDING,   /* nobody has entered its code yet */
    ERR_SLOW_DOWN, /* asked too soon, or too often */
    ERR_DENIED,    /* somebody said no */
    ERR_EXPIRED,   /* its codes have expired */

    /* What became of a session. Only ERR_ABSENT clears the cookie (API.md 4.5). */
    ERR_NO_COOKIE, /* no session cookie came: a Strict one stays at home on a cross-site request */
    ERR_ABSENT,    /* there is no such session */
    ERR_REPLACED,  /* ended by a newer login of the same browser: its new cookie must stay */
    ERR_SUSPECT,   /* Spotify refused it once; kept, in case the refusal was false (API.md 4.6) */

    /* Nobody's fault; the same request may succeed later: 503 with Retry-After. */
    ERR_STORE,         /* Redis not reached, too slow or failing */
    ERR_UNREADABLE,    /* Redis has the record, and it does not open in this process */
    ERR_UPSTREAM,      /* no usable answer from Spotify */
    ERR_UPSTREAM_BUSY, /* UPSTREAM_MAX_IN_FLIGHT calls are under way in this worker */
    ERR_MISCONFIGURED, /* Spotify refuses our credentials (invalid_client): an operator must act */
    ERR_DRAINING,      /* the service is about to end */

    /* Answers between modules; a handler turns them into one of the above. */
    ERR_REFUSED,  /* Spotify answered invalid_grant about this token or code */
    ERR_REJECTED, /* Spotify answered invalid_request: what it was given does not fit */
    ERR_HELD,     /* somebody else holds the lease */
    ERR_STALE,    /* somebody else wrote since */
    ERR_USED,     /* this state was taken before */
    ERR_SEAL,     /* a sealed record that does not open */
    ERR_SEAL_KEY, /* a sealed record under a key that is not in SESSION_KEYS */
    ERR_FORMAT,   /* foreign text that does not parse */

    ERR__MAX
};

/* The HTTP status for err: 0 for OK, 500 for those that should never leave the service. */
int err_status(enum err err);

/* The OAuth error word ("invalid_request"): never NULL, static. */
const char *err_word(enum err err);

/* One sentence for error_description, in the characters RFC 6749 5.2 allows: never NULL, static. */
const char *err_text(enum err err);

/* A name for the log: "absent", "upstream", ...: never NULL, static. */
const char *err_name(enum err err);

#endif
