/* Slots of keys and commands, and what nodes say about their owners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis_slots.h"

/* The slots are what CLUSTER KEYSLOT of a Redis 7.0 says. */
static const struct {
    const char *key;
    int slot;
} keys[] = {
    {"", 0},
    {"123456789", 12739},
    {"foo", 12182},
    {"{foo}", 12182},
    {"a{foo}b", 12182},
    {"a{foo}{bar}", 12182},
    {"spotify-auth:session:{foo}", 12182},
    {"spotify-auth:lease:{foo}", 12182},
    {"foo{}", 5542},
    {"{}foo", 9500},
    {"foo{", 7673},
    {"}foo{bar", 7622},
    {"{{foo}", 13308},
};

static void test_slot_of_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        print_message("%s\n", keys[i].key);
        assert_int_equal(redis_slot_of_key(keys[i].key, strlen(keys[i].key)), keys[i].slot);
    }
}

static const struct {
    const char *words[6];
    const char *key; /* NULL: none */
} commands[] = {
    {{"GET", "foo"}, "foo"},
    {{"SET", "foo", "bar", "PX", "1"}, "foo"},
    {{"EVAL", "return 1", "2", "foo", "bar"}, "foo"},
    {{"EVALSHA", "0123", "1", "foo", "bar"}, "foo"},
    {{"EVAL", "return 1", "0"}, NULL},
    {{"EVAL", "return 1", "0", "argument"}, NULL},
    {{"EVAL", "return 1", "1"}, NULL},
    {{"SCRIPT", "LOAD", "return 1"}, NULL},
    {{"INFO", "memory"}, NULL},
    {{"CONFIG", "GET", "save"}, NULL},
    {{"PING"}, NULL},
    {{"DBSIZE"}, NULL},
};

static void test_slot_of_command(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        struct redis_arg args[6];
        size_t count = 0;
        while (count < 6 && commands[i].words[count]) {
            args[count] = REDIS_TEXT(commands[i].words[count]);
            count++;
        }
        const char *key = commands[i].key;
        print_message("%s\n", commands[i].words[0]);
        assert_int_equal(redis_slot_of_command(args, count),
                         key ? redis_slot_of_key(key, strlen(key)) : -1);
    }
}

static const struct {
    const char *error;
    int slot; /* -1: refused */
    const char *host;
    int port;
} redirections[] = {
    {"MOVED 3999 127.0.0.1:6381", 3999, "127.0.0.1", 6381},
    {"ASK 0 redis-1.example:1", 0, "redis-1.example", 1},
    {"MOVED 16383 ::1:65535", 16383, "::1", 65535},
    {"MOVED 1 2001:db8::1:6379", 1, "2001:db8::1", 6379},
    {"MOVED 1 :6379", 1, "asked.example", 6379},
    {"MOVED 1 ?:6379", 1, "asked.example", 6379},
    {"MOVED 16384 127.0.0.1:6381", -1, NULL, 0},
    {"MOVED -1 127.0.0.1:6381", -1, NULL, 0},
    {"MOVED x 127.0.0.1:6381", -1, NULL, 0},
    {"MOVED  127.0.0.1:6381", -1, NULL, 0},
    {"MOVED 1 127.0.0.1", -1, NULL, 0},
    {"MOVED 1 127.0.0.1:", -1, NULL, 0},
    {"MOVED 1 127.0.0.1:0", -1, NULL, 0},
    {"MOVED 1 127.0.0.1:65536", -1, NULL, 0},
    {"MOVED 1 127.0.0.1:63x", -1, NULL, 0},
    {"MOVED 1 127.0.0.1:6381 more", -1, NULL, 0},
    {"MOVED 99999999999999999999 a:1", -1, NULL, 0},
    {"MOVED 1", -1, NULL, 0},
    {"MOVED", -1, NULL, 0},
    {"", -1, NULL, 0},
};

static void test_redirections(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(redirections) / sizeof(redirections[0]); i++) {
        struct redis_place place;
        int slot = -1;
        print_message("%s\n", redirections[i].error);
        enum err err = redis_redirect_parse(redirections[i].error, "asked.example", &slot, &place);
        assert_int_equal(err, redirections[i].slot < 0 ? ERR_FORMAT : OK);
        assert_int_equal(slot, redirections[i].slot);
        if (!err) {
            assert_string_equal(place.host, redirections[i].host);
            assert_int_equal(place.port, redirections[i].port);
        }
    }
}

