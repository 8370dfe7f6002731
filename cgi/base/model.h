/* The plain data that the layers hand to each other. Every string is owned by its struct and may be
 * NULL where a comment says so; *_clear wipes and frees, and leaves an all-zero struct. */
#ifndef BASE_MODEL_H
#define BASE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/seal.h"

/* Longest of each that is taken from Spotify; more is an error, never cut (contract A.4, A.6). */
#define TOKEN_MAX 8192
#define CODE_MAX 4096
#define SCOPE_MAX 2048
#define PROFILE_TEXT_MAX 1024
#define RETURN_TO_MAX 2048
#define AGENT_MAX 64

/* What Spotify tells about a user (GET /v1/me). Each NULL where Spotify gave none. */
struct profile {
    char *id;
    char *account_id;
    char *display_name;
    char *image_url;
    char *product;
};

/* A good answer of the token endpoint (RFC 6749 5.1). */
struct tokens {
    char *access_token;
    char *refresh_token; /* NULL: omitted or empty, keep the old one (contract A.7) */
    char *scope;         /* NULL: not said, as asked */
    int64_t expires_in;  /* seconds */
};

/* A login under way: what /callback needs to know of /authorize. */
struct login {
    char *verifier; /* NULL: without PKCE */
    char *scope;    /* asked for */
    char *return_to;
    char previous[SECRET_NAME_LEN + 1]; /* name of the session the browser had, or "" */
    int64_t started_at;                 /* unix seconds */
    char device[SECRET_NAME_LEN + 1];   /* name of the device that it is for, or "" */
};

/* A device that waits for a login (RFC 8628), as the page that connects it needs it. */
struct device {
    char name[SECRET_NAME_LEN + 1]; /* of its boxes (seal_box.h) */
    char *scope;                    /* asked for */
};

/* How a login ended, kept for a browser that delivers the same callback again. */
struct login_outcome {
    char *location;        /* where the browser was sent */
    bool has_session;      /* session is set: the login was good */
    struct secret session; /* the cookie that was given */
    int64_t ended_at;      /* unix seconds; 0: still under way */
    int64_t age_ms;        /* since the login was taken; not stored */
};

/* A session as it stands in its sealed record. */
struct session {
    uint64_t generation; /* counts writes of new tokens; fences late writers */
    char *access_token;
    char *refresh_token;
    char *scope;              /* granted */
    int64_t expires_at;       /* of the access token, unix seconds */
    int64_t obtained_at;      /* when that token came */
    int64_t authorized_at;    /* when the user agreed */
    int64_t suspect_since;    /* 0, or when Spotify first refused it (API.md 4.6) */
    int64_t suspect_tried_at; /* the last refusal */
    char *agent;              /* what logged in, like "Firefox on Linux"; NULL: unknown */
    struct profile profile;
};

/* The app's own token (RFC 6749 4.4), as it stands in its sealed record. All zero: none. */
struct app_token {
    char *access_token;
    int64_t obtained_at_ms; /* unix ms; tells one token from the next */
    int64_t expires_at;     /* unix seconds */
};

/* What a user's other sessions may know of one: an entry of the user's list. */
struct listing {
    int64_t begun_at; /* unix seconds */
    int64_t used_at;
    char *agent; /* as in the session */
};

void profile_clear(struct profile *profile);
void tokens_clear(struct tokens *tokens);
void login_clear(struct login *login);
void device_clear(struct device *device);
void login_outcome_clear(struct login_outcome *outcome);
void session_clear(struct session *session);
void app_token_clear(struct app_token *token);
void listing_clear(struct listing *listing);

/* Deep copy; out is overwritten, not cleared. */
void session_copy(const struct session *from, struct session *out);

/* Take a good answer into the session: the one place that decides about refresh tokens. A refresh
 * token is replaced only by a non-empty new one, and so is a scope; suspicion ends; the
 * generation rises. now is unix seconds. */
void session_take_tokens(struct session *session, const struct tokens *tokens, int64_t now);

#endif
