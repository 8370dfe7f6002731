/* Devices in a real Redis: which codes find them, what they are told and when, that an answer is
 * left once, for its device alone, and taken once; and what a dump shows. */
#include "store_server.h"

#include "base/seal_box.h"
#include "store/store_device.h"

#define CODE "BCDFGHJK"
#define SCOPE "streaming user-read-private"
#define TTL_S 600
#define LOOKS 50
#define INTERVAL_MS 4500
#define LONGER_MS 5000
#define WINDOW_MS 600000

static int set_up(void **state)
{
    (void)state;
    settings = (struct settings){.login_ttl_s = TTL_S};
    store_start();
    return 0;
}

static void put_device(struct secret *device_code)
{
    secret_new(device_code);
    CHECK(store_put_device(store, device_code, CODE, SCOPE) == OK);
}

static enum err find_and_forget(const char *user_code)
{
    struct device device = {0};
    enum err err = store_find_device(store, user_code, &device);
    device_clear(&device);
    return err;
}

static enum err poll_device(const struct secret *device_code)
{
    struct secret handle;
    return store_poll_device(store, device_code, INTERVAL_MS, LONGER_MS, &handle);
}

static enum err answer(const struct secret *device_code, const struct secret *handle)
{
    char name[SECRET_NAME_LEN + 1];
    box_name(device_code, name);
    return store_answer_device(store, name, handle);
}

/* The one key of that kind. */
static struct redis_value find_key(const char *pattern)
{
    struct redis_value keys = ask("KEYS", pattern, NULL);
    CHECK(keys.item_count == 1);
    return keys;
}

static void change_field(const char *command, const char *field, const char *value)
{
    struct redis_value keys = find_key("test:device:*");
    const struct redis_arg args[] = {REDIS_TEXT(command), REDIS_BUF(&keys.items[0].text),
                                     REDIS_TEXT(field), REDIS_TEXT(value)};
    CHECK(redis_command(redis, args, 4, NULL) == OK);
    redis_value_clear(&keys);
}

/* As if so much time had passed since the device was last told to wait. */
static void let_pass(const char *minus_ms)
{
    change_field("HINCRBY", "polled", minus_ms);
}

FIBER_TEST(test_a_device_is_found_by_its_code_which_no_other_gets)
{
    struct secret device_code, other;
    struct device device = {0};
    char name[SECRET_NAME_LEN + 1];
    put_device(&device_code);
    box_name(&device_code, name);
    CHECK(store_find_device(store, CODE, &device) == OK);
    CHECK(strcmp(device.name, name) == 0 && strcmp(device.scope, SCOPE) == 0);
    device_clear(&device);
    CHECK(find_and_forget("BCDFGHJL") == ERR_ABSENT);
    secret_new(&other);
    CHECK(store_put_device(store, &other, CODE, "") == ERR_USED);
    CHECK(poll_device(&other) == ERR_ABSENT);
    CHECK(store_find_device(store, CODE, &device) == OK && strcmp(device.name, name) == 0);
    device_clear(&device);
}

FIBER_TEST(test_a_code_that_is_looked_at_too_often_is_void)
{
    struct secret device_code;
    put_device(&device_code);
    for (int i = 0; i < LOOKS; i++) {
        CHECK(find_and_forget(CODE) == OK);
    }
    CHECK(find_and_forget(CODE) == ERR_ABSENT);
    CHECK(poll_device(&device_code) == ERR_PENDING);
}

FIBER_TEST(test_an_answer_is_left_once_and_taken_once)
{
    struct secret device_code, handle, second, got;
    put_device(&device_code);
    secret_new(&handle);
    secret_new(&second);
    CHECK(poll_device(&device_code) == ERR_PENDING);
    CHECK(answer(&device_code, &handle) == OK);
    CHECK(answer(&device_code, &second) == ERR_ABSENT);
    CHECK(answer(&device_code, NULL) == ERR_ABSENT);
    CHECK(find_and_forget(CODE) == ERR_ABSENT);
    change_field("HSET", "until", "1000"); /* it came in time, and may be fetched later */
    for (int i = 0; i < 2; i++) {          /* at once, and as often as it likes */
        CHECK(store_poll_device(store, &device_code, INTERVAL_MS, LONGER_MS, &got) == OK);
        CHECK(secret_equal(&got, &handle));
    }
    CHECK(store_take_device(store, &device_code) == OK);
    CHECK(store_take_device(store, &device_code) == ERR_USED);
    CHECK(poll_device(&device_code) == ERR_ABSENT);
    CHECK(answer(&device_code, &second) == ERR_ABSENT);
}

FIBER_TEST(test_a_no_stays_a_no)
{
    struct secret device_code, handle;
    put_device(&device_code);
    secret_new(&handle);
    CHECK(answer(&device_code, NULL) == OK);
    change_field("HSET", "until", "1000");
    CHECK(poll_device(&device_code) == ERR_DENIED && poll_device(&device_code) == ERR_DENIED);
    CHECK(answer(&device_code, &handle) == ERR_ABSENT);
    CHECK(find_and_forget(CODE) == ERR_ABSENT);
}

