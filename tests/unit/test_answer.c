/* spotify/answer.c: tables of bodies that Spotify, or something in front of it, may send. */
#include "spotify/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define AT "\"access_token\":\"at\""
#define BEARER "\"token_type\":\"Bearer\""
#define GOOD AT "," BEARER

static char *repeat(char c, size_t count)
{
    char *text = xcalloc(count + 1, 1);
    memset(text, c, count);
    return text;
}

static void assert_text(const char *got, const char *want)
{
    if (want) {
        assert_non_null(got);
        assert_string_equal(got, want);
    } else {
        assert_null(got);
    }
}

static void good_tokens_are_taken(void **state)
{
    static const struct {
        const char *body, *refresh_token, *scope;
        int64_t expires_in;
    } table[] = {
        {"{" GOOD ",\"expires_in\":3600,\"refresh_token\":\"rt\",\"scope\":\"a b\"}", "rt", "a b",
         3600},
        {" \n{" GOOD "}\n", NULL, NULL, 3600},
        {"{" AT ",\"token_type\":\"bearer\",\"expires_in\":1}", NULL, NULL, 1},
        {"{" AT ",\"token_type\":\"BEARER\",\"expires_in\":31536000}", NULL, NULL, 31536000},
        {"{" GOOD ",\"expires_in\":\"120\"}", NULL, NULL, 120},
        {"{" GOOD ",\"expires_in\":3600.0}", NULL, NULL, 3600},
        {"{" GOOD ",\"expires_in\":1e2}", NULL, NULL, 100},
        {"{" GOOD ",\"refresh_token\":\"\"}", NULL, NULL, 3600},
        {"{" GOOD ",\"refresh_token\":null,\"scope\":null,\"expires_in\":null}", NULL, NULL, 3600},
        {"{" GOOD ",\"scope\":\"\"}", NULL, "", 3600},
        {"{" GOOD ",\"more\":{\"a\":[1,2,{\"b\":null}]}}", NULL, NULL, 3600},
        {"{\"access_token\":\"\\u0061t\"," BEARER "}", NULL, NULL, 3600},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tokens tokens = {0};
        const char *problem = NULL;
        assert_int_equal(
            answer_parse_tokens(table[i].body, strlen(table[i].body), &tokens, &problem), OK);
        assert_string_equal(tokens.access_token, "at");
        assert_text(tokens.refresh_token, table[i].refresh_token);
        assert_text(tokens.scope, table[i].scope);
        assert_int_equal(tokens.expires_in, table[i].expires_in);
        tokens_clear(&tokens);
    }
}

static void bad_tokens_are_refused_with_a_reason(void **state)
{
    static const char *const table[] = {
        "",
        "null",
        "[]",
        "\"at\"",
        "{",
        "<html>502</html>",
        "upstream connect error or disconnect/reset before headers",
        "{}",
        "{" GOOD "} {}",
        "{" GOOD "}x",
        "{" GOOD "," AT "}",
        "{" GOOD ",\"a\":1,\"a\":1}",
        "{" BEARER "}",
        "{\"access_token\":null," BEARER "}",
        "{\"access_token\":\"\"," BEARER "}",
        "{\"access_token\":1," BEARER "}",
        "{\"access_token\":[\"at\"]," BEARER "}",
        "{\"access_token\":\"a t\"," BEARER "}",
        "{\"access_token\":\"a\\nt\"," BEARER "}",
        "{\"access_token\":\"a\\u0000t\"," BEARER "}",
        "{\"access_token\":\"a\\u007ft\"," BEARER "}",
        "{\"access_token\":\"\xc3\xa4\"," BEARER "}",
        "{\"access_token\":\"\xff\"," BEARER "}",
        "{" AT "}",
        "{" AT ",\"token_type\":\"\"}",
        "{" AT ",\"token_type\":\"mac\"}",
        "{" AT ",\"token_type\":\"Bearer \"}",
        "{" AT ",\"token_type\":1}",
        "{" AT ",\"token_type\":null}",
        "{" GOOD ",\"refresh_token\":1}",
        "{" GOOD ",\"refresh_token\":{}}",
        "{" GOOD ",\"refresh_token\":\"r\\u0001\"}",
        "{" GOOD ",\"refresh_token\":\"r\\r\\nX: y\"}",
        "{" GOOD ",\"scope\":[\"a\"]}",
        "{" GOOD ",\"scope\":\"a\\nb\"}",
        "{" GOOD ",\"scope\":\"a\\\"b\"}",
        "{" GOOD ",\"scope\":\"a\\\\b\"}",
        "{" GOOD ",\"scope\":\"\xc3\xa4\"}",
        "{" GOOD ",\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tokens tokens = {0};
        const char *problem = NULL;
        if (answer_parse_tokens(table[i], strlen(table[i]), &tokens, &problem) != ERR_FORMAT) {
            fail_msg("taken: %s", table[i]);
        }
        assert_non_null(problem);
        assert_null(tokens.access_token);
    }
}

