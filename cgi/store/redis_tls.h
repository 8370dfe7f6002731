/* TLS to Redis, where hiredis has it: from version 1.0 on, by OpenSSL. A certificate counts only if
 * it is good for the very name or address that we connect to (RFC 9525), which hiredis does not
 * check; nothing turns that off. TLS 1.2 at least. */
#ifndef STORE_REDIS_TLS_H
#define STORE_REDIS_TLS_H

#include <hiredis/async.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/settings.h"

struct redis_tls;

/* Write to problems, as settings_load does, that this build has no TLS where REDIS_URL asks for it;
 * and, where settings are sound each by itself, what the files for it have wrong. Returns how many
 * lines. */
int redis_tls_check(const struct settings *settings, bool are_sound, FILE *problems);

/* What all connections of one process share; owned by the caller. Reads the files, blocking. With
 * files that redis_tls_check complains of, no connection will come about. */
struct redis_tls *redis_tls_new(const struct settings *settings);
void redis_tls_free(struct redis_tls *tls);

/* Begin TLS on a fresh context that is connecting to host, a name or an address without brackets;
 * the handshake goes on as the context is driven. When it fails at once, the context has err. */
void redis_tls_begin(struct redis_tls *tls, redisAsyncContext *context, const char *host);

/* Before hiredis reads or writes: OpenSSL keeps errors until somebody looks, and takes an old one,
 * of a call to Spotify, for one of this connection's. */
void redis_tls_forget_errors(void);

/* Why a context that has just failed did so, if it is for TLS: a sentence for the log, valid until
 * the next call; NULL: for another reason. has_answered: Redis has answered a command over it. */
const char *redis_tls_failure(const redisAsyncContext *context, bool has_answered);

/* Whether the context is one with TLS. */
bool redis_tls_is_on(const redisAsyncContext *context);

/* Whether a context with TLS has bytes of an answer to be read, as opposed to TLS's own messages.
 */
bool redis_tls_has_answer(const redisAsyncContext *context);

#endif
