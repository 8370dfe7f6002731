/* Error answers as JSON and as a page, with their headers. */
#include "http/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sodium.h>

#include "http/cookie.h"

static struct settings settings = {
    .secure = true,
    .login_url = "https://example.com/auth/authorize",
    .session_max_age_s = 100,
};

static const enum err public_errors[] = {
    ERR_INVALID_REQUEST, ERR_INVALID_SCOPE,   ERR_INVALID_STATE,  ERR_FORBIDDEN,
    ERR_NOT_FOUND,       ERR_METHOD,          ERR_MEDIA_TYPE,     ERR_TOO_LARGE,
    ERR_ABSENT,          ERR_REPLACED,        ERR_SUSPECT,        ERR_INSUFFICIENT_SCOPE,
    ERR_STORE,           ERR_UPSTREAM,        ERR_UPSTREAM_BUSY,  ERR_MISCONFIGURED,
    ERR_DRAINING,        ERR_UNREADABLE,      ERR_INVALID_CLIENT, ERR_GRANT_TYPE,
    ERR_INVALID_GRANT,   ERR_UNALLOWED_SCOPE,
};
#define PUBLIC_COUNT (sizeof(public_errors) / sizeof(public_errors[0]))

static bool has(const struct buf *text, const char *part)
{
    return strstr(buf_str(text), part) != NULL;
}

static void test_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLIC_COUNT; i++) {
        enum err err = public_errors[i];
        struct reply reply = {0};
        problem_reply(&reply, &settings, err, false);
        assert_int_equal(reply.status, err_status(err));
        assert_true(has(&reply.headers, "Content-Type: application/json\r\n"));
        json_t *body = json_parse_object(reply.body.data, reply.body.len, reply.body.len);
        assert_non_null(body);
        assert_string_equal(json_get_string(body, "error"), err_word(err));
        assert_string_equal(json_get_string(body, "error_description"), err_text(err));
        const char *login_url = json_get_string(body, "login_url");
        bool login_helps =
            (err_status(err) == 401 && err != ERR_INVALID_CLIENT) || err == ERR_INSUFFICIENT_SCOPE;
        assert_string_equal(login_url ? login_url : "", login_helps ? settings.login_url : "");
        json_decref(body);
        reply_clear(&reply);
    }
}

static void test_login_url_asks_for_the_missing_scope(void **state)
{
    (void)state;
    struct reply reply = {0};
    buf_adds(&reply.login_scope, "streaming user-top-read");
    problem_reply(&reply, &settings, ERR_INSUFFICIENT_SCOPE, false);
    assert_true(has(&reply.body, "\"https://example.com/auth/authorize?scope="
                                 "streaming%20user-top-read\""));
    reply_clear(&reply);
}

static void test_the_parameter_that_is_wrong_is_named(void **state)
{
    (void)state;
    for (int html = 0; html < 2; html++) {
        struct reply reply = {0};
        assert_int_equal(reply_blame(&reply, "code", "is missing"), ERR_INVALID_REQUEST);
        problem_reply(&reply, &settings, ERR_INVALID_REQUEST, html);
        assert_true(has(&reply.body, "The parameter code is missing."));
        assert_false(has(&reply.body, err_text(ERR_INVALID_REQUEST)));
        reply_reset(&reply);
        problem_reply(&reply, &settings, ERR_INVALID_REQUEST, html);
        assert_true(has(&reply.body, err_text(ERR_INVALID_REQUEST)));
        reply_clear(&reply);
    }
}

