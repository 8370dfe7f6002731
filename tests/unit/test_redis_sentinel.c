/* A master that Sentinels name, all of them with answers that are written here. tests/redis has
 * real ones. */
#include "fake_redis.h"

#include "store/redis.h"

/* For what succeeds, on a busy machine, too; and for what fails. */
#define TIMEOUT_MS 2000
#define SHORT_TIMEOUT_MS 200
/* What a busy machine may add. */
#define SLACK_MS 500

#define SENTINEL_A (&fakes[0])
#define SENTINEL_B (&fakes[1])
#define REDIS_A (&fakes[2])
#define REDIS_B (&fakes[3])

static struct settings settings;
static struct redis_host hosts[2];
static struct redis *redis;
static struct fake *master;   /* whom the Sentinels name */
static struct fake *believed; /* whom SENTINEL_A names; NULL: that one */

static const char *answer_well(struct fake *fake, size_t count, char **args)
{
    (void)count;
    if (strcmp(args[0], "SENTINEL") == 0) {
        const struct fake *named = fake == SENTINEL_A && believed ? believed : master;
        CHECK(strcmp(args[1], "get-master-addr-by-name") == 0 && strcmp(args[2], "main") == 0);
        return fake_text("*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", named->port);
    }
    if (strcmp(args[0], "ROLE") == 0 && fake == master) {
        return "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    }
    if (strcmp(args[0], "ROLE") == 0) {
        return "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
    }
    if (strcmp(args[0], "INCR") == 0 && fake != master) {
        return "-READONLY You can't write against a read only replica.\r\n";
    }
    return fake_text(":%d\r\n", (int)(fake - fakes));
}

static enum err ask(const char *name, const char *key, int64_t *out)
{
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_TEXT(key)};
    struct redis_value value = {0};
    enum err err = redis_command(redis, args, 2, &value);
    *out = value.integer;
    redis_value_clear(&value);
    return err;
}

/* That a command is answered by that Redis. */
#define CHECK_NODE(node, name)                                                                     \
    do {                                                                                           \
        int64_t answer = -1;                                                                       \
        CHECK(ask((name), "k", &answer) == OK);                                                    \
        CHECK(answer == (node)-fakes);                                                             \
    } while (0)

/* That a command fails for that reason, and when. */
#define CHECK_TROUBLE(want, name)                                                                  \
    do {                                                                                           \
        int64_t answer;                                                                            \
        uint64_t asked_ms = clock_mono_ms();                                                       \
        settings.store_timeout_ms = SHORT_TIMEOUT_MS;                                              \
        CHECK(ask((name), "k", &answer) == ERR_STORE);                                             \
        CHECK(redis_trouble(redis) == (want));                                                     \
        CHECK(clock_mono_ms() - asked_ms < SHORT_TIMEOUT_MS + SLACK_MS);                           \
        settings.store_timeout_ms = TIMEOUT_MS;                                                    \
    } while (0)

static void begin_anew(void)
{
    redis_free(redis);
    redis = redis_new(uv_default_loop(), &settings);
}

static void (*body_of_test)(void);

static void body(void *argument)
{
    (void)argument;
    static char host[] = "127.0.0.1", name[] = "main";
    fakes_start(answer_well);
    hosts[0] = (struct redis_host){host, SENTINEL_A->port};
    hosts[1] = (struct redis_host){host, SENTINEL_B->port};
    settings = (struct settings){.store_timeout_ms = TIMEOUT_MS};
    settings.redis =
        (struct redis_url){.kind = REDIS_SENTINEL, .hosts = hosts, .host_count = 2, .master = name};
    master = REDIS_A;
    believed = NULL;
    redis = redis_new(uv_default_loop(), &settings);
    body_of_test();
    redis_free(redis);
    fakes_end = true;
}

#define TEST(name)                                                                                 \
    static void name##_body(void);                                                                 \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        body_of_test = name##_body;                                                                \
        run_body(body, NULL);                                                                      \
    }                                                                                              \
    static void name##_body(void)

