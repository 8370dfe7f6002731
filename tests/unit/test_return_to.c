/* The guard against open redirects: rules 6 and 7 of contract C.3, and the forms of attack that are
 * known against such guards. */
#include "http/return_to.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/model.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static struct origin own = {"https://auth.example.org"};
static struct origin listed[] = {{"https://app.example.net:8443"}, {"http://127.0.0.1:3000"}};
static const struct origin_list allowed = {listed, COUNT(listed)};

static bool is_ours(const char *return_to)
{
    return return_to_is_ours(return_to, &own, &allowed);
}

static void expect_all(const char *const *cases, size_t count, bool want)
{
    for (size_t i = 0; i < count; i++) {
        if (is_ours(cases[i]) != want) {
            fail_msg("%s: %s", want ? "refused" : "accepted", cases[i]);
        }
    }
}

static void test_paths_of_our_own(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/",
        "/ok",
        "/ok/",
        "/a/b/c",
        "/a?b=c&d=e#f",
        "/?",
        "/#",
        "/?a=//evil.example",
        "/#//evil.example",
        "/?u=https://evil.example/",
        "/a?next=/b/../c",
        "/#/route/../x",
        "/a%20b",
        "/%20",
        "/a%2fb",
        "/100%",
        "/%zz",
        "/%",
        "/%2",
        "/caf%c3%a9",
        "/caf%e9",
        "/caf\xc3\xa9",
        "/\xf0\x9f\x8e\xb5?q=\xe2\x82\xac",
        "/\xef\xbc\x8fwww.evil.example",
        "/...",
        "/.../a",
        "/.a/..b/c../d.",
        "/a;b,c:d@e!$'()*+",
        "/@evil.example",
        "/:80",
        "/https:/",
        "/javascript:alert(1)",
        "/a+b",
        "/a%2bb",
        "/%252",
    };
    expect_all(cases, COUNT(cases), true);
}

static void test_urls_of_ours(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "https://auth.example.org",
        "https://auth.example.org/",
        "https://auth.example.org:443/a",
        "HTTPS://AUTH.EXAMPLE.ORG/a",
        "https://auth.example.org?a=b",
        "https://auth.example.org#a",
        "https://auth.example.org/?u=https://evil.example/",
        "https://auth.example.org/@evil.example",
        "https://auth.example.org?@evil.example",
        "https://auth.example.org#@evil.example",
        "https://auth.example.org/caf\xc3\xa9",
        "https://app.example.net:8443/done?a=b#c",
        "http://127.0.0.1:3000/",
        "http://127.1:3000/",
    };
    expect_all(cases, COUNT(cases), true);
}

