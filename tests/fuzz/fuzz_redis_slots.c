/* What nodes of a Cluster say: redirections as they are, and replies to CLUSTER SLOTS as hiredis
 * would hand them over, made up from the bytes. What is taken must be in its bounds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis_slots.h"

#define DEPTH_MAX 4
#define FROM "asked.example"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
    const uint8_t *at;
    size_t left;
};

static void check(int truth)
{
    if (!truth) {
        abort();
    }
}

static uint8_t take(struct bytes *bytes)
{
    if (bytes->left == 0) {
        return 0;
    }
    bytes->left--;
    return *bytes->at++;
}

static struct redis_value take_value(struct bytes *bytes, int depth)
{
    struct redis_value value = {0};
    uint8_t first = take(bytes);
    size_t len = first / 4;
    value.type = (enum redis_type)(first % 4);
    if (value.type == REDIS_IS_INTEGER) {
        value.integer = take(bytes) << 8;
        value.integer += take(bytes) - (len % 2 ? 256 : 0);
    } else if (value.type == REDIS_IS_STRING) {
        for (size_t i = 0; i < len; i++) {
            buf_addc(&value.text, (char)take(bytes));
        }
    } else if (value.type == REDIS_IS_ARRAY && depth < DEPTH_MAX) {
        value.items = xcalloc(len + 1, sizeof(*value.items));
        for (; value.item_count < len && bytes->left > 0; value.item_count++) {
            value.items[value.item_count] = take_value(bytes, depth + 1);
        }
    }
    return value;
}

static void check_place(const struct redis_place *place)
{
    check(memchr(place->host, '\0', sizeof(place->host)) != NULL && place->host[0] != '\0');
    check(place->port >= 1 && place->port <= 65535);
}

static void check_map(const uint8_t *data, size_t size)
{
    struct bytes bytes = {data, size};
    struct redis_value reply = take_value(&bytes, 0);
    struct redis_map map;
    if (redis_map_read(&reply, FROM, &map) == OK) {
        check(map.count > 0);
        for (size_t i = 0; i < map.count; i++) {
            check(map.items[i].first >= 0 && map.items[i].first <= map.items[i].last);
            check(map.items[i].last < REDIS_SLOTS);
            check_place(&map.items[i].owner);
        }
    } else {
        check(map.count == 0 && map.items == NULL);
    }
    redis_map_clear(&map);
    redis_value_clear(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct redis_place place;
    struct buf error = {0};
    int slot = -1;
    buf_add(&error, data, size);
    if (redis_redirect_parse(buf_str(&error), FROM, &slot, &place) == OK) {
        check(slot >= 0 && slot < REDIS_SLOTS);
        check_place(&place);
    } else {
        check(slot == -1);
    }
    slot = redis_slot_of_key(data, size);
    check(slot >= 0 && slot < REDIS_SLOTS);
    check_map(data, size);
    buf_clear(&error);
    return 0;
}
