/* A Cluster, of nodes whose answers are written here: who is asked, who is asked again, and that
 * nobody waits for longer than his time. tests/redis has real ones. */
#include "fake_redis.h"

#include <signal.h>

#include "store/redis.h"

/* For what succeeds, on a busy machine, too; and for what fails. */
#define TIMEOUT_MS 2000
#define SHORT_TIMEOUT_MS 200
/* What a busy machine may add. */
#define SLACK_MS 500

/* Keys whose slots, as the nodes split them below, are the first's and the second's. */
#define KEY_0 "bar" /* 5061 */
#define KEY_1 "foo" /* 12182 */
#define SLOT_0 "5061"
#define SLOT_1 "12182"

#define NODE_0 (&fakes[0])
#define NODE_1 (&fakes[1])
#define NODE_2 (&fakes[2])

static struct settings settings;
static struct redis_host seeds[2];
static struct redis *redis;
static int boundary;          /* slots below it are NODE_0's, the others NODE_1's */
static struct fake *owner_1;  /* of the others; NULL: nobody */
static const char *map_reply; /* NULL: the one that follows from these */

static const char *say_map(void)
{
    if (map_reply) {
        return map_reply;
    }
    if (!owner_1) {
        return fake_text("*1\r\n*3\r\n:0\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n", boundary - 1,
                         NODE_0->port);
    }
    return fake_text("*2\r\n*3\r\n:0\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
                     "*3\r\n:%d\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n",
                     boundary - 1, NODE_0->port, boundary, owner_1->port);
}

static const char *answer_well(struct fake *fake, size_t count, char **args)
{
    (void)count;
    if (strcmp(args[0], "CLUSTER") == 0) {
        return say_map();
    }
    if (strcmp(args[0], "ROLE") == 0) {
        return "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    }
    return fake_text(":%d\r\n", (int)(fake - fakes));
}

static enum err ask(int64_t *out, const char *text, ...)
{
    struct redis_arg args[8];
    struct redis_value value = {0};
    size_t count = 0;
    va_list list;
    va_start(list, text);
    for (const char *arg = text; arg && count < 8; arg = va_arg(list, const char *)) {
        args[count++] = REDIS_TEXT(arg);
    }
    va_end(list);
    enum err err = redis_command(redis, args, count, &value);
    *out = value.integer;
    redis_value_clear(&value);
    return err;
}
#define ASK(out, ...) ask((out), __VA_ARGS__, (const char *)NULL)

static void begin_anew(void)
{
    redis_free(redis);
    redis = redis_new(uv_default_loop(), &settings);
}

/* That a command is answered by that node. */
#define CHECK_NODE(node, ...)                                                                      \
    do {                                                                                           \
        int64_t answer = -1;                                                                       \
        CHECK(ASK(&answer, __VA_ARGS__) == OK);                                                    \
        CHECK(answer == (node));                                                                   \
    } while (0)

/* That a command fails for that reason, and when; where nodes answer, the last try may be late. */
#define CHECK_TROUBLE(want, ...)                                                                   \
    do {                                                                                           \
        int64_t answer;                                                                            \
        uint64_t asked_ms = clock_mono_ms();                                                       \
        settings.store_timeout_ms = SHORT_TIMEOUT_MS;                                              \
        CHECK(ASK(&answer, __VA_ARGS__) == ERR_STORE);                                             \
        CHECK(redis_trouble(redis) == (want) || redis_trouble(redis) == TROUBLE_SLOW);             \
        CHECK(clock_mono_ms() - asked_ms < SHORT_TIMEOUT_MS + SLACK_MS);                           \
        settings.store_timeout_ms = TIMEOUT_MS;                                                    \
    } while (0)

static void (*body_of_test)(void);

static void body(void *argument)
{
    (void)argument;
    static char host[] = "127.0.0.1";
    fakes_start(answer_well);
    seeds[0] = (struct redis_host){host, NODE_0->port};
    seeds[1] = (struct redis_host){host, NODE_1->port};
    settings = (struct settings){.store_timeout_ms = TIMEOUT_MS};
    settings.redis = (struct redis_url){.kind = REDIS_CLUSTER, .hosts = seeds, .host_count = 2};
    boundary = 8192;
    owner_1 = NODE_1;
    map_reply = NULL;
    redis = redis_new(uv_default_loop(), &settings);
    body_of_test();
    if (redis) {
        redis_free(redis);
    }
    fakes_end = true;
}

static void run(void (*test)(void))
{
    body_of_test = test;
    run_body(body, NULL);
}
#define TEST(name)                                                                                 \
    static void name##_body(void);                                                                 \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        run(name##_body);                                                                          \
    }                                                                                              \
    static void name##_body(void)

