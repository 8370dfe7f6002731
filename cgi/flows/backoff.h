/* Spotify's Retry-After, kept by all workers: nobody calls its token endpoint before that time. */
#ifndef FLOWS_BACKOFF_H
#define FLOWS_BACKOFF_H

#include "flows/service.h"

/* An absurd Retry-After is capped: 11,742 s have been seen (contract A.9). */
#define BACKOFF_MAX_S 900

/* OK, or ERR_UPSTREAM with the seconds left in *retry_after_s. Redis away counts as OK: then
 * Spotify itself will say it again. */
enum err backoff_check(struct service *service, int64_t *retry_after_s);

/* Take note of a Retry-After in seconds; -1, none, does nothing. The seconds that it is kept: what
 * callers may be told. */
int64_t backoff_note(struct service *service, int64_t retry_after_s);

#endif