/* The refresh token beside it is never lost for it. */
static void any_expires_in_leaves_a_good_answer(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } table[] = {
        {"31536001", 31536000},
        {"9223372036854775807", 31536000},
        {"1e99", 31536000},
        {"31536001.0", 31536000},
        {"\"31536001\"", 31536000},
        {"\"99999999999999999999\"", 31536000},
        {"\"0000000000000060\"", 60},
        {"0", 0},
        {"-1", 0},
        {"-9223372036854775808", 0},
        {"0.0", 0},
        {"0.5", 0},
        {"-3600.0", 0},
        {"-1e99", 0},
        {"3600.5", 0},
        {"31536000.5", 0},
        {"true", 0},
        {"{}", 0},
        {"[3600]", 0},
        {"\"\"", 0},
        {"\"0\"", 0},
        {"\"-5\"", 0},
        {"\"+5\"", 0},
        {"\"5s\"", 0},
        {"\" 5\"", 0},
        {"\"1e3\"", 0},
        {"\"soon\"", 0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tokens tokens = {0};
        const char *problem = NULL;
        struct buf body = {0};
        buf_addf(&body, "{" GOOD ",\"refresh_token\":\"new\",\"expires_in\":%s}", table[i].text);
        if (answer_parse_tokens(body.data, body.len, &tokens, &problem) != OK ||
            tokens.expires_in != table[i].want) {
            fail_msg("%s: %d, not %d", table[i].text, (int)tokens.expires_in, (int)table[i].want);
        }
        assert_null(problem);
        assert_string_equal(tokens.refresh_token, "new");
        tokens_clear(&tokens);
        buf_clear(&body);
    }
}

static void a_nul_byte_does_not_end_a_body(void **state)
{
    static const char body[] = "{" GOOD "}\0{";
    struct tokens tokens = {0};
    const char *problem;
    (void)state;
    assert_int_equal(answer_parse_tokens(body, sizeof body - 1, &tokens, &problem), ERR_FORMAT);
}

static void lengths_end_at_their_limits(void **state)
{
    static const struct {
        const char *format;
        size_t max;
    } table[] = {
        {"{\"access_token\":\"%s\"," BEARER "}", TOKEN_MAX},
        {"{" GOOD ",\"refresh_token\":\"%s\"}", TOKEN_MAX},
        {"{" GOOD ",\"scope\":\"%s\"}", SCOPE_MAX},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        for (size_t over = 0; over <= 1; over++) {
            char *text = repeat('A', table[i].max + over);
            char body[TOKEN_MAX + 256];
            struct tokens tokens = {0};
            const char *problem;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(body, sizeof body, table[i].format, text);
#pragma GCC diagnostic pop
            assert_int_equal(answer_parse_tokens(body, strlen(body), &tokens, &problem),
                             over ? ERR_FORMAT : OK);
            tokens_clear(&tokens);
            free(text);
        }
    }
}

