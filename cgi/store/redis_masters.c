/* A table of nodes and a table of slots. Nodes keep their index for their life, and an index that
 * somebody has kept for longer leads to another node at worst, which sends the command on. */
#include "store/redis_masters.h"

#include <stdlib.h>

#include "base/log.h"

/* Pauses between attempts to connect are at most this part of a command's time: a search and
 * another master have to fit in beside one. */
#define PAUSE_PART 4
/* A node without slots is kept for so long after it was last asked: slots are on their way to it.
 */
#define ASKED_MS 60000

static int find_place(const struct redis_masters *masters, const struct redis_place *place)
{
    for (int i = 0; i < REDIS_NODES_MAX; i++) {
        if (masters->nodes[i] && redis_place_equal(&masters->nodes[i]->place, place)) {
            return i;
        }
    }
    return -1;
}

int redis_masters_find(struct redis_masters *masters, const struct redis_place *place)
{
    int at = find_place(masters, place);
    for (int i = 0; at < 0 && i < REDIS_NODES_MAX; i++) {
        if (!masters->nodes[i]) {
            masters->nodes[i] = xcalloc(1, sizeof(*masters->nodes[i]));
            masters->nodes[i]->place = *place;
            at = i;
        }
    }
    return at;
}

static void remove_node(struct redis_masters *masters, int at)
{
    struct redis_node *node = masters->nodes[at];
    masters->nodes[at] = NULL;
    if (node->link) {
        redis_link_free(node->link);
    }
    free(node);
}

/* at -1: nobody. */
static void set_owner(struct redis_masters *masters, int slot, int at)
{
    uint16_t *owner = &masters->owners[slot];
    if (*owner) {
        masters->nodes[*owner - 1]->slots--;
        masters->covered--;
    }
    *owner = (uint16_t)(at + 1);
    if (*owner) {
        masters->nodes[at]->slots++;
        masters->covered++;
    }
}

/* Nodes that have left, or are replicas by now; another time while something is in flight there. */
static void forget_nodes(struct redis_masters *masters)
{
    uint64_t now_ms = uv_now(masters->loop);
    for (int i = 0; i < REDIS_NODES_MAX; i++) {
        const struct redis_node *node = masters->nodes[i];
        bool is_asked = node && node->asked_ms && now_ms - node->asked_ms < ASKED_MS;
        bool is_idle = node && (!node->link || redis_link_is_idle(node->link));
        if (node && node->slots == 0 && !is_asked && is_idle) {
            remove_node(masters, i);
        }
    }
}

static void log_map(const struct redis_masters *masters, const struct redis_map *map)
{
    if (masters->settings->redis.kind == REDIS_SENTINEL) {
        struct buf name = {0};
        redis_place_name(&map->items[0].owner, &name);
        log_info("redis master found", LOG_TEXT("node", name.data));
        buf_clear(&name);
    } else {
        log_info("redis cluster found", LOG_NUMBER("masters", redis_masters_count(masters)),
                 LOG_NUMBER("slots", masters->covered));
    }
}

bool redis_masters_take(struct redis_masters *masters, const struct redis_map *map)
{
    int16_t *owners = xcalloc(REDIS_SLOTS, sizeof(*owners));
    bool is_new = false;
    for (size_t i = 0; i < map->count; i++) {
        int at = redis_masters_find(masters, &map->items[i].owner);
        for (int slot = map->items[i].first; slot <= map->items[i].last; slot++) {
            owners[slot] = (int16_t)(at + 1);
        }
    }
    for (int slot = 0; slot < REDIS_SLOTS; slot++) {
        if (masters->owners[slot] != owners[slot]) {
            set_owner(masters, slot, owners[slot] - 1);
            is_new = true;
        }
    }
    free(owners);
    forget_nodes(masters);
    if (is_new) {
        log_map(masters, map);
    }
    return is_new;
}

void redis_masters_move(struct redis_masters *masters, int slot, int at)
{
    set_owner(masters, slot, at);
}

static struct redis_link *link_of(struct redis_masters *masters, struct redis_node *node)
{
    if (!node->link) {
        const struct redis_link_options options = {
            .settings = masters->settings,
            .place = &node->place,
            .tls = masters->tls,
            .is_checked = true,
            .pause_part = PAUSE_PART,
            .owner = masters->owner,
        };
        node->link = redis_link_new(masters->loop, &options);
    }
    return node->link;
}

/* One that has slots, best one that is connected. */
static struct redis_node *find_any(const struct redis_masters *masters)
{
    struct redis_node *found = NULL;
    for (int i = 0; i < REDIS_NODES_MAX; i++) {
        struct redis_node *node = masters->nodes[i];
        if (node && node->slots > 0) {
            found = node;
            if (node->link && redis_link_is_ready(node->link)) {
                break;
            }
        }
    }
    return found;
}

struct redis_link *redis_masters_link(struct redis_masters *masters, int slot)
{
    struct redis_node *node = NULL;
    if (slot < 0) {
        node = find_any(masters);
    } else if (masters->owners[slot]) {
        node = masters->nodes[masters->owners[slot] - 1];
    }
    return node ? link_of(masters, node) : NULL;
}

struct redis_link *redis_masters_link_at(struct redis_masters *masters, int at)
{
    struct redis_node *node = at >= 0 ? masters->nodes[at] : NULL;
    return node ? link_of(masters, node) : NULL;
}

size_t redis_masters_count(const struct redis_masters *masters)
{
    size_t count = 0;
    while (redis_masters_node(masters, count) >= 0) {
        count++;
    }
    return count;
}

int redis_masters_node(const struct redis_masters *masters, size_t index)
{
    for (int i = 0; i < REDIS_NODES_MAX; i++) {
        if (masters->nodes[i] && masters->nodes[i]->slots > 0 && index-- == 0) {
            return i;
        }
    }
    return -1;
}

int redis_masters_owner(const struct redis_masters *masters, int slot)
{
    return masters->owners[slot] - 1;
}

void redis_masters_clear(struct redis_masters *masters)
{
    for (int i = 0; i < REDIS_NODES_MAX; i++) {
        if (masters->nodes[i]) {
            remove_node(masters, i);
        }
    }
}
