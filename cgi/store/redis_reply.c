/* Replies outlive the hiredis callback that brings them only as copies. Error replies are foreign
 * text that may quote a command's arguments, so that nothing but their first word is shown. */
#include "store/redis_reply.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define WORD_MAX 24
#define WORDS_REMEMBERED 8
#define LOG_PAUSE_MS 1000

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

bool redis_reply_is_error(const redisReply *reply, const char *word)
{
    size_t len = strlen(word);
    return reply->type == REDIS_REPLY_ERROR && (size_t)reply->len >= len &&
           memcmp(reply->str, word, len) == 0 &&
           ((size_t)reply->len == len || reply->str[len] == ' ');
}

/* True when word was not logged within the last second; the word seen longest ago is forgotten. */
static bool may_log(const char *word)
{
    static struct {
        char word[WORD_MAX];
        uint64_t logged_ms;
    } seen[WORDS_REMEMBERED];
    uint64_t now_ms = clock_mono_ms();
    size_t slot = 0;
    for (size_t i = 0; i < WORDS_REMEMBERED; i++) {
        if (strcmp(seen[i].word, word) == 0) {
            slot = i;
            break;
        }
        if (seen[i].logged_ms < seen[slot].logged_ms) {
            slot = i;
        }
    }
    if (strcmp(seen[slot].word, word) == 0 && now_ms - seen[slot].logged_ms < LOG_PAUSE_MS) {
        return false;
    }
    memcpy(seen[slot].word, word, WORD_MAX);
    seen[slot].logged_ms = now_ms;
    return true;
}

void redis_reply_log_error(const redisReply *reply, const char *command)
{
    char word[WORD_MAX] = "type";
    if (reply->type == REDIS_REPLY_ERROR) {
        size_t len = strcspn(reply->str, " \r\n");
        len = len < WORD_MAX ? len : WORD_MAX - 1;
        memset(word, 0, sizeof(word));
        memcpy(word, reply->str, len);
    }
    const char *shown = word;
    if (may_log(word)) {
        log_error("redis refused", LOG_TEXT("command", command), LOG_TEXT("error", shown));
    }
}