FIBER_TEST(test_a_device_that_asks_too_soon_has_to_wait_longer_but_not_for_its_answer)
{
    struct secret device_code, handle;
    put_device(&device_code);
    CHECK(poll_device(&device_code) == ERR_PENDING);
    let_pass("-4600");
    CHECK(poll_device(&device_code) == ERR_PENDING);
    CHECK(poll_device(&device_code) == ERR_SLOW_DOWN);
    let_pass("-4600");
    CHECK(poll_device(&device_code) == ERR_SLOW_DOWN); /* 9.5 s by now, and 14.5 s from here */
    let_pass("-9500");
    CHECK(poll_device(&device_code) == ERR_SLOW_DOWN); /* 14.1 s are over */
    let_pass("-5500");
    CHECK(poll_device(&device_code) == ERR_PENDING);
    for (int i = 0; i < 20; i++) {
        CHECK(poll_device(&device_code) == ERR_SLOW_DOWN);
    }
    let_pass("-60000");
    CHECK(poll_device(&device_code) == ERR_PENDING);
    CHECK(poll_device(&device_code) == ERR_SLOW_DOWN);
    secret_new(&handle);
    CHECK(answer(&device_code, &handle) == OK);
    CHECK(poll_device(&device_code) == OK);
}

FIBER_TEST(test_codes_expire_and_a_device_hears_of_it)
{
    struct secret device_code, handle;
    put_device(&device_code);
    secret_new(&handle);
    struct redis_value keys = find_key("test:device:*");
    struct redis_value left = ask("PTTL", buf_str(&keys.items[0].text), NULL);
    CHECK(left.integer > 1195000 && left.integer <= 1200000);
    redis_value_clear(&keys);
    keys = find_key("test:user-code:*");
    left = ask("PTTL", buf_str(&keys.items[0].text), NULL);
    CHECK(left.integer > 595000 && left.integer <= 600000);
    redis_value_clear(&keys);
    change_field("HSET", "until", "1000");
    CHECK(poll_device(&device_code) == ERR_EXPIRED && poll_device(&device_code) == ERR_EXPIRED);
    CHECK(find_and_forget(CODE) == ERR_ABSENT);
    CHECK(answer(&device_code, &handle) == ERR_ABSENT);
    CHECK(answer(&device_code, NULL) == ERR_ABSENT);
}

FIBER_TEST(test_what_was_not_left_here_for_this_device_is_no_answer)
{
    struct secret device_code, other, handle;
    uint8_t box[BOX_LEN];
    char name[SECRET_NAME_LEN + 1];
    put_device(&device_code);
    secret_new(&handle);
    secret_new(&other);
    CHECK(poll_device(&other) == ERR_ABSENT);
    CHECK(store_answer_device(store, "no name", &handle) == ERR_ABSENT);
    CHECK(answer(&other, &handle) == ERR_ABSENT);

    /* A box that was filled by who has Redis, and no key of the ring. */
    box_name(&device_code, name);
    CHECK(box_fill(name, &handle, box) == OK);
    change_field("HSET", "state", "given");
    struct redis_value keys = find_key("test:device:*");
    const struct redis_arg args[] = {REDIS_TEXT("HSET"),
                                     REDIS_BUF(&keys.items[0].text),
                                     REDIS_TEXT("answer"),
                                     {box, sizeof(box)}};
    CHECK(redis_command(redis, args, 4, NULL) == OK);
    redis_value_clear(&keys);
    CHECK(poll_device(&device_code) == ERR_ABSENT);
}

FIBER_TEST(test_the_record_of_one_code_says_nothing_under_another)
{
    struct secret device_code;
    put_device(&device_code);
    struct redis_value own = find_key("test:user-code:*");
    secret_new(&device_code);
    CHECK(store_put_device(store, &device_code, "ZZZZZZZZ", SCOPE) == OK);
    struct redis_value all = ask("KEYS", "test:user-code:*", NULL);
    CHECK(all.item_count == 2);
    bool is_first = strcmp(buf_str(&all.items[0].text), buf_str(&own.items[0].text)) == 0;
    struct redis_value record = ask("GET", buf_str(&own.items[0].text), NULL);
    const struct redis_arg args[] = {REDIS_TEXT("SET"), REDIS_BUF(&all.items[is_first].text),
                                     REDIS_BUF(&record.text)};
    CHECK(redis_command(redis, args, 3, NULL) == OK);
    CHECK(find_and_forget("ZZZZZZZZ") == ERR_ABSENT);
    CHECK(find_and_forget(CODE) == OK);
    redis_value_clear(&record);
    redis_value_clear(&all);
    redis_value_clear(&own);
}

