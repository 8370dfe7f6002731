/* JSON: what is taken from strangers, and that whatever is written reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/json.h"

static bool parses(const char *text, size_t len)
{
    json_t *root = json_parse_object(text, len, 1000);
    json_decref(root);
    return root != NULL;
}

static void only_one_whole_object_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"{}", true},
        {" \r\n\t{ \"a\" : [1, {}] } \n", true},
        {"{\"a\":\"\\u00e9 \xC3\xA9 \\\" \\\\\"}", true},
        {"{\"a\":\"[[[[[[[[[[[[[[[[[[[[\"}", true},
        {"{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[\"}", true},
        {"", false},
        {" ", false},
        {"{", false},
        {"[]", false},
        {"\"a\"", false},
        {"1", false},
        {"null", false},
        {"{}{}", false},
        {"{},", false},
        {"{\"a\":1,}", false},
        {"{\"a\":1,\"a\":2}", false},
        {"{\"a\":\"\\u0000\"}", false},
        {"{\"\\u0000\":1}", false},
        {"{\"a\":\"\xFF\"}", false},
        {"{\"a\":\"\xC0\xAF\"}", false},
        {"{\"a\":\"\\ud800\"}", false},
        {"{\"a\":\"\n\"}", false},
        {"{'a':1}", false},
        {"{a:1}", false},
        {"{\"a\":NaN}", false},
        {"{\"a\":99999999999999999999}", false},
        {"\xEF\xBB\xBF{}", false},
        {"<html>", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (parses(cases[i].text, strlen(cases[i].text)) != cases[i].good) {
            fail_msg("wrong about %s", cases[i].text);
        }
    }
    assert_false(parses("{}\0", 3));
    assert_false(parses("{\"a\":\"b\0c\"}", 11));
}

static void size_has_its_limit(void **state)
{
    (void)state;
    const char *text = "{\"a\":12345}";
    json_t *root = json_parse_object(text, strlen(text), strlen(text));
    assert_non_null(root);
    json_decref(root);
    assert_null(json_parse_object(text, strlen(text), strlen(text) - 1));
}

static void depth_has_its_limit(void **state)
{
    (void)state;
    for (int depth = 1; depth < 200; depth++) {
        struct buf text = {0};
        for (int i = 1; i < depth; i++) {
            buf_adds(&text, i % 2 ? "{\"a\":" : "{ \"\\\"\" : ");
        }
        buf_adds(&text, "{}");
        for (int i = 1; i < depth; i++) {
            buf_addc(&text, '}');
        }
        json_t *root = json_parse_object(text.data, text.len, text.len);
        assert_int_equal(root != NULL, depth <= JSON_DEPTH_MAX);
        json_decref(root);
        buf_clear(&text);
    }
}

static void members_have_types(void **state)
{
    (void)state;
    const char *text = "{\"s\":\"text\",\"empty\":\"\",\"i\":-5,\"r\":3600.0,\"half\":0.5,"
                       "\"big\":1e300,\"max\":9223372036854775807,\"n\":null,\"b\":true}";
    json_t *root = json_parse_object(text, strlen(text), 1000);
    assert_string_equal(json_get_string(root, "s"), "text");
    assert_string_equal(json_get_string(root, "empty"), "");
    assert_null(json_get_string(root, "i"));
    assert_null(json_get_string(root, "n"));
    assert_null(json_get_string(root, "missing"));
    assert_null(json_get_string(NULL, "s"));

    assert_int_equal(json_get_integer(root, "i", 7), -5);
    assert_int_equal(json_get_integer(root, "r", 7), 3600);
    assert_int_equal(json_get_integer(root, "half", 7), 7);
    assert_int_equal(json_get_integer(root, "big", 7), 7);
    assert_true(json_get_integer(root, "max", 7) == INT64_MAX);
    assert_int_equal(json_get_integer(root, "s", 7), 7);
    assert_int_equal(json_get_integer(root, "b", 7), 7);
    assert_int_equal(json_get_integer(root, "missing", 7), 7);
    json_decref(root);
}

static void members_come_in_order(void **state)
{
    (void)state;
    struct buf out = {0};
    struct json_writer writer;
    json_open(&writer, &out);
    json_add_string(&writer, "z", "1");
    json_add_string(&writer, "none", NULL);
    json_open_member(&writer, "inner");
    json_close(&writer);
    json_open_member(&writer, "more");
    json_add_bool(&writer, "yes", true);
    json_add_bool(&writer, "no", false);
    json_close(&writer);
    json_add_integer(&writer, "zero", 0);
    json_add_integer(&writer, "max", INT64_MAX);
    json_add_integer(&writer, "min", INT64_MIN);
    json_close(&writer);
    assert_string_equal(buf_str(&out), "{\"z\":\"1\",\"none\":null,\"inner\":{},"
                                       "\"more\":{\"yes\":true,\"no\":false},\"zero\":0,"
                                       "\"max\":9223372036854775807,\"min\":-9223372036854775808}");
    buf_clear(&out);
}

#define REPLACED "\xEF\xBF\xBD"

static void strings_are_safe_anywhere(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *want;
    } cases[] = {
        {"", "\"\""},
        {"plain text", "\"plain text\""},
        {"\"\\", "\"\\\"\\\\\""},
        {"a\nb\tc\x01\x7F", "\"a\\nb\\u0009c\\u0001\\u007f\""},
        {"</script>&", "\"\\u003c/script\\u003e\\u0026\""},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xB5", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xB5\""},
        {"\xC2\x9B\xC2\xA0", "\"\\u009b\xC2\xA0\""},
        {"\xE2\x80\xA7\xE2\x80\xA8\xE2\x80\xA9", "\"\xE2\x80\xA7\\u2028\\u2029\""},
        {"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF",
         "\"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\""},
        {"a\xFFz", "\"a" REPLACED "z\""},
        {"\xC0\xAF", "\"" REPLACED REPLACED "\""},
        {"\xED\xA0\x80", "\"" REPLACED REPLACED REPLACED "\""},
        {"\xE0\x9F\xBF", "\"" REPLACED REPLACED REPLACED "\""},
        {"\xF4\x90\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED "\""},
        {"\xF0\x8F\xBF\xBF", "\"" REPLACED REPLACED REPLACED REPLACED "\""},
        {"cut \xE2\x82", "\"cut " REPLACED REPLACED "\""},
        {"cut \xF0", "\"cut " REPLACED "\""},
        {"\xC3(", "\"" REPLACED "(\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0};
        json_write_string(&out, cases[i].text);
        assert_string_equal(buf_str(&out), cases[i].want);
        buf_clear(&out);
    }
}

static void lists_hold_objects(void **state)
{
    (void)state;
    struct buf out = {0};
    struct json_writer json;
    json_open(&json, &out);
    json_open_list(&json, "none");
    json_close_list(&json);
    json_open_list(&json, "two");
    for (int64_t i = 1; i <= 2; i++) {
        json_open_item(&json);
        json_add_integer(&json, "n", i);
        json_add_string(&json, "s", NULL);
        json_close(&json);
    }
    json_close_list(&json);
    json_add_bool(&json, "after", true);
    json_close(&json);
    assert_string_equal(
        buf_str(&out),
        "{\"none\":[],\"two\":[{\"n\":1,\"s\":null},{\"n\":2,\"s\":null}],\"after\":true}");
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_one_whole_object_is_taken),
        cmocka_unit_test(size_has_its_limit),
        cmocka_unit_test(depth_has_its_limit),
        cmocka_unit_test(members_have_types),
        cmocka_unit_test(members_come_in_order),
        cmocka_unit_test(strings_are_safe_anywhere),
        cmocka_unit_test(lists_hold_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