static void test_host_that_is_too_long(void **state)
{
    (void)state;
    char error[400] = "MOVED 1 ";
    struct redis_place place;
    int slot;
    memset(error + 8, 'h', REDIS_HOST_MAX);
    strcpy(error + 8 + REDIS_HOST_MAX, ":1");
    assert_int_equal(redis_redirect_parse(error, "a", &slot, &place), ERR_FORMAT);
    strcpy(error + 8 + REDIS_HOST_MAX - 1, ":1");
    assert_int_equal(redis_redirect_parse(error, "a", &slot, &place), OK);
    assert_int_equal(strlen(place.host), REDIS_HOST_MAX - 1);
}

/* A value written down: (…) is an array, a number an integer, nil nil, anything else a string. */
static struct redis_value read_value(const char **text)
{
    struct redis_value value = {0};
    *text += strspn(*text, " ");
    size_t len = strcspn(*text, " ()");
    if (**text == '(') {
        (*text)++;
        value.type = REDIS_IS_ARRAY;
        value.items = xcalloc(16, sizeof(*value.items));
        while (*(*text += strspn(*text, " ")) != ')') {
            value.items[value.item_count++] = read_value(text);
        }
        len = 1;
    } else if (strncmp(*text, "nil", len) == 0) {
        value.type = REDIS_IS_NIL;
    } else if (strspn(*text, "-0123456789") == len) {
        value.type = REDIS_IS_INTEGER;
        value.integer = strtoll(*text, NULL, 10);
    } else {
        value.type = REDIS_IS_STRING;
        buf_add(&value.text, *text, len);
    }
    *text += len;
    return value;
}

static const struct {
    const char *reply;
    const char *want; /* "first-last host port;" each; NULL: refused */
} maps[] = {
    {"((0 16383 (10.0.0.1 6379)))", "0-16383 10.0.0.1 6379;"},
    {"((0 5460 (10.0.0.1 6379 id) (10.0.0.4 6379 id)) (5461 16383 (h.example 7000 id)))",
     "0-5460 10.0.0.1 6379;5461-16383 h.example 7000;"},
    {"((7 7 (::1 6379 id (hostname a.example))))", "7-7 ::1 6379;"},
    {"((0 1 (nil 6379 id)) (2 3 (? 6380 id)))", "0-1 asked.example 6379;2-3 asked.example 6380;"},
    {"((0 1 (a 1)) (0 1 (b 1)))", "0-1 a 1;0-1 b 1;"},
    {"((0 16382 (a 1)) (0 0 (b 1)))", "0-16382 a 1;0-0 b 1;"},
    {"((0 16383 (a 1)) (0 0 (b 1)))", NULL},
    {"()", NULL},
    {"nil", NULL},
    {"text", NULL},
    {"(text)", NULL},
    {"((0 1))", NULL},
    {"((0 1 ()))", NULL},
    {"((0 1 (a)))", NULL},
    {"((0 1 (a b)))", NULL},
    {"((0 1 a))", NULL},
    {"((1 0 (a 1)))", NULL},
    {"((-1 0 (a 1)))", NULL},
    {"((0 16384 (a 1)))", NULL},
    {"((x 1 (a 1)))", NULL},
    {"((0 1 (a 0)))", NULL},
    {"((0 1 (a 65536)))", NULL},
    {"((0 1 (a 1)) text)", NULL},
};

static void test_maps(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        const char *text = maps[i].reply;
        struct redis_value reply = read_value(&text);
        struct redis_map map;
        struct buf got = {0};
        print_message("%s\n", maps[i].reply);
        enum err err = redis_map_read(&reply, "asked.example", &map);
        assert_int_equal(err, maps[i].want ? OK : ERR_FORMAT);
        for (size_t at = 0; at < map.count; at++) {
            buf_addf(&got, "%d-%d %s %d;", map.items[at].first, map.items[at].last,
                     map.items[at].owner.host, map.items[at].owner.port);
        }
        assert_string_equal(buf_str(&got), maps[i].want ? maps[i].want : "");
        buf_clear(&got);
        redis_map_clear(&map);
        redis_value_clear(&reply);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slot_of_key),           cmocka_unit_test(test_slot_of_command),
        cmocka_unit_test(test_redirections),          cmocka_unit_test(test_maps),
        cmocka_unit_test(test_host_that_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
