/* store/store_verdict.c against a real Redis: renewals counted by session, over the last minutes.
 */
#include "store_server.h"

#include "base/log.h"

static int set_up(void **state)
{
    (void)state;
    settings = (struct settings){0};
    store_start();
    return 0;
}

static void note(unsigned char session, bool is_refused)
{
    struct secret secret = {{session}};
    store_note_verdict(store, &secret, is_refused);
}

static void check_counts(int64_t sessions, int64_t refused)
{
    struct verdicts verdicts = {0};
    CHECK(store_count_verdicts(store, &verdicts) == OK);
    CHECK(verdicts.sessions == sessions);
    CHECK(verdicts.refused == refused);
}

FIBER_TEST(sessions_are_counted_once)
{
    check_counts(0, 0);
    for (int turn = 0; turn < 3; turn++) {
        for (unsigned char i = 0; i < 7; i++) {
            note(i, false);
        }
        for (unsigned char i = 5; i < 16; i++) {
            note(i, true);
        }
    }
    check_counts(16, 11);
}

/* Moves all that was noted back in time. */
static void age_by(int64_t minutes)
{
    struct redis_value keys = ask("KEYS", "test:verdicts:*", NULL);
    for (size_t i = 0; i < keys.item_count; i++) {
        const char *old = buf_str(&keys.items[i].text);
        const char *bucket = strrchr(old, ':') + 1;
        char new[128];
        snprintf(new, sizeof(new), "%.*s%lld", (int)(bucket - old), old,
                 strtoll(bucket, NULL, 10) - (long long)minutes);
        struct redis_value done = ask("RENAME", old, new);
        redis_value_clear(&done);
    }
    redis_value_clear(&keys);
}

/* From the beginning of a minute on, so that none begins meanwhile. */
static void wait_for_minute(void)
{
    while (clock_unix_s() % 60 > 55) {
        fiber_sleep(100);
    }
}

FIBER_TEST(what_is_older_than_ten_minutes_does_not_count)
{
    wait_for_minute();
    note(1, true);
    note(2, false);
    check_counts(2, 1);
    age_by(9);
    check_counts(2, 1);
    age_by(1);
    check_counts(0, 0);
}

FIBER_TEST(the_keys_live_in_one_place_and_end_by_themselves)
{
    note(1, true);
    note(1, false);
    check_counts(1, 1);
    struct redis_value keys = ask("KEYS", "*", NULL);
    CHECK(keys.item_count == 2);
    for (size_t i = 0; i < keys.item_count; i++) {
        const char *key = buf_str(&keys.items[i].text);
        CHECK(strncmp(key, "test:verdicts:{all}:", 20) == 0);
        struct redis_value left = ask("TTL", key, NULL);
        CHECK(left.integer > 600 && left.integer <= 720);
        redis_value_clear(&left);
    }
    redis_value_clear(&keys);
}

FIBER_TEST(without_redis_nothing_is_known)
{
    struct verdicts verdicts = {.sessions = -1};
    note(1, true);
    server_kill();
    note(2, true);
    CHECK(store_count_verdicts(store, &verdicts) == ERR_STORE);
    CHECK(verdicts.sessions == -1);
    server_start("");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sessions_are_counted_once),
        TEST(what_is_older_than_ten_minutes_does_not_count),
        TEST(the_keys_live_in_one_place_and_end_by_themselves),
        TEST(without_redis_nothing_is_known),
    };
    seal_init();
    fiber_init(uv_default_loop());
    server_make_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_remove_dir();
    return failed;
}
