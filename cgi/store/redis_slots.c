/* Arithmetic and parsing only. A node that does not know its own host, or shall not tell it, gives
 * an empty one, "?" or nil: then it is the host that was asked. */
#include "store/redis_slots.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CRC16_POLYNOMIAL 0x1021 /* XMODEM */
#define PORT_MAX 65535

/* Commands that no slot is looked up for. */
static const char *const keyless[] = {"ASKING", "CLIENT", "CLUSTER", "CONFIG", "INFO",
                                      "PING",   "ROLE",   "SCRIPT",  "TIME"};

static uint16_t crc16(const uint8_t *bytes, size_t len)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc = (uint16_t)(crc ^ bytes[i] << 8);
        for (int bit = 0; bit < 8; bit++) {
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ CRC16_POLYNOMIAL : crc << 1);
        }
    }
    return crc;
}

int redis_slot_of_key(const void *key, size_t len)
{
    const char *bytes = key;
    const char *open = memchr(bytes, '{', len);
    if (open) {
        const char *tag = open + 1;
        const char *close = memchr(tag, '}', (size_t)(bytes + len - tag));
        if (close && close > tag) {
            bytes = tag;
            len = (size_t)(close - tag);
        }
    }
    return crc16((const uint8_t *)bytes, len) % REDIS_SLOTS;
}

static bool is_word(const struct redis_arg *arg, const char *word)
{
    return arg->len == strlen(word) && memcmp(arg->bytes, word, arg->len) == 0;
}

int redis_slot_of_command(const struct redis_arg *args, size_t count)
{
    size_t key = 1;
    if (is_word(&args[0], "EVAL") || is_word(&args[0], "EVALSHA")) {
        key = count > 3 && !is_word(&args[2], "0") ? 3 : count;
    }
    for (size_t i = 0; i < sizeof(keyless) / sizeof(keyless[0]); i++) {
        if (is_word(&args[0], keyless[i])) {
            return -1;
        }
    }
    return key < count ? redis_slot_of_key(args[key].bytes, args[key].len) : -1;
}

void redis_map_clear(struct redis_map *map)
{
    free(map->items);
    *map = (struct redis_map){0};
}

static bool is_slot(int64_t number)
{
    return number >= 0 && number < REDIS_SLOTS;
}

static enum err make_place(const char *host, size_t len, int64_t port, const char *from,
                           struct redis_place *out)
{
    if (len == 0 || (len == 1 && *host == '?')) {
        host = from;
        len = strlen(from);
    }
    if (len >= sizeof(out->host) || memchr(host, '\0', len) || port < 1 || port > PORT_MAX) {
        return ERR_FORMAT;
    }
    memcpy(out->host, host, len);
    out->host[len] = '\0';
    out->port = (int)port;
    return OK;
}

enum err redis_place_read(const struct buf *host, int64_t port, const char *from,
                          struct redis_place *out)
{
    return make_place(buf_str(host), host->len, port, from, out);
}

/* First slot, last slot, master [, replicas]; a node is host, port [, more]. */
static enum err read_range(const struct redis_value *entry, const char *from,
                           struct redis_range *out)
{
    if (entry->type != REDIS_IS_ARRAY || entry->item_count < 3 ||
        entry->items[0].type != REDIS_IS_INTEGER || entry->items[1].type != REDIS_IS_INTEGER ||
        !is_slot(entry->items[0].integer) || !is_slot(entry->items[1].integer) ||
        entry->items[0].integer > entry->items[1].integer) {
        return ERR_FORMAT;
    }
    const struct redis_value *node = &entry->items[2];
    if (node->type != REDIS_IS_ARRAY || node->item_count < 2 ||
        node->items[1].type != REDIS_IS_INTEGER) {
        return ERR_FORMAT;
    }
    out->first = (int)entry->items[0].integer;
    out->last = (int)entry->items[1].integer;
    return redis_place_read(&node->items[0].text, node->items[1].integer, from, &out->owner);
}

enum err redis_map_read(const struct redis_value *reply, const char *from, struct redis_map *out)
{
    *out = (struct redis_map){0};
    if (reply->type != REDIS_IS_ARRAY || reply->item_count == 0 ||
        reply->item_count > REDIS_SLOTS) {
        return ERR_FORMAT;
    }
    int left = REDIS_SLOTS;
    out->items = xcalloc(reply->item_count, sizeof(*out->items));
    for (; out->count < reply->item_count; out->count++) {
        struct redis_range *range = &out->items[out->count];
        enum err err = read_range(&reply->items[out->count], from, range);
        left -= range->last - range->first + 1;
        if (err || left < 0) {
            redis_map_clear(out);
            return ERR_FORMAT;
        }
    }
    return OK;
}

enum err redis_redirect_parse(const char *error, const char *from, int *slot,
                              struct redis_place *out)
{
    const char *place = strrchr(error, ' ');
    const char *colon = strrchr(error, ':'); /* an IPv6 address has others before it */
    char *end = NULL;
    const char *word_end = strchr(error, ' ');
    long number = word_end ? strtol(word_end + 1, &end, 10) : -1;
    if (!place || !colon || colon < place || end != place || end == word_end + 1 ||
        !is_slot(number)) {
        return ERR_FORMAT;
    }
    long port = strtol(colon + 1, &end, 10);
    if (*end != '\0') {
        return ERR_FORMAT;
    }
    enum err err = make_place(place + 1, (size_t)(colon - place - 1), port, from, out);
    if (!err) {
        *slot = (int)number;
    }
    return err;
}
