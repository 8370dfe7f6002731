/* The search. Connections to Sentinels are kept, since they are asked often; a node of a Cluster is
 * asked over one of its own, which is closed afterwards. What is made of the answers is
 * redis_fleet.c's business. */
#include "store/redis_search.h"

#include <stdlib.h>
#include <string.h>

#include "base/fiber.h"
#include "base/log.h"
#include "store/redis_link.h"
#include "store/redis_pause.h"

/* What one answer may take of a command's time, and the longest pause between searches. */
#define ANSWER_PART 4
#define ANSWER_MIN_MS 20
/* A pause is over for so long that what it was for is, too. */
#define FORGET_MS 1000
/* Nodes of a Cluster that are remembered to be asked, beside those of REDIS_URL. */
#define LEARNT_MAX 64
/* How often is looked whether a host name has an address by now. */
#define LOOKUP_MS 5

struct source {
    struct redis_place place;
    struct redis_link *link; /* NULL: not asked yet */
    bool needs_password;     /* a Sentinel that has said so */
};

struct redis_search {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    struct redis_tls *tls;           /* borrowed; NULL: none */
    struct redis_search_owner owner;
    struct source *sources; /* owned: those of REDIS_URL, then those of the last map */
    size_t count;
    size_t front; /* the one that answered last */
    bool is_running;
    bool is_urgent; /* somebody waits for it */
    uint64_t begun; /* how many */
    bool is_closed; /* free when the fiber ends */
    enum redis_trouble trouble;
    struct redis_pause pause;
    uint64_t ended_ms;
};

static bool is_sentinel(const struct redis_search *search)
{
    return search->settings->redis.kind == REDIS_SENTINEL;
}

static uint64_t answer_ms(const struct redis_search *search)
{
    uint64_t part_ms = (uint64_t)search->settings->store_timeout_ms / ANSWER_PART;
    return part_ms > ANSWER_MIN_MS ? part_ms : ANSWER_MIN_MS;
}

static struct redis_link *link_of(const struct redis_search *search, struct source *source)
{
    if (!source->link) {
        const struct redis_link_options options = {
            .settings = search->settings,
            .place = &source->place,
            .tls = search->tls,
            .is_anonymous = is_sentinel(search) && !source->needs_password,
            .is_bare = is_sentinel(search),
            .pause_part = ANSWER_PART,
        };
        source->link = redis_link_new(search->loop, &options);
    }
    return source->link;
}

static void let_go(struct source *source)
{
    if (source->link) {
        redis_link_free(source->link);
        source->link = NULL;
    }
}

/* Send one command and wait for its reply; out is to be cleared when that is TROUBLE_NONE. */
static enum redis_trouble ask(const struct redis_search *search, struct source *source,
                              const struct redis_arg *args, size_t count, struct redis_value *out)
{
    struct redis_wait wait = {.fiber = fiber_self(), .is_quiet = true};
    struct redis_call call = {.args = args, .count = count, .wait = &wait, .out = out};
    uv_update_time(search->loop);
    wait.deadline_ms = uv_now(search->loop) + answer_ms(search);
    while (!redis_link_send(link_of(search, source), &call)) {
        if (!redis_link_is_looked_up(source->link) || uv_now(search->loop) >= wait.deadline_ms) {
            return call.trouble;
        }
        fiber_sleep(LOOKUP_MS);
        if (search->is_closed) {
            return TROUBLE_UNREACHABLE;
        }
    }
    fiber_park();
    if (!search->is_closed && !call.trouble && !is_sentinel(search)) {
        redis_link_close(source->link);
    }
    return call.trouble;
}