static void errors_are_told_apart(void **state)
{
    static const struct {
        int status;
        const char *body;
        enum err want;
        const char *word;
    } table[] = {
        {400, "{\"error\":\"invalid_grant\"}", ERR_REFUSED, "invalid_grant"},
        {400, "{\"error\":\"invalid_grant\",\"error_description\":\"Refresh token revoked\"}",
         ERR_REFUSED, "invalid_grant"},
        {401, "{\"error\":\"invalid_grant\"}", ERR_REFUSED, "invalid_grant"},
        {400, "{\"error\":\"invalid_client\",\"error_description\":\"Invalid client\"}",
         ERR_MISCONFIGURED, "invalid_client"},
        {401, "{\"error\":\"invalid_client\"}", ERR_MISCONFIGURED, "invalid_client"},
        {400, "{\"error\":\"invalid_request\"}", ERR_MISCONFIGURED, "invalid_request"},
        {400, "{\"error\":\"unsupported_grant_type\"}", ERR_MISCONFIGURED,
         "unsupported_grant_type"},
        {400, "{\"error\":\"unauthorized_client\"}", ERR_MISCONFIGURED, "unauthorized_client"},
        {400, "{\"error\":\"invalid_scope\"}", ERR_MISCONFIGURED, "invalid_scope"},
        {400, "{\"error\":\"something\\nnew\"}", ERR_MISCONFIGURED, "other"},
        {400, "{\"error\":\"Invalid_Grant\"}", ERR_MISCONFIGURED, "other"},
        {400, "{\"error\":\"\"}", ERR_MISCONFIGURED, "other"},
        {400, "{\"error\":{\"status\":400,\"message\":\"invalid_grant\"}}", ERR_UPSTREAM, "other"},
        {400, "{\"error\":\"invalid_grant\",\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {400, "{\"error\":\"invalid_grant\\u0000\"}", ERR_UPSTREAM, "other"},
        {400, "{\"error\":null}", ERR_UPSTREAM, "other"},
        {400, "{}", ERR_UPSTREAM, "other"},
        {400, "", ERR_UPSTREAM, "other"},
        {400, "invalid_grant", ERR_UPSTREAM, "other"},
        {400, "[\"invalid_grant\"]", ERR_UPSTREAM, "other"},
        {400, "<html>invalid_grant</html>", ERR_UPSTREAM, "other"},
        {403, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {404, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {429, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {500, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {302, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {200, "{\"error\":\"invalid_grant\"}", ERR_UPSTREAM, "other"},
        {503, "upstream connect error", ERR_UPSTREAM, "other"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        const char *word = NULL;
        enum err got =
            answer_parse_error(table[i].status, table[i].body, strlen(table[i].body), &word);
        if (got != table[i].want) {
            fail_msg("%d for %d %s", got, table[i].status, table[i].body);
        }
        assert_string_equal(word, table[i].word);
    }
}

static void a_profile_has_what_is_of_use(void **state)
{
    static const struct {
        const char *body;
        struct profile want;
    } table[] = {
        {"{\"id\":\"u1\",\"account_id\":\"a1\",\"display_name\":\"\xc3\x84nne <3\","
         "\"product\":\"premium\",\"images\":[{\"url\":\"https://i.scdn.co/image/1\",\"height\":"
         "300}]}",
         {"u1", "a1", "\xc3\x84nne <3", "https://i.scdn.co/image/1", "premium"}},
        {"{}", {0}},
        {"{\"id\":null,\"account_id\":1,\"display_name\":{},\"product\":[],\"images\":\"x\"}", {0}},
        {"{\"id\":\"\",\"product\":\"a\\r\\nX: y\"}", {0}},
        {"{\"images\":null}", {0}},
        {"{\"images\":[null,1,{},{\"url\":null},{\"url\":\"javascript:alert(1)\"},"
         "{\"url\":\"http://i.scdn.co/1\"},{\"url\":\"/image\"},"
         "{\"url\":\"https://u:p@i.scdn.co/1\"},{\"url\":\"https://i.scdn.co/2\"}]}",
         {.image_url = (char *)"https://i.scdn.co/2"}},
        {"{\"images\":[{\"url\":\"http://127.0.0.1:9000/1\"}]}",
         {.image_url = (char *)"http://127.0.0.1:9000/1"}},
        {"{\"error\":{\"status\":401,\"message\":\"The access token expired\"}}", {0}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct profile profile = {0};
        assert_int_equal(answer_parse_profile(table[i].body, strlen(table[i].body), &profile), OK);
        assert_text(profile.id, table[i].want.id);
        assert_text(profile.account_id, table[i].want.account_id);
        assert_text(profile.display_name, table[i].want.display_name);
        assert_text(profile.image_url, table[i].want.image_url);
        assert_text(profile.product, table[i].want.product);
        profile_clear(&profile);
    }
}

static void a_profile_text_ends_at_its_limit(void **state)
{
    (void)state;
    for (size_t over = 0; over <= 1; over++) {
        char *name = repeat('n', PROFILE_TEXT_MAX + over);
        struct buf body = {0};
        struct profile profile = {0};
        buf_addf(&body, "{\"id\":\"u\",\"display_name\":\"%s\"}", name);
        assert_int_equal(answer_parse_profile(body.data, body.len, &profile), OK);
        assert_string_equal(profile.id, "u");
        assert_text(profile.display_name, over ? NULL : name);
        profile_clear(&profile);
        buf_clear(&body);
        free(name);
    }
}

static void a_profile_that_is_no_object_is_refused(void **state)
{
    static const char *const table[] = {"",
                                        "[]",
                                        "null",
                                        "Check settings on developer.spotify.com/dashboard",
                                        "{\"id\":\"\xff\"}",
                                        "{\"id\":\"a\",\"id\":\"b\"}"};
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct profile profile = {0};
        assert_int_equal(answer_parse_profile(table[i], strlen(table[i]), &profile), ERR_FORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_tokens_are_taken),
        cmocka_unit_test(bad_tokens_are_refused_with_a_reason),
        cmocka_unit_test(any_expires_in_leaves_a_good_answer),
        cmocka_unit_test(a_nul_byte_does_not_end_a_body),
        cmocka_unit_test(lengths_end_at_their_limits),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(a_profile_has_what_is_of_use),
        cmocka_unit_test(a_profile_text_ends_at_its_limit),
        cmocka_unit_test(a_profile_that_is_no_object_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
