/* The app's token in a real Redis: who has the lease, what is taken over, what a dump shows. */
#include "store_server.h"

#include "base/log.h"

#define TOKEN "app-token-in-clear"
#define CLIENT_ID "client-id-in-clear"
#define CLIENT_SECRET "client-secret-in-clear"
#define LEASE_MS 5000

static int set_up(void **state)
{
    (void)state;
    settings =
        (struct settings){.client_id = (char *)CLIENT_ID, .client_secret = (char *)CLIENT_SECRET};
    store_start();
    return 0;
}

static int64_t count_keys(const char *pattern)
{
    struct redis_value keys = ask("KEYS", pattern, NULL);
    int64_t count = (int64_t)keys.item_count;
    redis_value_clear(&keys);
    return count;
}

/* The text of this one is static: it is not cleared. */
static struct app_token new_token(int64_t obtained_at_ms)
{
    return (struct app_token){(char *)TOKEN, obtained_at_ms, clock_unix_s() + 3600};
}

static enum err take(int64_t seen_at_ms, struct lease *lease)
{
    struct app_token found = {0};
    enum err err = store_take_app_lease(store, seen_at_ms, LEASE_MS, lease, &found);
    app_token_clear(&found);
    return err;
}

FIBER_TEST(test_one_has_the_lease_and_the_rest_its_token)
{
    struct lease first = {0}, second = {0};
    struct app_token found = {0}, token = new_token(1000);
    CHECK(take(0, &first) == OK);
    CHECK(take(0, &second) == ERR_HELD);
    CHECK(take(0, &second) == ERR_HELD);
    CHECK(store_put_app_token(store, &first, 0, &token) == OK);
    CHECK(count_keys("test:lease:*") == 0);
    CHECK(store_take_app_lease(store, 0, LEASE_MS, &second, &found) == ERR_STALE);
    CHECK(found.access_token && strcmp(found.access_token, TOKEN) == 0);
    CHECK(found.obtained_at_ms == 1000 && found.expires_at == token.expires_at);
    app_token_clear(&found);
    CHECK(take(1000, &second) == OK);
}

FIBER_TEST(test_who_waited_sees_the_failure_and_who_comes_anew_does_not)
{
    struct lease holder = {0}, waiter = {0}, other = {0};
    CHECK(take(0, &holder) == OK);
    CHECK(take(0, &waiter) == ERR_HELD);
    CHECK(store_release_app_lease(store, &holder, true) == OK);
    CHECK(take(0, &waiter) == ERR_UPSTREAM);
    CHECK(take(0, &other) == OK);
    /* The lease is another's by now. */
    CHECK(store_release_app_lease(store, &holder, false) == OK);
    CHECK(take(0, &waiter) == ERR_HELD);
    CHECK(store_release_app_lease(store, &other, false) == OK);
    CHECK(count_keys("test:lease:*") == 0);
}

FIBER_TEST(test_who_comes_late_writes_nothing_and_keeps_no_lease)
{
    struct lease late = {0}, other = {0};
    struct app_token early = new_token(2000), old = new_token(1000);
    CHECK(take(0, &late) == OK);
    CHECK(store_put_app_token(store, &other, 0, &early) == OK);
    CHECK(count_keys("test:lease:*") == 1);
    CHECK(store_put_app_token(store, &late, 0, &old) == ERR_STALE);
    CHECK(count_keys("test:lease:*") == 0);
    struct app_token found = {0};
    CHECK(store_take_app_lease(store, 0, LEASE_MS, &late, &found) == ERR_STALE);
    CHECK(found.obtained_at_ms == 2000);
    app_token_clear(&found);
}

FIBER_TEST(test_a_record_that_does_not_open_is_replaced)
{
    struct lease lease = {0};
    struct app_token found = {0}, token = new_token(1000);
    CHECK(take(0, &lease) == OK);
    CHECK(store_put_app_token(store, &lease, 0, &token) == OK);
    memset(settings.keys.keys[0].key, 8, SEAL_KEY_LEN);
    CHECK(store_take_app_lease(store, 0, LEASE_MS, &lease, &found) == ERR_STALE);
    CHECK(!found.access_token && found.obtained_at_ms == 1000);
    CHECK(take(1000, &lease) == OK);
    token.obtained_at_ms = 2000;
    CHECK(store_put_app_token(store, &lease, 1000, &token) == OK);
    CHECK(store_take_app_lease(store, 0, LEASE_MS, &lease, &found) == ERR_STALE);
    CHECK(found.access_token && found.obtained_at_ms == 2000);
    app_token_clear(&found);
}