/* SENTINEL get-master-addr-by-name: host and port, or nil. */
static enum redis_trouble read_master(const struct redis_value *reply, const char *from,
                                      struct redis_map *map)
{
    if (reply->type == REDIS_IS_NIL) {
        return TROUBLE_NOMASTER;
    }
    map->items = xcalloc(1, sizeof(*map->items));
    map->count = 1;
    map->items[0].last = REDIS_SLOTS - 1;
    if (reply->type == REDIS_IS_ARRAY && reply->item_count == 2 &&
        redis_place_read(&reply->items[0].text, strtoll(buf_str(&reply->items[1].text), NULL, 10),
                         from, &map->items[0].owner) == OK) {
        return TROUBLE_NONE;
    }
    redis_map_clear(map);
    return TROUBLE_GARBLED;
}

static enum redis_trouble ask_sentinel(const struct redis_search *search, struct source *source,
                                       struct redis_map *map)
{
    const struct redis_arg args[] = {REDIS_TEXT("SENTINEL"), REDIS_TEXT("get-master-addr-by-name"),
                                     REDIS_TEXT(search->settings->redis.master)};
    struct redis_value reply = {0};
    enum redis_trouble trouble = ask(search, source, args, 3, &reply);
    if (trouble == TROUBLE_AUTH && !search->is_closed && !source->needs_password) {
        source->needs_password = true;
        let_go(source);
        trouble = ask(search, source, args, 3, &reply);
    }
    if (!trouble) {
        trouble = read_master(&reply, source->place.host, map);
        redis_value_clear(&reply);
    }
    return trouble;
}

static enum redis_trouble ask_node(const struct redis_search *search, struct source *source,
                                   struct redis_map *map)
{
    const struct redis_arg args[] = {REDIS_TEXT("CLUSTER"), REDIS_TEXT("SLOTS")};
    struct redis_value reply = {0};
    enum redis_trouble trouble = ask(search, source, args, 2, &reply);
    if (!trouble) {
        bool is_empty = reply.type == REDIS_IS_ARRAY && reply.item_count == 0;
        if (redis_map_read(&reply, source->place.host, map)) {
            /* A node that was not yet made part of a Cluster knows of no slot. */
            trouble = is_empty ? TROUBLE_CLUSTERDOWN : TROUBLE_GARBLED;
        }
        redis_value_clear(&reply);
    }
    return trouble;
}

static bool is_in_map(const struct redis_place *place, const struct redis_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        if (redis_place_equal(place, &map->items[i].owner)) {
            return true;
        }
    }
    return false;
}

static size_t find_source(const struct redis_search *search, const struct redis_place *place)
{
    size_t at = 0;
    while (at < search->count && !redis_place_equal(&search->sources[at].place, place)) {
        at++;
    }
    return at;
}

static void add_source(struct redis_search *search, const struct redis_place *place)
{
    search->sources[search->count++] = (struct source){.place = *place};
}

/* Forget the learnt ones that are no masters any more, learn the new ones. */
static void learn(struct redis_search *search, const struct redis_map *map)
{
    size_t seeds = search->settings->redis.host_count;
    size_t kept = seeds;
    for (size_t i = seeds; i < search->count; i++) {
        if (is_in_map(&search->sources[i].place, map)) {
            search->sources[kept++] = search->sources[i];
        } else {
            let_go(&search->sources[i]);
        }
    }
    search->count = kept;
    for (size_t i = 0; i < map->count && search->count < seeds + LEARNT_MAX; i++) {
        if (find_source(search, &map->items[i].owner) == search->count) {
            add_source(search, &map->items[i].owner);
        }
    }
}

/* True when it was said something new. */
static bool take_map(struct redis_search *search, size_t source, const struct redis_map *map)
{
    struct redis_place answered = search->sources[source].place;
    if (!is_sentinel(search)) {
        learn(search, map);
    }
    size_t at = find_source(search, &answered);
    search->front = at < search->count ? at : 0;
    return search->owner.found(search->owner.self, map);
}