static void test_other_hosts(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "https://evil.example",
        "https://evil.example/",
        "http://auth.example.org/",
        "https://auth.example.org:444/",
        "https://app.example.net/",
        "http://app.example.net:8443/",
        "https://127.0.0.1:3000/",
        "http://127.0.0.1/",
        "http://localhost:3000/",
        "https://auth.example.org.evil.example/",
        "https://auth.example.org.",
        "https://evil-auth.example.org/",
        "https://auth.example.orgevil/",
        "https://sub.auth.example.org/",
        "https://example.org/",
        "https://auth.example.org@evil.example/",
        "https://auth.example.org:443@evil.example/",
        "https://auth.example.org%40evil.example/",
        "https://auth.example.org%2f@evil.example/",
        "https://auth.example.org%23@evil.example/",
        "https://auth.example.org%3f@evil.example/",
        "https://evil.example#auth.example.org/",
        "https://evil.example?auth.example.org/",
        "https://evil.example/auth.example.org",
        "https://evil.example;auth.example.org/",
        "https://evil.example,auth.example.org/",
        "https://evil.example%00.auth.example.org/",
        "https://evil.example\\.auth.example.org/",
        "https://[::ffff:7f00:1]:3000/",
        "https://[auth.example.org]/",
        "https://0x7f.1:3000/",
        "//evil.example",
        "//evil.example/%2e%2e",
        "///evil.example",
        "////evil.example",
        "//",
        "//auth.example.org/",
        "/\\evil.example",
        "/\\/evil.example",
        "\\\\evil.example",
        "\\/evil.example",
        "\\evil.example",
        "%2f%2fevil.example",
        "%2fevil.example",
        "%5cevil.example",
        "/%2fevil.example",
        "/%2Fevil.example",
        "/%5cevil.example",
        "/%5Cevil.example",
        "/%252fevil.example",
        "/%25252fevil.example",
        "/%255cevil.example",
        "/%%32fevil.example",
        "/%%32%66evil.example",
        "/%2%66evil.example",
        "/%25%32%66evil.example",
        "/%09/evil.example",
        "/%0d/evil.example",
        "/%0a/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r/evil.example",
        "\t//evil.example",
        " //evil.example",
        "\x01//evil.example",
        "/./evil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/a/..//evil.example",
        "/a//evil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https:////evil.example",
        "https:auth.example.org",
        "https:/auth.example.org/",
        "https:///auth.example.org/",
        "https:\\\\auth.example.org/",
        "https:/\\evil.example",
        "https:\\evil.example",
        "http:evil.example",
        "ht\ntps://evil.example",
        "https://\tevil.example",
        "https://evil.example\t.auth.example.org",
        "://evil.example",
        ":evil.example",
        "https",
        "https:",
        "https://",
        "https:///",
        "https://:443/",
        "https://?",
        "https://#",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_user_info(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "https://user@auth.example.org/",
        "https://user:pass@auth.example.org/",
        "https://@auth.example.org/",
        "https://:@auth.example.org/",
        "https://evil.example@auth.example.org/",
        "https://evil.example\\@auth.example.org/",
        "https://evil.example:443@auth.example.org/",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_other_schemes(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\nscript:alert(1)",
        "\x01javascript:alert(1)",
        "javascript://auth.example.org/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:msgbox(1)",
        "file:///etc/passwd",
        "ftp://auth.example.org/",
        "ws://auth.example.org/",
        "wss://auth.example.org/",
        "blob:https://auth.example.org/1",
        "view-source:https://auth.example.org/",
        "about:blank",
        "mailto:a@example.org",
        "intent://auth.example.org/#Intent;end",
        "x-https://auth.example.org/",
        "httpss://auth.example.org/",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_relative_text(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "ok",
        "./ok",
        "../ok",
        "?a=b",
        "#a",
        "ok/../ok",
        "a:b",
        "auth.example.org",
        "auth.example.org/ok",
        "@",
        "%2fok",
        ".",
        "..",
        "~/ok",
        "null",
        "%00",
        ";//evil",
        "@evil.example",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_raw_bytes(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/a b",
        " /a",
        "/a ",
        "/a?b c",
        "/a#b c",
        "/a\tb",
        "/a\r\nSet-Cookie: a=b",
        "/a\nb",
        "/a?b\rc",
        "/\x01",
        "/\x1f",
        "/\x7f",
        "/a\\b",
        "/a?b\\c",
        "/a#\\",
        "https://auth.example.org/a b",
        "https://auth.example.org/\\evil.example",
        "https://auth.example.org\\evil.example",
        "https://auth.example.org\\@evil.example",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_decoded_bytes(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/%00",
        "/%0d%0aSet-Cookie:a=b",
        "/%0a",
        "/%1f",
        "/%7f",
        "/%c2%85",
        "/a?b=%0d%0a",
        "/a#%00",
        "/%250a",
        "/a?b=%25250a",
        "/a%5cb",
        "/a?b=%5c",
        "/a#%255c",
        "/%c2%9f",
        "https://auth.example.org/%0a",
        "https://auth.example.org?%00",
        "https://app.example.net:8443/%5c",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_dot_segments(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/.",
        "/..",
        "/../",
        "/a/..",
        "/a/./b",
        "/a/../b",
        "/%2e",
        "/%2E%2e/b",
        "/.%2e/b",
        "/a/%252e%252e/b",
        "/a%2f..",
        "/a%2f%2e%2fb",
        "/..?a",
        "/.#a",
        "/a/..#",
        "https://auth.example.org/..",
        "https://auth.example.org/a/%2e%2e/b",
        "https://app.example.net:8443/.",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_double_slash_in_path(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/a//b",
        "/a%3f//",
        "/https://",
        "/a//",
        "/a%2f/b",
        "/a/%2fb",
        "/a%2f%2f",
        "/a//?b",
        "/a%252f/",
        "https://auth.example.org//",
        "https://auth.example.org//evil.example",
        "https://auth.example.org/%2fevil.example",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_malformed_utf8(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "/\x80",
        "/\xc3",
        "/\xc3/a",
        "/\xc0\xafwww.evil.example",
        "/\xc1\xbf",
        "/\xe0\x80\xaf",
        "/\xe2\x82",
        "/\xed\xa0\x80",
        "/\xf0\x80\x80\xaf",
        "/\xf0\x9f\x8e",
        "/\xf4\x90\x80\x80",
        "/\xf5\x80\x80\x80",
        "/\xff",
        "/\xfe",
        "/a?\xe9",
        "/\xc2\x85",
        "/\xe2\x28\xa1",
        "/\xe2\x82\x28",
        "/\xf0\x9f\x28\x80",
    };
    expect_all(cases, COUNT(cases), false);
}

/* Full-width and other look-alikes, which browsers map to the ASCII characters of a host. */
static void test_non_ascii_in_authority(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "https://auth.example.org\xef\xbc\x8fwww.evil.example/",
        "https://evil.example\xef\xbc\x8f.auth.example.org/",
        "https://evil.example\xef\xbc\x83.auth.example.org/",
        "https://evil.example\xef\xbc\x9f.auth.example.org/",
        "https://auth\xe3\x80\x82"
        "example\xe3\x80\x82org/",
        "https://\xef\xbd\x81uth.example.org/",
        "https://auth.example.org\xc2\xad/",
        "\xef\xbc\x8f\xef\xbc\x8fwww.evil.example",
        "https:\xef\xbc\x8f\xef\xbc\x8f"
        "auth.example.org/",
        "\xef\xbb\xbf//evil.example",
        "\xc2\xa0//evil.example",
    };
    expect_all(cases, COUNT(cases), false);
}

static void test_length(void **state)
{
    (void)state;
    char text[RETURN_TO_MAX + 2];
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    text[RETURN_TO_MAX] = '\0';
    assert_true(is_ours(text));
    text[RETURN_TO_MAX] = 'a';
    text[RETURN_TO_MAX + 1] = '\0';
    assert_false(is_ours(text));
}

/* Escapes of escapes, as deep as they fit, decode to a slash after the first. */
static void test_deep_nesting(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_adds(&text, "/%");
    while (text.len < RETURN_TO_MAX - 4) {
        buf_adds(&text, "25");
    }
    buf_adds(&text, "2f");
    assert_false(is_ours(text.data));
    text.data[text.len - 1] = '0';
    assert_true(is_ours(text.data));
    buf_clear(&text);
}

static void test_format(void **state)
{
    (void)state;
    static const struct {
        const char *return_to, *error, *want;
    } cases[] = {
        {"/", NULL, "/"},
        {"/a?b#c", NULL, "/a?b#c"},
        {"/caf\xc3\xa9?\xe2\x82\xac#\xf0\x9f\x8e\xb5", NULL, "/caf%C3%A9?%E2%82%AC#%F0%9F%8E%B5"},
        {"/", "access_denied", "/?error=access_denied"},
        {"/a?b=c", "login_failed", "/a?b=c&error=login_failed"},
        {"/a?", "login_failed", "/a?error=login_failed"},
        {"/a?b&", "login_failed", "/a?b&error=login_failed"},
        {"/a#b", "login_failed", "/a?error=login_failed#b"},
        {"/a#b?c", "login_failed", "/a?error=login_failed#b?c"},
        {"/a?b#c", "login_failed", "/a?b&error=login_failed#c"},
        {"https://app.example.net:8443", "x", "https://app.example.net:8443?error=x"},
        {"https://app.example.net:8443/a%20b#", NULL, "https://app.example.net:8443/a%20b#"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf out = {0};
        return_to_format(&out, cases[i].return_to, cases[i].error);
        assert_string_equal(buf_str(&out), cases[i].want);
        buf_clear(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_of_our_own), cmocka_unit_test(test_urls_of_ours),
        cmocka_unit_test(test_other_hosts),      cmocka_unit_test(test_user_info),
        cmocka_unit_test(test_other_schemes),    cmocka_unit_test(test_relative_text),
        cmocka_unit_test(test_raw_bytes),        cmocka_unit_test(test_decoded_bytes),
        cmocka_unit_test(test_dot_segments),     cmocka_unit_test(test_double_slash_in_path),
        cmocka_unit_test(test_malformed_utf8),   cmocka_unit_test(test_non_ascii_in_authority),
        cmocka_unit_test(test_length),           cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
