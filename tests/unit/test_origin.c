/* URLs and origins: what is one, what it is in canonical form, and what is refused. */
#include "base/origin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void test_url_parts(void **state)
{
    (void)state;
    static const struct {
        const char *text, *scheme, *user, *password, *host;
        int port;
        const char *path;
        bool has_query, has_fragment;
    } cases[] = {
        {"https://Example.com", "https", NULL, NULL, "example.com", 443, "/", false, false},
        {"HTTP://example.com:8080/a/../b?x#y", "http", NULL, NULL, "example.com", 8080, "/a/../b",
         true, true},
        {"https://example.com/?", "https", NULL, NULL, "example.com", 443, "/", true, false},
        {"https://example.com/#", "https", NULL, NULL, "example.com", 443, "/", false, true},
        {"https://example.com/#a?b", "https", NULL, NULL, "example.com", 443, "/", false, true},
        {"http://[::1]:3000/x", "http", NULL, NULL, "[::1]", 3000, "/x", false, false},
        {"redis://us%40er:p%2Fw@db:6380/3", "redis", "us@er", "p/w", "db", 6380, "/3", false,
         false},
        {"redis://:secret@db/0", "redis", "", "secret", "db", 0, "/0", false, false},
        {"rediss://db", "rediss", NULL, NULL, "db", 0, "/", false, false},
        {"myapp://callback/done", "myapp", NULL, NULL, "callback", 0, "/done", false, false},
        {"com.example.app://callback", "com.example.app", NULL, NULL, "callback", 0, "/", false,
         false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct url url;
        if (url_parse(cases[i].text, &url) != OK) {
            fail_msg("refused: %s", cases[i].text);
        }
        assert_string_equal(url.scheme, cases[i].scheme);
        assert_string_equal(url.user ? url.user : "", cases[i].user ? cases[i].user : "");
        assert_string_equal(url.password ? url.password : "",
                            cases[i].password ? cases[i].password : "");
        assert_string_equal(url.host, cases[i].host);
        assert_int_equal(url.port, cases[i].port);
        assert_string_equal(url.path, cases[i].path);
        assert_int_equal(url.has_query, cases[i].has_query);
        assert_int_equal(url.has_fragment, cases[i].has_fragment);
        url_clear(&url);
    }
}

static void test_url_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "/path",
        "example.com",
        "https:",
        "https://exa mple.com/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://exam\nple.com/",
        "//example.com/",
        "unix:///run/redis.sock",
        "redis:/db/0",
        "http:/example.com?://x",
        "redis://",
        "redis://?x",
        "://example.com",
        "redis://a b/",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct url url;
        if (url_parse(cases[i], &url) != ERR_FORMAT) {
            fail_msg("accepted: %s", cases[i]);
        }
    }
}

static void test_origin_canonical(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"https://example.com", "https://example.com"},
        {"https://example.com/", "https://example.com"},
        {"HTTPS://EXAMPLE.com", "https://example.com"},
        {"https://example.com:443", "https://example.com"},
        {"https://example.com:0443", "https://example.com"},
        {"https://example.com:", "https://example.com"},
        {"http://example.com:80/", "http://example.com"},
        {"http://example.com:443", "http://example.com:443"},
        {"https://example.com:80", "https://example.com:80"},
        {"http://127.0.0.1:8080", "http://127.0.0.1:8080"},
        {"http://127.1:8080", "http://127.0.0.1:8080"},
        {"http://[::1]:8080", "http://[::1]:8080"},
        {"http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"},
        {"https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct origin origin;
        if (origin_parse(cases[i].text, &origin) != OK) {
            fail_msg("refused: %s", cases[i].text);
        }
        assert_string_equal(origin.text, cases[i].want);
        origin_clear(&origin);
        assert_null(origin.text);
    }
}