TEST(test_commands_go_to_who_has_their_slot)
{
    CHECK_NODE(0, "GET", KEY_0);
    CHECK_NODE(1, "GET", KEY_1);
    CHECK_NODE(1, "EVAL", "return 1", "2", KEY_1, "{" KEY_1 "}b");
    CHECK_NODE(0, "GET", "prefix:kind:{" KEY_0 "}");
    CHECK(fake_count(NODE_0, "CLUSTER SLOTS") + fake_count(NODE_1, "CLUSTER SLOTS") == 1);
    CHECK(fake_count(NODE_0, "ROLE") == 1 && fake_count(NODE_1, "ROLE") == 1);
    int64_t got;
    CHECK(ASK(&got, "PING") == OK);
}

TEST(test_pipeline_goes_to_several_nodes)
{
    const struct redis_arg args[] = {REDIS_TEXT("SCRIPT"), REDIS_TEXT("LOAD"), REDIS_TEXT("x"),
                                     REDIS_TEXT("DEL"),    REDIS_TEXT(KEY_1),  REDIS_TEXT("DEL"),
                                     REDIS_TEXT(KEY_0)};
    static const size_t counts[] = {3, 2, 2};
    struct redis_value values[3];
    CHECK(redis_pipeline(redis, args, counts, 3, values) == OK);
    CHECK(values[0].integer == 1 && values[1].integer == 1 && values[2].integer == 0);
}

static const char *moved_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "GET") == 0 && strcmp(args[1], KEY_0) == 0 && fake != NODE_2) {
        return fake_text("-MOVED " SLOT_0 " :%d\r\n", NODE_2->port);
    }
    return answer_well(fake, count, args);
}

TEST(test_moved_slot_is_followed_and_remembered)
{
    CHECK_NODE(0, "GET", KEY_0);
    NODE_0->answer = moved_answer;
    CHECK_NODE(2, "GET", KEY_0);
    CHECK_NODE(2, "GET", KEY_0);
    CHECK_NODE(1, "GET", KEY_1);
    CHECK(fake_count(NODE_0, "GET " KEY_0) == 2 && fake_count(NODE_2, "GET " KEY_0) == 2);
}

TEST(test_map_is_read_anew_when_a_slot_has_moved)
{
    CHECK_NODE(0, "GET", KEY_0);
    fiber_sleep(1100); /* not more often */
    NODE_0->answer = moved_answer;
    boundary = 1;
    owner_1 = NODE_2;
    CHECK_NODE(2, "GET", KEY_0);
    for (int i = 0; i < 100 && fake_count(NODE_1, "CLUSTER") + fake_count(NODE_0, "CLUSTER") < 2;
         i++) {
        fiber_sleep(5);
    }
    fiber_sleep(20);
    CHECK_NODE(2, "GET", KEY_1);
}

static const char *moved_circle_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "GET") == 0) {
        return fake_text("-MOVED " SLOT_0 " 127.0.0.1:%d\r\n",
                         fake == NODE_0 ? NODE_1->port : NODE_0->port);
    }
    return answer_well(fake, count, args);
}