FIBER_TEST(test_what_is_too_short_for_a_record_is_none)
{
    static const char *const shorts[] = {"", "x", "12345678"};
    struct lease lease = {0};
    struct app_token token = new_token(1000);
    for (size_t i = 0; i < sizeof(shorts) / sizeof(shorts[0]); i++) {
        CHECK(take(0, &lease) == OK);
        CHECK(store_put_app_token(store, &lease, 0, &token) == OK);
        struct redis_value keys = ask("KEYS", "test:app-token:*", NULL);
        CHECK(keys.item_count == 1);
        const struct redis_arg args[] = {REDIS_TEXT("SET"), REDIS_BUF(&keys.items[0].text),
                                         REDIS_TEXT(shorts[i])};
        CHECK(redis_command(redis, args, 3, NULL) == OK);
        redis_value_clear(&keys);
    }
    CHECK(take(0, &lease) == OK);
}

FIBER_TEST(test_another_client_id_or_secret_is_another_record)
{
    static const char *const credentials[][2] = {
        {CLIENT_ID, CLIENT_SECRET}, {CLIENT_ID, "other"}, {"other", CLIENT_SECRET}};
    struct lease lease = {0};
    struct app_token token = new_token(1000);
    for (size_t i = 0; i < 3; i++) {
        settings.client_id = (char *)credentials[i][0];
        settings.client_secret = (char *)credentials[i][1];
        CHECK(take(0, &lease) == OK);
        CHECK(store_put_app_token(store, &lease, 0, &token) == OK);
        CHECK(count_keys("test:app-token:*") == (int64_t)i + 1);
    }
}

static bool contains(const struct buf *where, const char *what)
{
    return memmem(buf_str(where), where->len, what, strlen(what)) != NULL;
}

FIBER_TEST(test_a_dump_shows_nothing_and_the_record_ends_with_the_token)
{
    static const char *const words[] = {TOKEN, CLIENT_ID, CLIENT_SECRET};
    struct lease lease = {0};
    struct app_token token = new_token(1000);
    CHECK(take(0, &lease) == OK);
    CHECK(store_put_app_token(store, &lease, 0, &token) == OK);
    struct redis_value keys = ask("KEYS", "*", NULL);
    CHECK(keys.item_count == 1);
    struct redis_value value = ask("GET", buf_str(&keys.items[0].text), NULL);
    CHECK(value.text.len > 100);
    for (size_t i = 0; i < 3; i++) {
        CHECK(!contains(&keys.items[0].text, words[i]) && !contains(&value.text, words[i]));
    }
    struct redis_value left = ask("PTTL", buf_str(&keys.items[0].text), NULL);
    CHECK(left.integer > 3590000 && left.integer <= 3600000);
    redis_value_clear(&value);
    redis_value_clear(&keys);
}

FIBER_TEST(test_redis_away_is_told)
{
    struct lease lease = {0};
    struct app_token token = new_token(1000);
    kill(server_pid, SIGSTOP);
    settings.store_timeout_ms = 50;
    CHECK(take(0, &lease) == ERR_STORE);
    CHECK(store_put_app_token(store, &lease, 0, &token) == ERR_STORE);
    CHECK(store_release_app_lease(store, &lease, false) == ERR_STORE);
    kill(server_pid, SIGCONT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_has_the_lease_and_the_rest_its_token),
        TEST(test_who_waited_sees_the_failure_and_who_comes_anew_does_not),
        TEST(test_who_comes_late_writes_nothing_and_keeps_no_lease),
        TEST(test_a_record_that_does_not_open_is_replaced),
        TEST(test_what_is_too_short_for_a_record_is_none),
        TEST(test_another_client_id_or_secret_is_another_record),
        TEST(test_a_dump_shows_nothing_and_the_record_ends_with_the_token),
        TEST(test_redis_away_is_told),
    };
    seal_init();
    fiber_init(uv_default_loop());
    server_make_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_remove_dir();
    return failed;
}