static void test_origin_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "null",
        "*",
        "example.com",
        "ftp://example.com",
        "file:///",
        "javascript://example.com",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https:///",
        "https:///example.com",
        "https://:443",
        "https://example.com/path",
        "https://example.com//",
        "https://example.com?",
        "https://example.com/?",
        "https://example.com#",
        "https://example.com/ ",
        " https://example.com",
        "https://user@example.com",
        "https://@example.com",
        "https://:@example.com",
        "https://user:password@example.com",
        "https://example.com, https://example.net",
        "https://example.com https://example.net",
        "https://ex%61mple.com",
        "https://example.com\\",
        "https://example.com\\@evil.example",
        "https://b\xc3\xbc"
        "cher.example",
        "https://example\xe3\x80\x82"
        "com",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:4 43",
        "https://example.com:+443",
        "https://[::1",
        "https://::1",
        "https://[::1]x",
        "https://[fe80::1%25eth0]",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct origin origin;
        if (origin_parse(cases[i], &origin) != ERR_FORMAT) {
            fail_msg("accepted: %s", cases[i]);
        }
    }
}

static void test_origin_of_url(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"https://Example.com/a?b#c", "https://example.com"},
        {"https://example.com?@evil.example/", "https://example.com"},
        {"https://example.com#@evil.example/", "https://example.com"},
        {"https://example.com/@evil.example", "https://example.com"},
        {"http://example.com:8080/caf\xc3\xa9", "http://example.com:8080"},
        {"https://user@example.com/", NULL},
        {"https://example.com@evil.example/", NULL},
        {"redis://example.com/", NULL},
        {"/path", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct origin origin = {0};
        enum err err = origin_of_url(cases[i].text, &origin);
        if (err != (cases[i].want ? OK : ERR_FORMAT)) {
            fail_msg("wrong: %s", cases[i].text);
        }
        if (cases[i].want) {
            assert_string_equal(origin.text, cases[i].want);
        }
        origin_clear(&origin);
    }
}

static void test_list(void **state)
{
    (void)state;
    struct origin_list list = {.items = xcalloc(2, sizeof(struct origin)), .count = 2};
    struct origin other;
    assert_int_equal(origin_parse("https://a.example", &list.items[0]), OK);
    assert_int_equal(origin_parse("https://b.example:8443", &list.items[1]), OK);
    assert_int_equal(origin_parse("https://B.example:8443/", &other), OK);
    assert_true(origin_in(&other, &list));
    assert_true(origin_equal(&other, &list.items[1]));
    assert_false(origin_equal(&other, &list.items[0]));
    origin_clear(&other);
    assert_int_equal(origin_parse("https://b.example", &other), OK);
    assert_false(origin_in(&other, &list));
    origin_clear(&other);
    origin_list_clear(&list);
    assert_int_equal(list.count, 0);
}

static void test_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        bool want;
    } hosts[] = {
        {"127.0.0.1", true},        {"127.255.1.2", true}, {"[::1]", true},    {"localhost", false},
        {"127.0.0.1.x", false},     {"128.0.0.1", false},  {"0.0.0.0", false}, {"[::2]", false},
        {"[::ffff:7f00:1]", false}, {"", false},
    };
    for (size_t i = 0; i < COUNT(hosts); i++) {
        if (host_is_loopback(hosts[i].host) != hosts[i].want) {
            fail_msg("wrong: %s", hosts[i].host);
        }
    }
    static const struct {
        const char *origin;
        bool want;
    } origins[] = {
        {"http://127.0.0.1:8080", true}, {"http://[::1]", true},        {"http://localhost", false},
        {"https://127.0.0.1", false},    {"http://example.com", false},
    };
    for (size_t i = 0; i < COUNT(origins); i++) {
        struct origin origin;
        assert_int_equal(origin_parse(origins[i].origin, &origin), OK);
        assert_int_equal(origin_is_loopback(&origin), origins[i].want);
        origin_clear(&origin);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url_parts),        cmocka_unit_test(test_url_refused),
        cmocka_unit_test(test_origin_canonical), cmocka_unit_test(test_origin_refused),
        cmocka_unit_test(test_origin_of_url),    cmocka_unit_test(test_list),
        cmocka_unit_test(test_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
