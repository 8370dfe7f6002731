/* The login and the session cookie: found among others, only well-formed ones taken, set and
 * cleared with exactly the attributes of API.md. */
#include "http/cookie.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define GOOD_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define GOOD_B "-_8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define SESSION "__Host-spotify-session="

static const struct settings secure = {
    .secure = true,
    .login_ttl_s = 600,
    .session_max_age_s = 15552000,
};
static const struct settings plain = {
    .secure = false,
    .samesite_lax = true,
    .login_ttl_s = 60,
    .session_max_age_s = 100,
};

static void test_find(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        const char *want[3];
    } cases[] = {
        {"", {NULL}},
        {"x=1", {"1"}},
        {"a=0; x=1; b=2", {"1"}},
        {"x=1; x=2", {"1", "2"}},
        {"x=1;x=2", {"1", "2"}},
        {" \tx=1 \t; x=", {"1", ""}},
        {"X=1; xx=2; x =3; =x=4; x", {NULL}},
        {"x=a=b", {"a=b"}},
        {"x=\"1\"", {"\"1\""}},
        {"a=x=1", {NULL}},
        {";;; x=1;", {"1"}},
        {"x=1, x=2", {"1, x=2"}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *cursor = cases[i].header;
        const char *value;
        size_t len;
        size_t found = 0;
        while ((len = cookie_find(&cursor, "x", &value)) != (size_t)-1) {
            assert_non_null(cases[i].want[found]);
            assert_int_equal(len, strlen(cases[i].want[found]));
            assert_memory_equal(value, cases[i].want[found], len);
            found++;
        }
        assert_null(cases[i].want[found]);
    }
}

static void test_get(void **state)
{
    (void)state;
    static const struct {
        const char *first, *second;
        enum cookie_state want;
        const char *text;
    } cases[] = {
        {NULL, NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=", NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=other=1", NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=spotify-session=" GOOD_A, NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=__Host-spotify-login=" GOOD_A, NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=__host-spotify-session=" GOOD_A, NULL, COOKIE_IS_ABSENT, NULL},
        {"HTTP_COOKIE=" SESSION GOOD_A, NULL, COOKIE_IS_GOOD, GOOD_A},
        {"HTTP_COOKIE=a=b; " SESSION GOOD_B "; c=d", NULL, COOKIE_IS_GOOD, GOOD_B},
        {"HTTP_COOKIE=a=b", "HTTP_COOKIE=" SESSION GOOD_B, COOKIE_IS_GOOD, GOOD_B},
        {"HTTP_COOKIE=" SESSION "x; " SESSION GOOD_B, NULL, COOKIE_IS_GOOD, GOOD_B},
        {"HTTP_COOKIE=" SESSION "x", "HTTP_COOKIE=" SESSION GOOD_B, COOKIE_IS_GOOD, GOOD_B},
        {"HTTP_COOKIE=" SESSION GOOD_A "; " SESSION GOOD_B, NULL, COOKIE_IS_GOOD, GOOD_A},
        {"HTTP_COOKIE=" SESSION GOOD_A, "HTTP_COOKIE=" SESSION GOOD_B, COOKIE_IS_GOOD, GOOD_A},
        {"HTTP_COOKIE=" SESSION, NULL, COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION "x", "HTTP_COOKIE=a=b", COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION "\"" GOOD_A "\"", NULL, COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION GOOD_A "A", NULL, COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION GOOD_A "=", NULL, COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION "+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", NULL,
         COOKIE_IS_MALFORMED, NULL},
        {"HTTP_COOKIE=" SESSION "AAAAAAAAAAAAAAAAAAAAAAAAA\xe1"
         "AAAAAAAAAAAAAAAAA",
         NULL, COOKIE_IS_MALFORMED, NULL},
        /* The last character has two bits over, which must be zero: one secret, one text. */
        {"HTTP_COOKIE=" SESSION "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", NULL,
         COOKIE_IS_MALFORMED, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *const variables[] = {cases[i].first, cases[i].second, NULL};
        const struct request request = {.variables = variables};
        struct secret secret;
        assert_int_equal(cookie_get(&request, &secure, COOKIE_SESSION, &secret), cases[i].want);
        if (cases[i].want == COOKIE_IS_GOOD) {
            char text[SECRET_TEXT_LEN + 1];
            secret_format(&secret, text);
            assert_string_equal(text, cases[i].text);
        }
    }
}

static void test_get_without_prefix_on_loopback(void **state)
{
    (void)state;
    static const char *const variables[] = {
        "HTTP_COOKIE=__Host-spotify-login=" GOOD_A "; spotify-login=" GOOD_B,
        NULL,
    };
    const struct request request = {.variables = variables};
    struct secret secret;
    char text[SECRET_TEXT_LEN + 1];
    assert_int_equal(cookie_get(&request, &plain, COOKIE_LOGIN, &secret), COOKIE_IS_GOOD);
    secret_format(&secret, text);
    assert_string_equal(text, GOOD_B);
}

static void test_set_and_clear(void **state)
{
    (void)state;
    static const struct {
        const struct settings *settings;
        enum cookie which;
        bool is_set;
        const char *want;
    } cases[] = {
        {&secure, COOKIE_LOGIN, true,
         "Set-Cookie: __Host-spotify-login=" GOOD_A
         "; Secure; HttpOnly; SameSite=Lax; Path=/; Max-Age=600\r\n"},
        {&secure, COOKIE_SESSION, true,
         "Set-Cookie: __Host-spotify-session=" GOOD_A
         "; Secure; HttpOnly; SameSite=Strict; Path=/; Max-Age=15552000\r\n"},
        {&secure, COOKIE_LOGIN, false,
         "Set-Cookie: __Host-spotify-login=; Secure; HttpOnly; SameSite=Lax; Path=/; "
         "Max-Age=0\r\n"},
        {&secure, COOKIE_SESSION, false,
         "Set-Cookie: __Host-spotify-session=; Secure; HttpOnly; SameSite=Strict; Path=/; "
         "Max-Age=0\r\n"},
        {&plain, COOKIE_LOGIN, true,
         "Set-Cookie: spotify-login=" GOOD_A "; HttpOnly; SameSite=Lax; Path=/; Max-Age=60\r\n"},
        {&plain, COOKIE_SESSION, true,
         "Set-Cookie: spotify-session=" GOOD_A "; HttpOnly; SameSite=Lax; Path=/; Max-Age=100\r\n"},
    };
    const struct secret secret = {{0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct reply reply = {0};
        if (cases[i].is_set) {
            cookie_set(&reply, cases[i].settings, cases[i].which, &secret);
        } else {
            cookie_clear(&reply, cases[i].settings, cases[i].which);
        }
        assert_string_equal(buf_str(&reply.headers), cases[i].want);
        reply_clear(&reply);
    }
}

int main(void)
{
    seal_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_get_without_prefix_on_loopback),
        cmocka_unit_test(test_set_and_clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