TEST(test_master_is_found_by_its_name)
{
    CHECK_NODE(REDIS_A, "GET");
    CHECK_NODE(REDIS_A, "INCR");
    CHECK(fake_count(SENTINEL_A, "SENTINEL") == 1 && fake_count(SENTINEL_B, "SENTINEL") == 0);
    CHECK(strcmp(buf_str(&REDIS_A->seen), "ROLE ;GET k;INCR k;") == 0);
    CHECK(redis_count_masters(redis) == 1 && redis_is_whole(redis));
}

TEST(test_sentinel_that_is_gone_or_hangs_is_passed_over_and_the_other_remembered)
{
    fake_kill(SENTINEL_A);
    CHECK_NODE(REDIS_A, "GET");
    fake_listen(SENTINEL_A);
    SENTINEL_A->is_deaf = true;
    begin_anew();
    CHECK_NODE(REDIS_A, "GET");
    CHECK(fake_count(SENTINEL_B, "SENTINEL") == 2);
}

TEST(test_fail_over_is_followed_when_the_old_master_refuses_writes)
{
    CHECK_NODE(REDIS_A, "INCR");
    master = REDIS_B;
    CHECK_NODE(REDIS_B, "INCR");
    CHECK(fake_count(REDIS_A, "INCR") == 2);
    CHECK_NODE(REDIS_B, "GET");
}

static const char *after_refusal; /* what "INCR b" gets behind a refused "INCR a" */
static int refusals_left;

static const char *recovering_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "INCR") == 0 && strcmp(args[1], "a") == 0 && refusals_left-- > 0) {
        return "-LOADING Redis is loading the dataset in memory\r\n";
    }
    if (strcmp(args[0], "INCR") == 0 && strcmp(args[1], "b") == 0) {
        return after_refusal;
    }
    return answer_well(fake, count, args);
}

/* "INCR a" and "INCR b" in one write, of which the first is refused once. */
static enum err incr_both(const char *second)
{
    const struct redis_arg args[] = {REDIS_TEXT("INCR"), REDIS_TEXT("a"), REDIS_TEXT("INCR"),
                                     REDIS_TEXT("b")};
    const size_t counts[] = {2, 2};
    struct redis_value values[2] = {0};
    CHECK_NODE(REDIS_A, "GET");
    REDIS_A->answer = recovering_answer;
    after_refusal = second;
    refusals_left = 1;
    enum err err = redis_pipeline(redis, args, counts, 2, values);
    redis_value_clear(&values[0]);
    redis_value_clear(&values[1]);
    return err;
}

TEST(test_command_behind_a_refused_one_is_done_once)
{
    CHECK(incr_both(":7\r\n") == OK);
    CHECK(fake_count(REDIS_A, "INCR a") == 2 && fake_count(REDIS_A, "INCR b") == 1);
    CHECK(fake_count(REDIS_A, "ROLE") == 2);
}

TEST(test_command_behind_a_refused_one_is_not_sent_again_when_its_connection_is_lost)
{
    CHECK(incr_both("") == ERR_STORE);
    CHECK(redis_trouble(redis) == TROUBLE_LOADING || redis_trouble(redis) == TROUBLE_UNREACHABLE);
    CHECK(fake_count(REDIS_A, "INCR a") == 1 && fake_count(REDIS_A, "INCR b") == 1);
    CHECK_NODE(REDIS_A, "GET");
}

static void promote(uv_timer_t *timer)
{
    (void)timer;
    master = REDIS_B;
}

TEST(test_command_finds_the_new_master_within_its_time)
{
    uv_timer_t timer;
    CHECK_NODE(REDIS_A, "GET");
    fake_kill(REDIS_A);
    fiber_sleep(5);
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET");
    after(&timer, 150, promote);
    CHECK_NODE(REDIS_B, "GET");
    over(&timer);
}

