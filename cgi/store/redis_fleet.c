/* Where commands go, and what is done about those that came to the wrong place. Whoever cannot go
 * on waits at one gate, and looks again whenever a link or the masters known have changed; who
 * waits is also what makes links connect and searches begin. Links are redis_link.c's business, how
 * masters are found redis_search.c's, which slot a key has redis_slots.c's. */
#include "store/redis_fleet.h"

#include <stdlib.h>
#include <string.h>

#include "base/fiber.h"
#include "store/redis_search.h"

/* So often in a row a command is sent elsewhere at once. */
#define HOPS_MAX 3
#define AGAIN_MS 5
#define AGAIN_DOUBLINGS_MAX 3
#define COMMAND_NAME_MAX 16
/* What changes is looked for so often, while there are commands. A master that Sentinels have
 * replaced takes writes for seconds more, and loses them; a Cluster's does not. */
#define WATCH_SENTINEL_MS 250
#define WATCH_CLUSTER_MS 10000
/* A master that was left is not returned to for so long, while another one serves: some Sentinels
 * learn seconds after the others, and so does it. */
#define LEFT_MS 10000
/* Between questions whether it is still the master. */
#define CONFIRM_GAP_MS 20
/* When nodes say that something has changed. */
#define REFRESH_MS 1000
/* Another master has this part of a command's time to say that it is one. */
#define CONFIRM_PART 4

/* A fiber at the gate. */
struct waiter {
    struct fiber *fiber;
    struct waiter *next;
    struct waiter **before; /* what points to it; NULL: it was let through */
};

struct redis_fleet {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    uv_timer_t end;                  /* closed last: fibers that are woken then look in here */
    struct redis_search *search;     /* owned */
    struct redis_masters masters;
    struct redis_place left; /* the master before this one */
    uint64_t left_ms;        /* when; 0: there was none */
    struct waiter *gate;
    bool is_closed;
};

static void open_gate(void *self)
{
    struct redis_fleet *fleet = self;
    while (fleet->gate) {
        struct waiter *waiter = fleet->gate;
        fleet->gate = waiter->next;
        waiter->before = NULL;
        fiber_wake(waiter->fiber);
    }
}

static void wait_at_gate(struct redis_fleet *fleet, uint64_t until_ms)
{
    struct waiter waiter = {.fiber = fiber_self(), .next = fleet->gate, .before = &fleet->gate};
    uint64_t now_ms = uv_now(fleet->loop);
    if (waiter.next) {
        waiter.next->before = &waiter.next;
    }
    /* cppcheck-suppress autoVariables */
    fleet->gate = &waiter;
    fiber_park_for(until_ms > now_ms ? until_ms - now_ms : 1);
    if (waiter.before) {
        *waiter.before = waiter.next;
        if (waiter.next) {
            waiter.next->before = waiter.before;
        }
    }
}

static bool is_sentinel(const struct redis_fleet *fleet)
{
    return fleet->settings->redis.kind == REDIS_SENTINEL;
}

/* Whether who is named as another master says so itself. Waits for that. */
static bool is_confirmed(struct redis_fleet *fleet, const struct redis_place *place)
{
    int at = redis_masters_find(&fleet->masters, place);
    uint64_t until_ms =
        uv_now(fleet->loop) + (uint64_t)fleet->settings->store_timeout_ms / CONFIRM_PART;
    if (at < 0) {
        return false;
    }
    fleet->masters.nodes[at]->asked_ms = uv_now(fleet->loop);
    while (!fleet->is_closed && uv_now(fleet->loop) < until_ms) {
        struct redis_link *link = redis_masters_link_at(&fleet->masters, at);
        if (!link || redis_link_is_ready(link)) {
            return link != NULL;
        }
        uint64_t again_ms = redis_link_begin(link);
        wait_at_gate(fleet, again_ms && again_ms < until_ms ? again_ms : until_ms);
    }
    return false;
}

/* The one that Sentinels have named; NULL: none yet. */
static const struct redis_node *current_master(const struct redis_fleet *fleet)
{
    int at = redis_masters_node(&fleet->masters, 0);
    return at >= 0 ? fleet->masters.nodes[at] : NULL;
}

/* Whether a Sentinel's word is enough for this change. A master that serves is not left for who is
 * none, nor for the one before it. */