TEST(test_nodes_that_send_each_other_are_left_in_time)
{
    CHECK_NODE(0, "GET", KEY_0);
    CHECK_NODE(1, "GET", KEY_1);
    NODE_0->answer = NODE_1->answer = moved_circle_answer;
    CHECK_TROUBLE(TROUBLE_MOVED, "GET", KEY_0);
    int asked = fake_count(NODE_0, "GET") + fake_count(NODE_1, "GET");
    CHECK(asked > 3 && asked < 30);
    NODE_0->answer = NODE_1->answer = answer_well;
    int64_t got;
    CHECK(ASK(&got, "GET", KEY_0) == OK);
}

static const char *asking_answer(struct fake *fake, size_t count, char **args)
{
    if (fake == NODE_0 && strcmp(args[0], "GET") == 0) {
        return fake_text("-ASK " SLOT_0 " 127.0.0.1:%d\r\n", NODE_2->port);
    }
    return answer_well(fake, count, args);
}

TEST(test_slot_under_way_is_asked_for_each_time)
{
    NODE_0->answer = asking_answer;
    CHECK_NODE(2, "GET", KEY_0);
    CHECK_NODE(2, "GET", KEY_0);
    CHECK(fake_count(NODE_2, "ASKING ;GET " KEY_0 ";") == 2);
    CHECK(fake_count(NODE_0, "GET " KEY_0) == 2);
    NODE_0->answer = answer_well;
    CHECK_NODE(0, "GET", KEY_0);
}

static int refusals_left;
static const char *refusal;

static const char *refusing_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "GET") == 0 && refusals_left-- > 0) {
        return refusal;
    }
    return answer_well(fake, count, args);
}

TEST(test_refused_for_now_is_sent_again)
{
    static const char *const replies[] = {
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
        "-CLUSTERDOWN Hash slot not served\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        NODE_0->answer = refusing_answer;
        refusal = replies[i];
        refusals_left = 2;
        CHECK_NODE(0, "GET", KEY_0);
        CHECK(refusals_left == -1);
    }
}

TEST(test_refused_for_good_is_not)
{
    NODE_0->answer = refusing_answer;
    refusal = "-OOM command not allowed\r\n";
    refusals_left = 1;
    CHECK_TROUBLE(TROUBLE_OOM, "GET", KEY_0);
    CHECK_NODE(0, "GET", KEY_0);
}

TEST(test_refused_for_too_long_fails_in_time)
{
    NODE_0->answer = refusing_answer;
    refusal = "-CLUSTERDOWN The cluster is down\r\n";
    refusals_left = 1000;
    CHECK_TROUBLE(TROUBLE_CLUSTERDOWN, "GET", KEY_0);
    CHECK_NODE(1, "GET", KEY_1);
    CHECK(fake_count(NODE_0, "ROLE") == 1);
    refusals_left = 0;
    CHECK_NODE(0, "GET", KEY_0);
}

/* Cut off from the others, but not from us: it takes no commands, and knows of nobody else. */
static const char *cut_off_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "CLUSTER") == 0) {
        return fake_text("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n",
                         fake->port);
    }
    return strcmp(args[0], "ROLE") == 0 ? answer_well(fake, count, args)
                                        : "-CLUSTERDOWN The cluster is down\r\n";
}

TEST(test_node_that_is_down_is_not_believed_about_the_others)
{
    NODE_0->answer = cut_off_answer;
    CHECK_NODE(1, "GET", KEY_1);
    CHECK_NODE(1, "GET", KEY_1);
    CHECK(fake_count(NODE_0, "CLUSTER") == 1 && fake_count(NODE_0, "GET") == 1);
}

static void take_over(uv_timer_t *timer)
{
    (void)timer;
    owner_1 = NODE_2;
}

