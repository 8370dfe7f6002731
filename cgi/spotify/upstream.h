/* One HTTPS call to Spotify: one curl_multi per worker, keep-alive, TLS verified, no redirects
 * followed, no proxy, body capped, a deadline on every call, a log line for each. */
#ifndef SPOTIFY_UPSTREAM_H
#define SPOTIFY_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/settings.h"

#define UPSTREAM_BODY_MAX 65536

struct upstream;

/* Owned by the caller; settings is borrowed for its life. */
struct upstream *upstream_new(uv_loop_t *loop, const struct settings *settings);

/* Calls in flight end with ERR_UPSTREAM, from the loop: it must run until their fibers have
 * returned and its handles are closed. */
void upstream_free(struct upstream *upstream);

struct upstream_call {
    const char *name; /* for the log: "token code", "token refresh", "token app", "profile" */
    const char *url;  /* whole; never logged */
    const struct buf
        *form;        /* NULL: GET. Else POST of this application/x-www-form-urlencoded body */
    const char *user; /* Basic authentication (RFC 6749 2.3.1), with password; NULL: none */
    const char *password;
    const char *bearer; /* access token (RFC 6750 2.1); NULL: none */
    int64_t timeout_ms; /* of the whole call, at least 1 */
    bool is_alone;      /* on a new connection that no other call shares */
};

struct upstream_answer {
    int status;
    struct buf body;       /* at most UPSTREAM_BODY_MAX */
    int64_t retry_after_s; /* Retry-After as seconds from now (a date is converted); -1: none */
    bool is_unsent; /* with ERR_UPSTREAM: no address, connection or TLS, so nothing was sent */
    bool
        is_withheld; /* with ERR_UPSTREAM: this process stood still until it was too late to send */
};

/* Make the call and wait. A POST is sent once at most: a code or refresh token may be spent by a
 * request whose answer was lost (RFC 9110 9.2.2). OK: a complete HTTP answer of any status.
 * What arrived before the deadline counts, though this process may come to read it later; one that
 * stood still waits a little longer.
 * ERR_UPSTREAM: no connection, TLS refused, deadline, cut, over the cap. ERR_UPSTREAM_BUSY: too
 * many in flight, nothing was sent. Only inside a fiber. *answer is overwritten and then cleared by
 * the caller in every case (upstream_answer_clear wipes it). */
enum err upstream_call(struct upstream *upstream, const struct upstream_call *call,
                       struct upstream_answer *answer);
void upstream_answer_clear(struct upstream_answer *answer);

#endif