static bool may_follow(struct redis_fleet *fleet, const struct redis_place *named)
{
    const struct redis_node *now = current_master(fleet);
    if (!now || !now->link || !redis_link_is_ready(now->link) ||
        redis_place_equal(&now->place, named)) {
        return true;
    }
    struct redis_place before = now->place;
    bool was_left = fleet->left_ms && uv_now(fleet->loop) - fleet->left_ms < LEFT_MS &&
                    redis_place_equal(&fleet->left, named);
    if (was_left || !is_confirmed(fleet, named)) {
        return false;
    }
    fleet->left = before;
    fleet->left_ms = uv_now(fleet->loop);
    return true;
}

/* The search's answer. */
static bool take_map(void *self, const struct redis_map *map)
{
    struct redis_fleet *fleet = self;
    if (is_sentinel(fleet) && !may_follow(fleet, &map->items[0].owner)) {
        return false;
    }
    return redis_masters_take(&fleet->masters, map);
}

static void watch(struct redis_fleet *fleet)
{
    redis_search_refresh(fleet->search, is_sentinel(fleet) ? WATCH_SENTINEL_MS : WATCH_CLUSTER_MS);
}

/* A node's "MOVED slot host:port", "ASK slot host:port", or that it cannot serve a slot now. */
static void take_redirection(void *self, struct redis_call *call, const char *host,
                             const char *error)
{
    struct redis_fleet *fleet = self;
    struct redis_place place;
    int slot;
    enum redis_trouble trouble = redis_trouble_of(error);
    if (trouble == TROUBLE_MOVED) {
        redis_search_refresh(fleet->search, REFRESH_MS);
    } else if (trouble == TROUBLE_CLUSTERDOWN) {
        /* It may be this node that the others have given up, and the map its own: ask another. */
        (void)redis_search_begin(fleet->search);
    }
    if ((trouble != TROUBLE_MOVED && trouble != TROUBLE_ASK) ||
        redis_redirect_parse(error, host, &slot, &place)) {
        return;
    }
    int at = redis_masters_find(&fleet->masters, &place);
    if (at >= 0 && trouble == TROUBLE_MOVED) {
        redis_masters_move(&fleet->masters, slot, at);
    } else if (at >= 0 && call) {
        fleet->masters.nodes[at]->asked_ms = uv_now(fleet->loop);
        call->node = at;
        call->is_asking = true;
    }
}

/* NULL: not known at present. */
static struct redis_link *find_link(struct redis_fleet *fleet, const struct redis_call *call)
{
    struct redis_link *link = redis_masters_link_at(&fleet->masters, call->node);
    return link ? link : redis_masters_link(&fleet->masters, call->slot);
}

static enum redis_trouble why_not(const struct redis_fleet *fleet, const struct redis_link *link)
{
    enum redis_trouble trouble = redis_search_trouble(fleet->search);
    if (link) {
        return redis_link_trouble(link);
    }
    if (fleet->masters.covered > 0) {
        return TROUBLE_CLUSTERDOWN;
    }
    return trouble ? trouble : TROUBLE_UNREACHABLE;
}

/* Wait until the call can be sent. False: its time is over, and call->trouble says why. */
static bool await_link(struct redis_fleet *fleet, struct redis_call *call)
{
    for (;;) {
        uint64_t until_ms = call->wait->deadline_ms;
        struct redis_link *link = find_link(fleet, call);
        if (link && redis_link_is_ready(link)) {
            return true;
        }
        if (fleet->is_closed || uv_now(fleet->loop) >= until_ms) {
            call->trouble = why_not(fleet, link);
            return false;
        }
        uint64_t connect_ms = link ? redis_link_begin(link) : 0;
        if (!link || connect_ms) {
            uint64_t search_ms = redis_search_begin(fleet->search);
            until_ms = search_ms && search_ms < until_ms ? search_ms : until_ms;
        }
        until_ms = connect_ms && connect_ms < until_ms ? connect_ms : until_ms;
        wait_at_gate(fleet, until_ms);
        if (fleet->is_closed) {
            call->trouble = TROUBLE_UNREACHABLE;
            return false;
        }
    }
}

/* ASKING and the command leave together: nobody's else comes in between. */
static void send_call(struct redis_link *link, struct redis_call *call)
{
    if (call->is_asking) {
        const struct redis_arg args[] = {REDIS_TEXT("ASKING")};
        struct redis_call asking = {.args = args, .count = 1};
        (void)redis_link_send(link, &asking);
        call->node = -1;
        call->is_asking = false;
    }
    call->is_open = !redis_link_send(link, call);
}

