/* Replies of Redis as hiredis hands them out, copied into our own values. */
#ifndef STORE_REDIS_REPLY_H
#define STORE_REDIS_REPLY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>

#include "store/redis_command.h"

/* Copy reply into out. False when it is or holds an error, or a type that RESP2 does not have;
 * there is nothing to clear then. */
bool redis_reply_copy(const redisReply *reply, struct redis_value *out);

#endif