/* auth_request knows 401 and 403 only, and looks at headers only. */
static void test_auth_request_is_told_in_headers(void **state)
{
    static const struct {
        enum err err;
        int status;
        const char *word;
    } cases[] = {
        {ERR_ABSENT, 401, "login_required"},
        {ERR_SUSPECT, 401, "login_required"},
        {ERR_FORBIDDEN, 403, "forbidden"},
        {ERR_STORE, 403, "temporarily_unavailable"},
        {ERR_MISCONFIGURED, 403, "temporarily_unavailable"},
        {ERR_HELD, 403, "server_error"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply reply = {0};
        struct buf word = {0}, body = {0};
        problem_reply(&reply, &settings, cases[i].err, false);
        problem_for_auth_request(&reply, cases[i].err);
        assert_int_equal(reply.status, cases[i].status);
        buf_addf(&word, "X-Auth-Error: %s\r\n", cases[i].word);
        buf_addf(&body, "X-Auth-Body: %s\r\n", buf_str(&reply.body));
        assert_true(has(&reply.headers, buf_str(&word)));
        assert_true(has(&reply.headers, buf_str(&body)));
        assert_int_equal(has(&reply.headers, "Retry-After: "), err_status(cases[i].err) == 503);
        assert_int_equal(has(&reply.headers, "Set-Cookie: "), cases[i].err == ERR_ABSENT);
        buf_clear(&word);
        buf_clear(&body);
        reply_clear(&reply);
    }
}

static void test_only_absent_clears_the_cookie(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLIC_COUNT; i++) {
        struct reply reply = {0};
        struct reply cleared = {0};
        problem_reply(&reply, &settings, public_errors[i], false);
        cookie_clear(&cleared, &settings, COOKIE_SESSION);
        assert_int_equal(has(&reply.headers, buf_str(&cleared.headers)),
                         public_errors[i] == ERR_ABSENT);
        assert_int_equal(has(&reply.headers, "Set-Cookie"), public_errors[i] == ERR_ABSENT);
        reply_clear(&cleared);
        reply_clear(&reply);
    }
}

static void test_only_a_client_is_told_how_to_say_who_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLIC_COUNT; i++) {
        struct reply reply = {0};
        problem_reply(&reply, &settings, public_errors[i], false);
        assert_int_equal(has(&reply.headers, "WWW-Authenticate: Basic realm=\"spotify-auth\"\r\n"),
                         public_errors[i] == ERR_INVALID_CLIENT);
        reply_clear(&reply);
    }
}

static void test_retry_after(void **state)
{
    (void)state;
    static const struct {
        enum err err;
        int given;
        const char *want;
    } cases[] = {
        {ERR_STORE, 0, "Retry-After: 1\r\n"},    {ERR_UPSTREAM, 0, "Retry-After: 5\r\n"},
        {ERR_DRAINING, 0, "Retry-After: 5\r\n"}, {ERR_UPSTREAM, 77, "Retry-After: 77\r\n"},
        {ERR_STORE, 3, "Retry-After: 3\r\n"},    {ERR_ABSENT, 9, NULL},
        {ERR_INVALID_REQUEST, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply reply = {.retry_after_s = cases[i].given};
        problem_reply(&reply, &settings, cases[i].err, i % 2 == 0);
        const char *found = strstr(buf_str(&reply.headers), "Retry-After");
        if (cases[i].want) {
            assert_non_null(found);
            assert_memory_equal(found, cases[i].want, strlen(cases[i].want));
        } else {
            assert_null(found);
        }
        reply_clear(&reply);
    }
}

static void test_nginx_hears_401_and_403_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLIC_COUNT; i++) {
        int status = err_status(public_errors[i]);
        struct reply reply = {0};
        struct buf body = {0};
        problem_reply(&reply, &settings, public_errors[i], false);
        buf_addf(&body, "X-Auth-Error: %s\r\nX-Auth-Body: %s\r\n", err_word(public_errors[i]),
                 buf_str(&reply.body));
        problem_for_auth_request(&reply, public_errors[i]);
        assert_int_equal(reply.status, status >= 500 ? 403 : status);
        assert_true(has(&reply.headers, buf_str(&body)));
        assert_int_equal(has(&reply.headers, "Retry-After: "), status == 503);
        buf_clear(&body);
        reply_clear(&reply);
    }
}