/* Send what can be sent. False: its time is over for what cannot. */
static bool send_open(struct redis_fleet *fleet, struct redis_call *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (calls[i].is_open && !await_link(fleet, &calls[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct redis_link *link = calls[i].is_open ? find_link(fleet, &calls[i]) : NULL;
        if (link && redis_link_is_ready(link)) {
            send_call(link, &calls[i]);
        }
    }
    return true;
}

static bool is_hop(enum redis_trouble trouble)
{
    return trouble == TROUBLE_MOVED || trouble == TROUBLE_ASK;
}

/* What comes next for calls of which none is under way: TROUBLE_NONE when all are done, or when one
 * has failed for good and what became of the others makes no difference. Otherwise some are open
 * again, and this is why. */
static enum redis_trouble reopen(struct redis_call *calls, size_t count)
{
    enum redis_trouble why = TROUBLE_NONE;
    for (size_t i = 0; i < count; i++) {
        enum redis_trouble trouble = calls[i].is_open ? TROUBLE_MOVED : calls[i].trouble;
        if (trouble && !redis_trouble_is_elsewhere(trouble)) {
            return TROUBLE_NONE;
        }
        calls[i].is_open = trouble != TROUBLE_NONE;
        why = trouble && (!why || is_hop(why)) ? trouble : why;
    }
    return why;
}

/* Before the next try. False: there is no time for one. */
static bool pause_before(struct redis_fleet *fleet, unsigned round, enum redis_trouble why,
                         uint64_t deadline_ms)
{
    unsigned doublings = round < AGAIN_DOUBLINGS_MAX ? round : AGAIN_DOUBLINGS_MAX;
    uint64_t until_ms = uv_now(fleet->loop) + ((uint64_t)AGAIN_MS << doublings);
    if (is_hop(why) && round < HOPS_MAX) {
        return true;
    }
    if (until_ms >= deadline_ms) {
        return false;
    }
    while (uv_now(fleet->loop) < until_ms && !fleet->is_closed) {
        wait_at_gate(fleet, until_ms);
    }
    return !fleet->is_closed;
}

/* What a link leaves to us to tell, if it ends so. */
static void log_end(const struct redis_call *call)
{
    enum redis_trouble trouble = call->trouble;
    if (!call->wait->is_quiet && (trouble == TROUBLE_MOVED || trouble == TROUBLE_ASK ||
                                  trouble == TROUBLE_TRYAGAIN || trouble == TROUBLE_CLUSTERDOWN)) {
        char name[COMMAND_NAME_MAX] = "";
        size_t len = call->args[0].len;
        memcpy(name, call->args[0].bytes, len < sizeof(name) ? len : sizeof(name) - 1);
        redis_trouble_log(trouble, "cluster", name, redis_trouble_word(trouble));
    }
}

/* Commands without a key go where the others of their pipeline go. */
static void find_slots(struct redis_call *calls, size_t count)
{
    int common = -1;
    for (size_t i = 0; i < count; i++) {
        calls[i].slot = redis_slot_of_command(calls[i].args, calls[i].count);
        calls[i].is_open = true;
        common = common < 0 ? calls[i].slot : common;
    }
    for (size_t i = 0; i < count; i++) {
        calls[i].slot = calls[i].slot < 0 ? common : calls[i].slot;
    }
}

void redis_fleet_run(struct redis_fleet *fleet, struct redis_call *calls, size_t count)
{
    struct redis_wait *wait = calls[0].wait;
    find_slots(calls, count);
    watch(fleet);
    for (unsigned round = 0;; round++) {
        if (!send_open(fleet, calls, count)) {
            break;
        }
        if (wait->unanswered > 0) {
            fiber_park();
        }
        enum redis_trouble why = fleet->is_closed ? TROUBLE_NONE : reopen(calls, count);
        if (!why || !pause_before(fleet, round, why, wait->deadline_ms)) {
            break;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (calls[i].is_open && !calls[i].trouble) {
            calls[i].trouble = TROUBLE_UNREACHABLE;
        }
        log_end(&calls[i]);
    }
}

bool redis_fleet_confirm(struct redis_fleet *fleet)
{
    const struct redis_node *now = current_master(fleet);
    if (!is_sentinel(fleet) || !now) {
        return true;
    }
    struct redis_place before = now->place;
    uint64_t wanted = redis_search_count(fleet->search) + 1;
    uint64_t until_ms = uv_now(fleet->loop) + (uint64_t)fleet->settings->store_timeout_ms;
    while (!fleet->is_closed && uv_now(fleet->loop) < until_ms) {
        if (!redis_search_is_running(fleet->search)) {
            if (redis_search_count(fleet->search) >= wanted) {
                break;
            }
            redis_search_refresh(fleet->search, CONFIRM_GAP_MS);
        }
        bool is_running = redis_search_is_running(fleet->search);
        wait_at_gate(fleet, is_running ? until_ms : uv_now(fleet->loop) + CONFIRM_GAP_MS);
    }
    now = fleet->is_closed ? NULL : current_master(fleet);
    return now && redis_place_equal(&now->place, &before);
}

/* A command that nobody waits for, with its arguments. */
struct parcel {
    struct redis_fleet *fleet;
    struct redis_wait wait;
    struct redis_call call;
    struct redis_arg args[];
};

static void deliver(void *argument)
{
    struct parcel *parcel = argument;
    parcel->wait = (struct redis_wait){
        .fiber = fiber_self(),
        .deadline_ms =
            uv_now(parcel->fleet->loop) + (uint64_t)parcel->fleet->settings->store_timeout_ms,
    };
    redis_fleet_run(parcel->fleet, &parcel->call, 1);
    free(parcel);
}

static void on_parcel_done(struct redis_wait *wait)
{
    struct parcel *parcel = (struct parcel *)((char *)wait - offsetof(struct parcel, wait));
    if (redis_trouble_is_elsewhere(parcel->call.trouble) && !parcel->fleet->is_closed) {
        fiber_spawn(deliver, parcel);
    } else {
        free(parcel);
    }
}

static struct parcel *new_parcel(struct redis_fleet *fleet, const struct redis_arg *args,
                                 size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        len += args[i].len;
    }
    struct parcel *parcel = xcalloc(1, sizeof(*parcel) + count * sizeof(*args) + len);
    char *at = (char *)&parcel->args[count];
    for (size_t i = 0; i < count; i++) {
        memcpy(at, args[i].bytes, args[i].len);
        parcel->args[i] = (struct redis_arg){at, args[i].len};
        at += args[i].len;
    }
    parcel->fleet = fleet;
    parcel->call = (struct redis_call){
        .args = parcel->args, .count = count, .wait = &parcel->wait, .node = -1};
    return parcel;
}

void redis_fleet_send(struct redis_fleet *fleet, const struct redis_arg *args, size_t count)
{
    struct parcel *parcel = new_parcel(fleet, args, count);
    find_slots(&parcel->call, 1);
    struct redis_link *link = find_link(fleet, &parcel->call);
    parcel->wait.done = on_parcel_done;
    parcel->wait.deadline_ms = uv_now(fleet->loop) + (uint64_t)fleet->settings->store_timeout_ms;
    if (!link || !redis_link_is_ready(link) || !redis_link_send(link, &parcel->call)) {
        fiber_spawn(deliver, parcel);
    }
}

const struct redis_masters *redis_fleet_masters(const struct redis_fleet *fleet)
{
    return &fleet->masters;
}

bool redis_fleet_is_whole(struct redis_fleet *fleet)
{
    if (fleet->masters.covered < REDIS_SLOTS) {
        (void)redis_search_begin(fleet->search);
    }
    return fleet->masters.covered == REDIS_SLOTS;
}

struct redis_fleet *redis_fleet_new(uv_loop_t *loop, const struct settings *settings,
                                    struct redis_tls *tls)
{
    struct redis_fleet *fleet = xcalloc(1, sizeof(*fleet));
    const struct redis_search_owner owner = {fleet, take_map, open_gate};
    fleet->loop = loop;
    fleet->settings = settings;
    fleet->masters.loop = loop;
    fleet->masters.settings = settings;
    fleet->masters.tls = tls;
    fleet->masters.owner = (struct redis_link_owner){fleet, open_gate, take_redirection};
    fleet->search = redis_search_new(loop, settings, tls, &owner);
    uv_timer_init(loop, &fleet->end);
    fleet->end.data = fleet;
    return fleet;
}

static void on_end_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_fleet_free(struct redis_fleet *fleet)
{
    fleet->is_closed = true;
    redis_search_free(fleet->search);
    redis_masters_clear(&fleet->masters);
    open_gate(fleet);
    uv_close((uv_handle_t *)&fleet->end, on_end_closed);
}