static void note_failure(const struct redis_search *search, const struct source *source,
                         enum redis_trouble trouble)
{
    struct buf name = {0};
    redis_place_name(&source->place, &name);
    /* A node that cannot be reached is logged by its link, with the reason. */
    if (trouble != TROUBLE_UNREACHABLE && trouble != TROUBLE_SLOW && trouble != TROUBLE_TLS) {
        redis_trouble_log(trouble, name.data, is_sentinel(search) ? "SENTINEL" : "CLUSTER",
                          redis_trouble_word(trouble));
    }
    buf_clear(&name);
}

/* Ask one after the other. True when one said something new. */
static bool ask_all(struct redis_search *search)
{
    size_t first = search->front + (search->is_urgent && search->ended_ms ? 1 : 0);
    for (size_t i = 0; i < search->count; i++) {
        size_t at = (first + i) % search->count;
        struct source *source = &search->sources[at];
        struct redis_map map = {0};
        enum redis_trouble trouble = is_sentinel(search) ? ask_sentinel(search, source, &map)
                                                         : ask_node(search, source, &map);
        if (search->is_closed) {
            redis_map_clear(&map);
            return false;
        }
        search->trouble = trouble;
        bool is_new = !trouble && take_map(search, at, &map);
        redis_map_clear(&map);
        if (trouble) {
            note_failure(search, source, trouble);
        } else if (is_new || search->is_closed || search->is_urgent || !is_sentinel(search)) {
            return is_new;
        }
    }
    return false;
}

static void run_search(void *argument)
{
    struct redis_search *search = argument;
    bool is_new = search->is_closed ? false : ask_all(search);
    if (search->is_closed) {
        free(search->sources);
        free(search);
        return;
    }
    uint64_t now_ms = uv_now(search->loop);
    if (search->is_urgent) {
        redis_pause_note_loss(&search->pause, now_ms, is_new ? FORGET_MS : 0, answer_ms(search));
    }
    search->ended_ms = now_ms;
    search->is_running = false;
    search->owner.ended(search->owner.self);
}

static void begin(struct redis_search *search, bool is_urgent)
{
    search->is_running = true;
    search->is_urgent = is_urgent;
    search->begun++;
    fiber_spawn(run_search, search);
}

uint64_t redis_search_begin(struct redis_search *search)
{
    uint64_t now_ms = uv_now(search->loop);
    if (search->is_running) {
        return 0;
    }
    if (now_ms >= search->pause.until_ms + FORGET_MS) {
        search->pause = (struct redis_pause){0}; /* what it was for is long over */
    }
    if (now_ms < search->pause.until_ms) {
        return search->pause.until_ms;
    }
    begin(search, true);
    return 0;
}

void redis_search_refresh(struct redis_search *search, uint64_t gap_ms)
{
    if (!search->is_running && uv_now(search->loop) >= search->ended_ms + gap_ms) {
        begin(search, false);
    }
}

uint64_t redis_search_count(const struct redis_search *search)
{
    return search->begun;
}

bool redis_search_is_running(const struct redis_search *search)
{
    return search->is_running;
}

enum redis_trouble redis_search_trouble(const struct redis_search *search)
{
    return search->trouble;
}

struct redis_search *redis_search_new(uv_loop_t *loop, const struct settings *settings,
                                      struct redis_tls *tls, const struct redis_search_owner *owner)
{
    const struct redis_url *url = &settings->redis;
    struct redis_search *search = xcalloc(1, sizeof(*search));
    search->loop = loop;
    search->settings = settings;
    search->tls = tls;
    search->owner = *owner;
    search->sources = xcalloc(url->host_count + LEARNT_MAX, sizeof(*search->sources));
    for (size_t i = 0; i < url->host_count; i++) {
        struct redis_place place = redis_place(url->hosts[i].host, url->hosts[i].port);
        add_source(search, &place);
    }
    return search;
}

void redis_search_free(struct redis_search *search)
{
    search->is_closed = true;
    for (size_t i = 0; i < search->count; i++) {
        let_go(&search->sources[i]);
    }
    if (!search->is_running) {
        free(search->sources);
        free(search);
    }
}