static void test_page(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLIC_COUNT; i++) {
        enum err err = public_errors[i];
        int status = err_status(err);
        struct reply reply = {0};
        problem_reply(&reply, &settings, err, true);
        assert_int_equal(reply.status, status);
        assert_true(has(&reply.headers, "Content-Type: text/html; charset=utf-8\r\n"));
        assert_true(has(&reply.headers, "X-Frame-Options: DENY\r\n"));
        assert_true(has(&reply.headers, "frame-ancestors 'none'"));
        assert_true(has(&reply.body, "<html lang=\"en\">"));
        assert_true(has(&reply.body, err_text(err)));
        assert_true(has(&reply.body, err_word(err)));
        assert_false(has(&reply.body, "<script"));
        bool login_helps = (status == 401 && err != ERR_INVALID_CLIENT) || status == 503 ||
                           err == ERR_INVALID_STATE || err == ERR_INSUFFICIENT_SCOPE;
        assert_int_equal(has(&reply.body, "<a href=\"https://example.com/auth/authorize\">"),
                         login_helps);
        reply_clear(&reply);
    }
}

static void test_page_escapes_the_login_url(void **state)
{
    (void)state;
    struct settings odd = settings;
    odd.login_url = "https://example.com/\"><b>'&";
    struct reply reply = {0};
    problem_reply(&reply, &odd, ERR_INVALID_STATE, true);
    assert_true(has(&reply.body, "\"https://example.com/&#34;&#62;&#60;b&#62;&#39;&#38;\""));
    reply_clear(&reply);
}

static void test_policy_has_the_hash_of_the_style(void **state)
{
    (void)state;
    struct reply reply = {0};
    problem_reply(&reply, &settings, ERR_INVALID_STATE, true);
    const char *style = strstr(buf_str(&reply.body), "<style>") + strlen("<style>");
    size_t len = (size_t)(strstr(style, "</style>") - style);
    unsigned char hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, (const unsigned char *)style, len);
    char text[64];
    sodium_bin2base64(text, sizeof(text), hash, sizeof(hash), sodium_base64_VARIANT_ORIGINAL);
    struct buf want = {0};
    buf_addf(&want,
             "Content-Security-Policy: default-src 'none'; style-src 'sha256-%s'; "
             "frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n",
             text);
    assert_true(has(&reply.headers, buf_str(&want)));
    buf_clear(&want);
    reply_clear(&reply);
}

static void test_headers_of_the_answer_that_failed_are_dropped(void **state)
{
    (void)state;
    const struct secret secret = {{0}};
    struct reply reply = {0};
    reply_redirect(&reply, 303, "/");
    reply_add_header(&reply, "Vary", "Origin");
    cookie_set(&reply, &settings, COOKIE_SESSION, &secret);
    cookie_set(&reply, &settings, COOKIE_LOGIN, &secret);
    reply_add_header(&reply, "X-Set-Cookie", "kept");
    buf_adds(&reply.body, "half an answer");
    problem_reply(&reply, &settings, ERR_STORE, true);
    problem_reply(&reply, &settings, ERR_STORE, false);
    assert_string_equal(buf_str(&reply.headers),
                        "Vary: Origin\r\nX-Set-Cookie: kept\r\n"
                        "Content-Type: application/json\r\nRetry-After: 1\r\n");
    assert_int_equal(reply.status, 503);
    assert_int_equal(buf_str(&reply.body)[0], '{');
    reply_clear(&reply);
}

int main(void)
{
    seal_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_login_url_asks_for_the_missing_scope),
        cmocka_unit_test(test_the_parameter_that_is_wrong_is_named),
        cmocka_unit_test(test_auth_request_is_told_in_headers),
        cmocka_unit_test(test_only_absent_clears_the_cookie),
        cmocka_unit_test(test_only_a_client_is_told_how_to_say_who_it_is),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_nginx_hears_401_and_403_only),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_page_escapes_the_login_url),
        cmocka_unit_test(test_policy_has_the_hash_of_the_style),
        cmocka_unit_test(test_headers_of_the_answer_that_failed_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