FIBER_TEST(test_a_key_that_this_process_does_not_have_is_no_end)
{
    struct secret device_code, handle;
    put_device(&device_code);
    secret_new(&handle);
    CHECK(answer(&device_code, &handle) == OK);
    strcpy(settings.keys.keys[0].kid, "k2");
    CHECK(find_and_forget(CODE) == ERR_STORE);
    CHECK(poll_device(&device_code) == ERR_STORE);
    strcpy(settings.keys.keys[0].kid, "k1");
    CHECK(poll_device(&device_code) == OK);
}

static int64_t count(const char *guesser, int by)
{
    int64_t guesses = -1;
    CHECK(store_count_guess(store, guesser, by, WINDOW_MS, &guesses) == OK);
    return guesses;
}

FIBER_TEST(test_guesses_are_counted_for_each_guesser_until_the_window_ends)
{
    CHECK(count("192.0.2.1", 1) == 1 && count("192.0.2.1", 1) == 2);
    struct redis_value keys = find_key("test:guesses:*");
    const char *key = buf_str(&keys.items[0].text);
    CHECK(!strstr(key, "192.0.2.1"));
    CHECK(ask("PEXPIRE", key, "1000").integer == 1);
    CHECK(count("192.0.2.1", 1) == 3);
    CHECK(ask("PTTL", key, NULL).integer <= 1000); /* the window is that of the first */
    CHECK(count("192.0.2.2", 1) == 1 && count("", 1) == 1);
    CHECK(count("192.0.2.1", -1) == 2);
    CHECK(ask("DEL", key, NULL).integer == 1);
    CHECK(count("192.0.2.1", -1) == -1); /* its window ended meanwhile */
    CHECK(ask("PTTL", key, NULL).integer > 0);
    redis_value_clear(&keys);
}

static bool contains(const struct buf *where, const void *what, size_t len)
{
    return memmem(buf_str(where), where->len, what, len) != NULL;
}

FIBER_TEST(test_a_dump_shows_no_code_and_no_handle)
{
    static const char dump[] = "local out = {} "
                               "for _, key in ipairs(redis.call('KEYS', '*')) do "
                               "  out[#out + 1] = key "
                               "  local parts = redis.call('TYPE', key).ok == 'string' "
                               "    and {redis.call('GET', key)} or redis.call('HGETALL', key) "
                               "  for _, part in ipairs(parts) do out[#out + 1] = part end "
                               "end "
                               "return out";
    struct secret secrets[2]; /* device code and handle */
    put_device(&secrets[0]);
    secret_new(&secrets[1]);
    CHECK(poll_device(&secrets[0]) == ERR_PENDING);
    CHECK(answer(&secrets[0], &secrets[1]) == OK);
    struct redis_value found = ask("EVAL", dump, "0");
    CHECK(found.item_count == 2 + 1 + 2 * 4); /* two keys; a string, and a hash of four fields */
    for (size_t i = 0; i < found.item_count; i++) {
        const struct buf *part = &found.items[i].text;
        CHECK(!contains(part, CODE, strlen(CODE)) && !contains(part, SCOPE, strlen(SCOPE)));
        for (size_t k = 0; k < 2; k++) {
            char text[SECRET_TEXT_LEN + 1];
            secret_format(&secrets[k], text);
            CHECK(!contains(part, text, SECRET_TEXT_LEN));
            CHECK(!contains(part, secrets[k].bytes, SECRET_LEN));
        }
    }
    redis_value_clear(&found);
}

FIBER_TEST(test_redis_away_is_told)
{
    struct secret device_code, handle;
    int64_t guesses = 0;
    put_device(&device_code);
    secret_new(&handle);
    kill(server_pid, SIGSTOP);
    settings.store_timeout_ms = 50;
    CHECK(store_put_device(store, &handle, "ZZZZZZZZ", SCOPE) == ERR_STORE);
    CHECK(find_and_forget(CODE) == ERR_STORE);
    CHECK(poll_device(&device_code) == ERR_STORE);
    CHECK(store_take_device(store, &device_code) == ERR_STORE);
    CHECK(store_count_guess(store, "", 1, WINDOW_MS, &guesses) == ERR_STORE);
    CHECK(answer(&device_code, &handle) == ERR_STORE);
    kill(server_pid, SIGCONT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_device_is_found_by_its_code_which_no_other_gets),
        TEST(test_a_code_that_is_looked_at_too_often_is_void),
        TEST(test_an_answer_is_left_once_and_taken_once),
        TEST(test_a_no_stays_a_no),
        TEST(test_a_device_that_asks_too_soon_has_to_wait_longer_but_not_for_its_answer),
        TEST(test_codes_expire_and_a_device_hears_of_it),
        TEST(test_what_was_not_left_here_for_this_device_is_no_answer),
        TEST(test_the_record_of_one_code_says_nothing_under_another),
        TEST(test_a_key_that_this_process_does_not_have_is_no_end),
        TEST(test_guesses_are_counted_for_each_guesser_until_the_window_ends),
        TEST(test_a_dump_shows_no_code_and_no_handle),
        TEST(test_redis_away_is_told),
    };
    seal_init();
    fiber_init(uv_default_loop());
    server_make_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_remove_dir();
    return failed;
}
