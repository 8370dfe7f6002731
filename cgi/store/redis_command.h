/* The shapes of a command and of its reply, for all who have to do with Redis. */
#ifndef STORE_REDIS_COMMAND_H
#define STORE_REDIS_COMMAND_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"

/* A reply, copied out of hiredis. */
enum redis_type { REDIS_IS_NIL, REDIS_IS_STRING, REDIS_IS_INTEGER, REDIS_IS_ARRAY };
struct redis_value {
    enum redis_type type;
    int64_t integer;
    struct buf text;           /* string or status */
    struct redis_value *items; /* owned */
    size_t item_count;
};
void redis_value_clear(struct redis_value *value);

/* One argument of a command: any bytes. A command has at most REDIS_ARGS_MAX. */
#define REDIS_ARGS_MAX 80
struct redis_arg {
    const void *bytes;
    size_t len;
};
#define REDIS_TEXT(s) ((struct redis_arg){(s), strlen(s)})
#define REDIS_BUF(b) ((struct redis_arg){(b)->data ? (b)->data : "", (b)->len})

#endif
