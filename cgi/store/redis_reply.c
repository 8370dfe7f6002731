/* Replies outlive the hiredis callback that brings them only as copies. */
#include "store/redis_reply.h"

#include <stdlib.h>

void redis_value_clear(struct redis_value *value)
{
    for (size_t i = 0; i < value->item_count; i++) {
        redis_value_clear(&value->items[i]);
    }
    free(value->items);
    buf_clear(&value->text);
    *value = (struct redis_value){0};
}

static bool copy_array(const redisReply *reply, struct redis_value *out)
{
    size_t count = (size_t)reply->elements;
    out->type = REDIS_IS_ARRAY;
    out->items = xcalloc(count ? count : 1, sizeof(*out->items));
    for (size_t i = 0; i < count; i++) {
        if (!redis_reply_copy(reply->element[i], &out->items[i])) {
            redis_value_clear(out);
            return false;
        }
        out->item_count = i + 1;
    }
    return true;
}

bool redis_reply_copy(const redisReply *reply, struct redis_value *out)
{
    *out = (struct redis_value){0};
    switch (reply->type) {
    case REDIS_REPLY_NIL:
        out->type = REDIS_IS_NIL;
        return true;
    case REDIS_REPLY_INTEGER:
        out->type = REDIS_IS_INTEGER;
        out->integer = reply->integer;
        return true;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        out->type = REDIS_IS_STRING;
        buf_add(&out->text, reply->str, (size_t)reply->len);
        return true;
    case REDIS_REPLY_ARRAY:
        return copy_array(reply, out);
    default:
        return false;
    }
}