TEST(test_master_that_hangs_is_left_for_the_new_one)
{
    uv_timer_t timer;
    CHECK_NODE(REDIS_A, "GET");
    REDIS_A->is_deaf = true;
    CHECK_TROUBLE(TROUBLE_SLOW, "GET");
    after(&timer, 50, promote);
    CHECK_NODE(REDIS_B, "GET");
    CHECK(fake_count(REDIS_A, "GET") == 1); /* nothing was sent to it that did not answer */
    over(&timer);
}

static const char *stubborn_answer(struct fake *fake, size_t count, char **args)
{
    return strcmp(args[0], "ROLE") == 0 ? "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
           : fake == REDIS_A            ? ":2\r\n"
                                        : answer_well(fake, count, args);
}

/* Which answers commands, asked for until it is that one, or for two seconds. */
static struct fake *wait_for(const struct fake *want)
{
    int64_t answer = -1;
    for (int i = 0; i < 100 && answer != want - fakes; i++) {
        CHECK(ask("INCR", "k", &answer) == OK);
        fiber_sleep(20);
    }
    return &fakes[answer];
}

TEST(test_old_master_that_goes_on_serving_is_left)
{
    REDIS_A->answer = stubborn_answer;
    CHECK_NODE(REDIS_A, "INCR");
    master = REDIS_B;
    CHECK(wait_for(REDIS_B) == REDIS_B);
}

TEST(test_one_sentinel_that_knows_is_enough_and_the_others_change_nothing)
{
    REDIS_A->answer = stubborn_answer;
    CHECK_NODE(REDIS_A, "INCR");
    believed = REDIS_A; /* by SENTINEL_A, for some seconds more */
    master = REDIS_B;
    CHECK(wait_for(REDIS_B) == REDIS_B);
    int asked = fake_count(SENTINEL_A, "SENTINEL");
    for (int i = 0; i < 100 && fake_count(SENTINEL_A, "SENTINEL") < asked + 3; i++) {
        CHECK_NODE(REDIS_B, "INCR");
        fiber_sleep(20);
    }
    CHECK(fake_count(SENTINEL_A, "SENTINEL") >= asked + 3);
}

TEST(test_word_of_a_master_that_was_replaced_is_not_confirmed)
{
    REDIS_A->answer = stubborn_answer;
    CHECK_NODE(REDIS_A, "GET");
    CHECK(redis_confirm(redis) == OK);
    believed = REDIS_A;
    master = REDIS_B;
    CHECK(redis_confirm(redis) == ERR_STORE);
    CHECK_NODE(REDIS_B, "GET");
    CHECK(redis_confirm(redis) == OK);
    fake_kill(SENTINEL_A);
    fake_kill(SENTINEL_B);
    CHECK(redis_confirm(redis) == OK); /* nobody says otherwise */
}

static void body_confirm(void *argument)
{
    int *confirmed = argument;
    *confirmed += redis_confirm(redis) == OK;
}

TEST(test_many_confirmations_share_the_questions)
{
    int confirmed = 0;
    CHECK_NODE(REDIS_A, "GET");
    int asked = fake_count(SENTINEL_A, "SENTINEL");
    for (int i = 0; i < 100; i++) {
        fiber_spawn(body_confirm, &confirmed);
    }
    for (int i = 0; i < TIMEOUT_MS && confirmed < 100; i++) {
        fiber_sleep(1);
    }
    CHECK(confirmed == 100);
    CHECK(fake_count(SENTINEL_A, "SENTINEL") - asked <= 2);
}

