/* Replies of Redis as hiredis hands them out: copied into our own values, or logged. */
#ifndef STORE_REDIS_REPLY_H
#define STORE_REDIS_REPLY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>

#include "store/redis.h"

/* Copy reply into out. False when it is or holds an error, or a type that RESP2 does not have;
 * there is nothing to clear then. */
bool redis_reply_copy(const redisReply *reply, struct redis_value *out);

/* Whether reply is an error whose first word is word ("NOSCRIPT"). */
bool redis_reply_is_error(const redisReply *reply, const char *word);

/* Log an error reply to command (its name) by its first word, at most once a second for each word:
 * the rest of the text may quote arguments. */
void redis_reply_log_error(const redisReply *reply, const char *command);

#endif