TEST(test_slot_without_an_owner_is_waited_for)
{
    uv_timer_t timer;
    owner_1 = NULL;
    CHECK_NODE(0, "GET", KEY_0);
    CHECK(!redis_is_whole(redis));
    CHECK_TROUBLE(TROUBLE_CLUSTERDOWN, "GET", KEY_1);
    after(&timer, 100, take_over);
    CHECK_NODE(2, "GET", KEY_1);
    CHECK(redis_is_whole(redis));
    over(&timer);
}

static const char *ending_answer(struct fake *fake, size_t count, char **args)
{
    return strcmp(args[0], "INCR") == 0 ? "" : answer_well(fake, count, args);
}

TEST(test_lost_command_is_not_sent_again)
{
    NODE_1->answer = ending_answer;
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "INCR", KEY_1);
    CHECK(fake_count(NODE_1, "INCR") == 1);
    CHECK_NODE(1, "GET", KEY_1);
}

TEST(test_command_finds_the_new_master_within_its_time)
{
    uv_timer_t timer;
    CHECK_NODE(1, "GET", KEY_1);
    fake_kill(NODE_1);
    fiber_sleep(5);
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET", KEY_1);
    CHECK_NODE(0, "GET", KEY_0);
    after(&timer, 150, take_over);
    CHECK_NODE(2, "GET", KEY_1);
    over(&timer);
}

TEST(test_node_that_hangs_delays_nobody_else)
{
    uv_timer_t timer;
    CHECK_NODE(1, "GET", KEY_1);
    NODE_1->is_deaf = true;
    CHECK_TROUBLE(TROUBLE_SLOW, "GET", KEY_1);
    uint64_t begin_ms = clock_mono_ms();
    CHECK_NODE(0, "GET", KEY_0);
    CHECK(clock_mono_ms() - begin_ms < SLACK_MS);
    CHECK_TROUBLE(TROUBLE_SLOW, "GET", KEY_1);
    after(&timer, 50, take_over);
    CHECK_NODE(2, "GET", KEY_1);
    CHECK(fake_count(NODE_1, "GET " KEY_1) == 1); /* the others were never sent there */
    over(&timer);
}

static const char *replica_answer(struct fake *fake, size_t count, char **args)
{
    return strcmp(args[0], "ROLE") == 0
               ? "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"
               : answer_well(fake, count, args);
}

TEST(test_replica_named_as_master_is_asked_nothing)
{
    NODE_1->answer = replica_answer;
    CHECK_TROUBLE(TROUBLE_READONLY, "GET", KEY_1);
    CHECK(fake_count(NODE_1, "GET") == 0 && fake_count(NODE_1, "ROLE") > 1);
    NODE_1->answer = answer_well;
    CHECK_NODE(1, "GET", KEY_1);
}

static const char *garbled_map_answer(struct fake *fake, size_t count, char **args)
{
    static int next;
    static const char *const replies[] = {"*0\r\n",
                                          "+OK\r\n",
                                          "$-1\r\n",
                                          "*1\r\n*1\r\n:0\r\n",
                                          "*1\r\n*3\r\n:9\r\n:1\r\n*0\r\n",
                                          "-ERR This instance has cluster support disabled\r\n",
                                          "HTTP/1.1 400 Bad\r\n",
                                          ""};
    if (strcmp(args[0], "CLUSTER") == 0) {
        return replies[next++ % 8];
    }
    return answer_well(fake, count, args);
}

TEST(test_map_that_is_none_is_asked_of_the_next)
{
    for (int i = 0; i < 8; i++) {
        NODE_0->answer = garbled_map_answer;
        CHECK_NODE(1, "GET", KEY_1);
        begin_anew();
    }
    NODE_1->answer = garbled_map_answer;
    int64_t got;
    uint64_t begin_ms = clock_mono_ms();
    settings.store_timeout_ms = SHORT_TIMEOUT_MS;
    CHECK(ASK(&got, "GET", KEY_1) == ERR_STORE);
    CHECK(clock_mono_ms() - begin_ms < SHORT_TIMEOUT_MS + SLACK_MS);
}

