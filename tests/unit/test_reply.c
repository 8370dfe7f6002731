/* Replies: header lines that nothing can break out of, redirects, JSON bodies. */
#include "http/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void test_headers_in_order(void **state)
{
    (void)state;
    struct reply reply = {0};
    reply_add_header(&reply, "A", "1");
    reply_add_header(&reply, "B", "two words, caf\xc3\xa9");
    reply_add_header(&reply, "A", "");
    assert_string_equal(buf_str(&reply.headers), "A: 1\r\nB: two words, caf\xc3\xa9\r\nA: \r\n");
    reply_clear(&reply);
}

static void test_header_with_control_character_is_left_out(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "a\r\nSet-Cookie: x=y", "a\nb", "a\rb", "\ta", "a\x7f", "\x1b[31m",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct reply reply = {0};
        reply_add_header(&reply, "Location", cases[i]);
        assert_string_equal(buf_str(&reply.headers), "");
        reply_clear(&reply);
    }
}

static void test_redirect(void **state)
{
    (void)state;
    struct reply reply = {0};
    reply_redirect(&reply, 303, "/done?a=b");
    assert_int_equal(reply.status, 303);
    assert_string_equal(buf_str(&reply.headers), "Location: /done?a=b\r\n");
    reply_clear(&reply);
}

static void test_json(void **state)
{
    (void)state;
    struct reply reply = {0};
    struct json_writer json = reply_open_json(&reply, 200);
    json_add_string(&json, "a", "b");
    json_add_integer(&json, "n", 1);
    json_close(&json);
    assert_int_equal(reply.status, 200);
    assert_string_equal(buf_str(&reply.headers), "Content-Type: application/json\r\n");
    assert_string_equal(buf_str(&reply.body), "{\"a\":\"b\",\"n\":1}");
    reply_clear(&reply);
}

static void test_reset_forgets_all(void **state)
{
    (void)state;
    struct reply reply = {0};
    reply_redirect(&reply, 302, "/");
    reply.retry_after_s = 9;
    buf_adds(&reply.body, "text");
    reply_reset(&reply);
    assert_int_equal(reply.status, 0);
    assert_int_equal(reply.retry_after_s, 0);
    assert_int_equal(reply.headers.len, 0);
    assert_int_equal(reply.body.len, 0);
    reply_clear(&reply);
    assert_null(reply.headers.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_in_order),
        cmocka_unit_test(test_header_with_control_character_is_left_out),
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_reset_forgets_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