TEST(test_master_that_serves_is_not_left_for_one_that_says_it_is_none)
{
    CHECK_NODE(REDIS_A, "INCR");
    believed = REDIS_B;
    int asked = fake_count(SENTINEL_A, "SENTINEL");
    for (int i = 0; i < 100 && fake_count(SENTINEL_A, "SENTINEL") < asked + 2; i++) {
        CHECK_NODE(REDIS_A, "INCR");
        fiber_sleep(20);
    }
    CHECK(fake_count(SENTINEL_A, "SENTINEL") >= asked + 2 && fake_count(REDIS_B, "ROLE") > 0);
    CHECK(fake_count(REDIS_B, "INCR") == 0);
    CHECK_NODE(REDIS_A, "INCR");
    CHECK(fake_count(REDIS_A, "ROLE") == 1); /* over the same connection all the time */
}

TEST(test_sentinels_that_disagree_are_asked_in_turn)
{
    believed = REDIS_B; /* which says itself that it is none */
    CHECK_NODE(REDIS_A, "INCR");
    CHECK(fake_count(REDIS_B, "INCR") == 0);
}

TEST(test_replica_that_all_name_is_asked_nothing)
{
    static struct fake nobody;
    CHECK_NODE(REDIS_A, "GET");
    fake_hang_up(REDIS_A);
    nobody.port = REDIS_A->port;
    master = &nobody;
    fiber_sleep(5);
    CHECK_TROUBLE(TROUBLE_READONLY, "GET");
    CHECK(fake_count(REDIS_A, "GET") == 1);
    master = REDIS_A;
    CHECK_NODE(REDIS_A, "GET");
}

static const char *unknown_answer(struct fake *fake, size_t count, char **args)
{
    return strcmp(args[0], "SENTINEL") == 0 ? "*-1\r\n" : answer_well(fake, count, args);
}

TEST(test_name_that_nobody_knows)
{
    SENTINEL_A->answer = SENTINEL_B->answer = unknown_answer;
    CHECK_TROUBLE(TROUBLE_NOMASTER, "GET");
    CHECK(strcmp(redis_trouble_word(redis_trouble(redis)), "nomaster") == 0);
    SENTINEL_B->answer = answer_well;
    CHECK_NODE(REDIS_A, "GET");
}

static const char *garbled_answer(struct fake *fake, size_t count, char **args)
{
    static int next;
    static const char *const replies[] = {"+OK\r\n",
                                          "*0\r\n",
                                          "*1\r\n$1\r\na\r\n",
                                          "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
                                          "*2\r\n$1\r\na\r\n$5\r\n99999\r\n",
                                          ":1\r\n",
                                          "HTTP/1.1 400 Bad\r\n",
                                          "-ERR no\r\n",
                                          ""};
    (void)fake;
    (void)count;
    (void)args;
    return replies[next++ % 9];
}

TEST(test_garbage_is_passed_over)
{
    for (int i = 0; i < 9; i++) {
        SENTINEL_A->answer = garbled_answer;
        CHECK_NODE(REDIS_A, "GET");
        begin_anew();
    }
    SENTINEL_B->answer = garbled_answer;
    uint64_t begin_ms = clock_mono_ms();
    int64_t answer;
    settings.store_timeout_ms = SHORT_TIMEOUT_MS;
    CHECK(ask("GET", "k", &answer) == ERR_STORE);
    CHECK(clock_mono_ms() - begin_ms < SHORT_TIMEOUT_MS + SLACK_MS);
}

TEST(test_short_timeout_leaves_time_to_connect)
{
    settings.store_timeout_ms = 2;
    int64_t answer = -1;
    for (int i = 0; i < 200 && answer < 0; i++) {
        enum err err = ask("GET", "k", &answer);
        answer = err ? -1 : answer;
        fiber_sleep(10);
    }
    CHECK(answer == REDIS_A - fakes);
}

TEST(test_no_sentinel_there)
{
    fake_kill(SENTINEL_A);
    fake_kill(SENTINEL_B);
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET");
    CHECK_TROUBLE(TROUBLE_UNREACHABLE, "GET");
    fake_listen(SENTINEL_B);
    CHECK_NODE(REDIS_A, "GET");
    /* As long as the master is there, they are not needed. */
    fake_kill(SENTINEL_B);
    CHECK_NODE(REDIS_A, "GET");
}