TEST(test_nodes_that_are_no_cluster_yet)
{
    map_reply = "*0\r\n";
    CHECK_TROUBLE(TROUBLE_CLUSTERDOWN, "GET", KEY_0);
    map_reply = NULL;
    CHECK_NODE(1, "GET", KEY_1);
}

TEST(test_seed_that_hangs_or_is_gone_is_passed_over)
{
    NODE_0->is_deaf = true;
    CHECK_NODE(1, "GET", KEY_1);
    begin_anew();
    fake_kill(NODE_0);
    CHECK_NODE(1, "GET", KEY_1);
}

TEST(test_nobody_there)
{
    fake_kill(NODE_0);
    fake_kill(NODE_1);
    for (int i = 0; i < 3; i++) {
        CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET", KEY_1);
    }
    CHECK(redis_count_masters(redis) == 0 && !redis_is_whole(redis));
    fake_listen(NODE_0);
    fake_listen(NODE_1);
    CHECK_NODE(1, "GET", KEY_1);
}

TEST(test_hosts_by_name)
{
    static char host[] = "localhost";
    seeds[0].host = seeds[1].host = host;
    begin_anew();
    map_reply =
        fake_text("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\nlocalhost\r\n:%d\r\n", NODE_1->port);
    CHECK_NODE(1, "GET", KEY_0);
}

TEST(test_unknown_hosts_block_nobody)
{
    static char host[] = "redis.invalid";
    seeds[0].host = seeds[1].host = host;
    begin_anew();
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET", KEY_0);
}

static void send_off(const char *name, const char *key)
{
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_TEXT(key)};
    redis_send(redis, args, 2);
}

TEST(test_what_nobody_waits_for_is_sent_on_as_well)
{
    send_off("GET", KEY_0); /* before anything is known */
    send_off("INCR", KEY_1);
    for (int i = 0; i < 100 && (!fake_count(NODE_0, "GET") || !fake_count(NODE_1, "INCR")); i++) {
        fiber_sleep(5);
    }
    NODE_0->answer = moved_answer;
    NODE_1->answer = ending_answer;
    send_off("GET", KEY_0);
    send_off("INCR", KEY_1);
    for (int i = 0; i < 100 && !fake_count(NODE_2, "GET " KEY_0); i++) {
        fiber_sleep(5);
    }
    fiber_sleep(100);
    CHECK(fake_count(NODE_0, "GET " KEY_0) == 2 && fake_count(NODE_2, "GET " KEY_0) == 1);
    CHECK(fake_count(NODE_1, "INCR " KEY_1) == 2);
}

static const char *scripts_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "EVALSHA") == 0 && !fake_count(fake, "EVAL return")) {
        return "-NOSCRIPT No matching script.\r\n";
    }
    if (strcmp(args[0], "SCRIPT") == 0) {
        return "$40\r\n0123456789012345678901234567890123456789\r\n";
    }
    return answer_well(fake, count, args);
}

TEST(test_script_is_sent_whole_to_each_node_once)
{
    static struct redis_script script = {.source = "return 1"};
    static const char *const names[] = {KEY_0, KEY_1, KEY_0, KEY_1};
    NODE_0->answer = NODE_1->answer = scripts_answer;
    script.sha[0] = '\0';
    for (int i = 0; i < 4; i++) {
        const struct redis_arg keys[] = {REDIS_TEXT(names[i])};
        struct redis_value value = {0};
        CHECK(redis_eval(redis, &script, keys, 1, keys, 0, &value) == OK);
        CHECK(value.integer == i % 2);
        redis_value_clear(&value);
    }
    CHECK(fake_count(NODE_0, "EVAL return") == 1 && fake_count(NODE_1, "EVAL return") == 1);
    CHECK(fake_count(NODE_0, "SCRIPT") == 1 && fake_count(NODE_1, "SCRIPT") == 1);
    CHECK(fake_count(NODE_0, "EVALSHA") == 1 && fake_count(NODE_1, "EVALSHA") == 2);
}

TEST(test_every_master_can_be_asked)
{
    int64_t got;
    CHECK(ASK(&got, "PING") == OK);
    CHECK(redis_count_masters(redis) == 2 && redis_is_whole(redis));
    bool is_seen[2] = {false};
    for (size_t i = 0; i < 2; i++) {
        static const struct redis_arg args[] = {{"INFO", 4}, {"memory", 6}};
        struct redis_value value = {0};
        struct buf key = {0};
        CHECK(redis_probe(redis, i, args, 2, &value) == OK);
        buf_adds(&key, "ping:{");
        redis_find_tag(redis, i, &key);
        buf_addc(&key, '}');
        CHECK_NODE(value.integer, "GET", key.data);
        is_seen[value.integer] = true;
        buf_clear(&key);
        redis_value_clear(&value);
    }
    CHECK(is_seen[0] && is_seen[1]);
}

static void free_early(uv_timer_t *timer)
{
    (void)timer;
    redis_free(redis);
    redis = NULL;
}

static void body_waits(void *argument)
{
    (void)argument;
    const struct redis_arg args[] = {REDIS_TEXT("GET"), REDIS_TEXT(KEY_1)};
    CHECK(redis_command(redis, args, 2, NULL) == ERR_STORE);
}

TEST(test_free_wakes_who_waits)
{
    uv_timer_t timer;
    CHECK_NODE(0, "GET", KEY_0);
    NODE_0->is_deaf = NODE_1->is_deaf = true;
    fiber_spawn(body_waits, NULL);
    send_off("GET", KEY_0);
    send_off("GET", KEY_1);
    after(&timer, 20, free_early);
    uint64_t begin_ms = clock_mono_ms();
    const struct redis_arg args[] = {REDIS_TEXT("GET"), REDIS_TEXT(KEY_0)};
    CHECK(redis_command(redis, args, 2, NULL) == ERR_STORE);
    CHECK(clock_mono_ms() - begin_ms < SLACK_MS);
    over(&timer);
}

#define UNIT(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(test_commands_go_to_who_has_their_slot),
        UNIT(test_pipeline_goes_to_several_nodes),
        UNIT(test_moved_slot_is_followed_and_remembered),
        UNIT(test_map_is_read_anew_when_a_slot_has_moved),
        UNIT(test_nodes_that_send_each_other_are_left_in_time),
        UNIT(test_slot_under_way_is_asked_for_each_time),
        UNIT(test_refused_for_now_is_sent_again),
        UNIT(test_refused_for_good_is_not),
        UNIT(test_refused_for_too_long_fails_in_time),
        UNIT(test_node_that_is_down_is_not_believed_about_the_others),
        UNIT(test_slot_without_an_owner_is_waited_for),
        UNIT(test_lost_command_is_not_sent_again),
        UNIT(test_command_finds_the_new_master_within_its_time),
        UNIT(test_node_that_hangs_delays_nobody_else),
        UNIT(test_replica_named_as_master_is_asked_nothing),
        UNIT(test_map_that_is_none_is_asked_of_the_next),
        UNIT(test_nodes_that_are_no_cluster_yet),
        UNIT(test_seed_that_hangs_or_is_gone_is_passed_over),
        UNIT(test_nobody_there),
        UNIT(test_hosts_by_name),
        UNIT(test_unknown_hosts_block_nobody),
        UNIT(test_what_nobody_waits_for_is_sent_on_as_well),
        UNIT(test_script_is_sent_whole_to_each_node_once),
        UNIT(test_every_master_can_be_asked),
        UNIT(test_free_wakes_who_waits),
    };
    fiber_init(uv_default_loop());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