static bool is_known(const struct fake *fake)
{
    return fake_count(fake, "AUTH user;") > 0;
}

static const char *guarded_answer(struct fake *fake, size_t count, char **args)
{
    if (strcmp(args[0], "AUTH") == 0) {
        CHECK(count == 3 && strcmp(args[2], "sesame") == 0);
        return "+OK\r\n";
    }
    if (!is_known(fake)) {
        return "-NOAUTH Authentication required.\r\n";
    }
    return answer_well(fake, count, args);
}

TEST(test_password_is_given_to_sentinels_that_ask_for_one)
{
    static char user[] = "user", password[] = "sesame";
    settings.redis.user = user;
    settings.redis.password = password;
    settings.redis.database = 3;
    begin_anew();
    REDIS_A->answer = guarded_answer;
    CHECK_NODE(REDIS_A, "GET");
    CHECK(strcmp(buf_str(&REDIS_A->seen), "AUTH user;SELECT 3;ROLE ;GET k;") == 0);
    CHECK(strcmp(buf_str(&SENTINEL_A->seen), "SENTINEL get-master-addr-by-name;") == 0);
    SENTINEL_A->answer = SENTINEL_B->answer = guarded_answer;
    begin_anew();
    CHECK_NODE(REDIS_A, "GET");
    CHECK(fake_count(SENTINEL_A, "AUTH user;SENTINEL get-master-addr-by-name;") == 1);
    CHECK(fake_count(SENTINEL_A, "SELECT") == 0);
}

static const char *mute_answer(struct fake *fake, size_t count, char **args)
{
    return strcmp(args[0], "ROLE") == 0 ? NULL : answer_well(fake, count, args);
}

TEST(test_nothing_is_sent_before_the_role_is_known)
{
    REDIS_A->answer = mute_answer;
    CHECK_TROUBLE(TROUBLE_SLOW, "INCR");
    CHECK(fake_count(REDIS_A, "INCR") == 0);
    REDIS_A->answer = answer_well;
    CHECK_NODE(REDIS_A, "INCR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_master_is_found_by_its_name),
        cmocka_unit_test(
            test_sentinel_that_is_gone_or_hangs_is_passed_over_and_the_other_remembered),
        cmocka_unit_test(test_fail_over_is_followed_when_the_old_master_refuses_writes),
        cmocka_unit_test(test_command_behind_a_refused_one_is_done_once),
        cmocka_unit_test(
            test_command_behind_a_refused_one_is_not_sent_again_when_its_connection_is_lost),
        cmocka_unit_test(test_command_finds_the_new_master_within_its_time),
        cmocka_unit_test(test_master_that_hangs_is_left_for_the_new_one),
        cmocka_unit_test(test_old_master_that_goes_on_serving_is_left),
        cmocka_unit_test(test_one_sentinel_that_knows_is_enough_and_the_others_change_nothing),
        cmocka_unit_test(test_word_of_a_master_that_was_replaced_is_not_confirmed),
        cmocka_unit_test(test_many_confirmations_share_the_questions),
        cmocka_unit_test(test_master_that_serves_is_not_left_for_one_that_says_it_is_none),
        cmocka_unit_test(test_sentinels_that_disagree_are_asked_in_turn),
        cmocka_unit_test(test_replica_that_all_name_is_asked_nothing),
        cmocka_unit_test(test_name_that_nobody_knows),
        cmocka_unit_test(test_garbage_is_passed_over),
        cmocka_unit_test(test_short_timeout_leaves_time_to_connect),
        cmocka_unit_test(test_no_sentinel_there),
        cmocka_unit_test(test_password_is_given_to_sentinels_that_ask_for_one),
        cmocka_unit_test(test_nothing_is_sent_before_the_role_is_known),
    };
    fiber_init(uv_default_loop());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
