/* Records: what was stored reads back the same, and what is no record is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "store/record.h"

static char *text_of(char c, size_t len)
{
    char *text = xcalloc(len + 1, 1);
    memset(text, c, len);
    return text;
}

static void same(const char *a, const char *b)
{
    if (!a || !b) {
        assert_ptr_equal(a, b);
    } else {
        assert_string_equal(a, b);
    }
}

static void check_session(struct session *session)
{
    struct buf text = {0};
    struct session back;
    record_format_session(session, &text);
    assert_int_equal(record_parse_session(text.data, text.len, &back), OK);
    assert_int_equal(back.generation, 0);
    same(back.access_token, session->access_token);
    same(back.refresh_token, session->refresh_token);
    same(back.scope, session->scope);
    assert_int_equal(back.expires_at, session->expires_at);
    assert_int_equal(back.obtained_at, session->obtained_at);
    assert_int_equal(back.authorized_at, session->authorized_at);
    assert_int_equal(back.suspect_since, session->suspect_since);
    assert_int_equal(back.suspect_tried_at, session->suspect_tried_at);
    same(back.profile.id, session->profile.id);
    same(back.profile.account_id, session->profile.account_id);
    same(back.profile.display_name, session->profile.display_name);
    same(back.profile.image_url, session->profile.image_url);
    same(back.profile.product, session->profile.product);
    session_clear(&back);
    session_clear(session);
    buf_clear(&text);
}

static void a_session_reads_back(void **state)
{
    (void)state;
    struct session full = {
        .generation = 9,
        .access_token = xstrdup("BQD-access_token"),
        .refresh_token = xstrdup("AQD-refresh_token"),
        .scope = xstrdup("user-read-private user-read-email"),
        .expires_at = 1769900000,
        .obtained_at = 1769896400,
        .authorized_at = 1760000000,
        .suspect_since = 1769890000,
        .suspect_tried_at = 1769890100,
        .profile = {.id = xstrdup("smedjan"),
                    .account_id = xstrdup("31abc"),
                    .display_name = xstrdup("J\xC3\xB6rg \"<&>\" \xF0\x9F\x8E\xB5"),
                    .image_url = xstrdup("https://i.example/p?a=1&b=2"),
                    .product = xstrdup("premium")},
    };
    check_session(&full);

    struct session bare = {
        .access_token = xstrdup("a"), .refresh_token = xstrdup("r"), .scope = xstrdup("")};
    check_session(&bare);
}

static void the_longest_session_reads_back(void **state)
{
    (void)state;
    struct session longest = {
        .access_token = text_of('<', TOKEN_MAX),
        .refresh_token = text_of('&', TOKEN_MAX),
        .scope = text_of('"', SCOPE_MAX),
        .expires_at = INT64_MAX,
        .profile = {.id = text_of('\1', PROFILE_TEXT_MAX),
                    .account_id = text_of('\1', PROFILE_TEXT_MAX),
                    .display_name = text_of('\1', PROFILE_TEXT_MAX),
                    .image_url = text_of('\1', PROFILE_TEXT_MAX),
                    .product = text_of('\1', PROFILE_TEXT_MAX)},
    };
    check_session(&longest);
}

static void too_long_is_refused_not_cut(void **state)
{
    (void)state;
    struct session session = {.access_token = text_of('a', TOKEN_MAX + 1),
                              .refresh_token = xstrdup("r"),
                              .scope = xstrdup("s")};
    struct buf text = {0};
    record_format_session(&session, &text);
    struct session back;
    assert_int_equal(record_parse_session(text.data, text.len, &back), ERR_FORMAT);
    session_clear(&session);
    buf_clear(&text);
}

/* Fields as the records have them, to be put together and spoilt. */
#define TEXT(tag, c) tag "\0\0\0\1" c
#define EMPTY(tag) tag "\0\0\0\0"
#define NUMBER(tag, c) tag "\0\0\0\10\0\0\0\0\0\0\0" c
#define TIMES NUMBER("\4", "\1") NUMBER("\5", "\1") NUMBER("\6", "\1")
#define SESSION TEXT("\1", "a") TEXT("\2", "r") TEXT("\3", "s") TIMES

struct spoilt {
    const char *text;
    size_t len;
    enum err want;
};
#define SPOILT(text, want)                                                                         \
    {                                                                                              \
        text, sizeof(text) - 1, want                                                               \
    }

static void what_is_no_session_is_refused(void **state)
{
    (void)state;
    static const struct spoilt cases[] = {
        SPOILT(SESSION, OK),
        SPOILT(SESSION TEXT("\377", "n"), OK),
        SPOILT("", ERR_FORMAT),
        SPOILT("{}", ERR_FORMAT),
        SPOILT(SESSION SESSION, ERR_FORMAT),
        SPOILT(SESSION "\11\0\0\0\2x", ERR_FORMAT),
        SPOILT(SESSION "\11\377\377\377\377x", ERR_FORMAT),
        SPOILT(SESSION "\11\0\0", ERR_FORMAT),
        SPOILT(SESSION TEXT("\11", "\0"), ERR_FORMAT),
        SPOILT(TEXT("\2", "r") TEXT("\3", "s") TIMES, ERR_FORMAT),
        SPOILT(EMPTY("\1") TEXT("\2", "r") TEXT("\3", "s") TIMES, ERR_FORMAT),
        SPOILT(TEXT("\1", "a") EMPTY("\2") TEXT("\3", "s") TIMES, ERR_FORMAT),
        SPOILT(TEXT("\1", "a") TEXT("\2", "r") TIMES, ERR_FORMAT),
        SPOILT(TEXT("\1", "a") TEXT("\2", "r") EMPTY("\3") TIMES, OK),
        SPOILT(TEXT("\1", "a") TEXT("\2", "r") TEXT("\3", "s"), ERR_FORMAT),
        SPOILT(SESSION TEXT("\7", "x"), ERR_FORMAT),
        SPOILT(SESSION "\7\0\0\0\10\377\377\377\377\377\377\377\377", ERR_FORMAT),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct session session;
        enum err err = record_parse_session(cases[i].text, cases[i].len, &session);
        if (err != cases[i].want) {
            fail_msg("wrong about case %zu", i);
        }
        if (err == OK) {
            session_clear(&session);
        }
    }
}

static void a_login_reads_back(void **state)
{
    (void)state;
    struct login logins[] = {
        {.verifier = text_of('v', PKCE_LEN),
         .scope = xstrdup("one two"),
         .return_to = xstrdup("/page?a=1&b=%20#top"),
         .previous = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq",
         .started_at = 1769900000,
         .device = "qponmlkjihgfedcbazyxwvutsrqponmlkjihgfedcba"},
        {.scope = xstrdup(""), .return_to = xstrdup("/")},
    };
    for (size_t i = 0; i < 2; i++) {
        struct buf text = {0};
        struct login back;
        record_format_login(&logins[i], &text);
        assert_int_equal(record_parse_login(text.data, text.len, &back), OK);
        same(back.verifier, logins[i].verifier);
        same(back.scope, logins[i].scope);
        same(back.return_to, logins[i].return_to);
        same(back.previous, logins[i].previous);
        assert_int_equal(back.started_at, logins[i].started_at);
        same(back.device, logins[i].device);
        login_clear(&back);
        login_clear(&logins[i]);
        buf_clear(&text);
    }
}

#define LOGIN_REST TEXT("\2", "s") TEXT("\3", "/")

static void what_is_no_login_is_refused(void **state)
{
    (void)state;
    static const struct spoilt cases[] = {
        SPOILT(LOGIN_REST EMPTY("\4") NUMBER("\5", "\1"), OK),
        SPOILT("", ERR_FORMAT),
        SPOILT(TEXT("\2", "s") EMPTY("\4") NUMBER("\5", "\1"), ERR_FORMAT),
        SPOILT(LOGIN_REST NUMBER("\5", "\1"), ERR_FORMAT),
        SPOILT(LOGIN_REST TEXT("\4", "x") NUMBER("\5", "\1"), ERR_FORMAT),
        SPOILT(LOGIN_REST EMPTY("\4"), ERR_FORMAT),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct login login;
        assert_int_equal(record_parse_login(cases[i].text, cases[i].len, &login), cases[i].want);
        login_clear(&login);
    }
}

static void a_device_reads_back(void **state)
{
    (void)state;
    struct device device = {.name = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq",
                            .scope = xstrdup("one two")};
    struct device back;
    struct buf text = {0};
    record_format_device(&device, &text);
    assert_int_equal(record_parse_device(text.data, text.len, &back), OK);
    same(back.name, device.name);
    same(back.scope, device.scope);
    device_clear(&back);
    assert_int_equal(record_parse_device(text.data, text.len - 1, &back), ERR_FORMAT);
    assert_null(back.scope);
    device_clear(&device);
    buf_clear(&text);
}

static void an_outcome_reads_back(void **state)
{
    (void)state;
    struct login_outcome outcomes[] = {
        {.location = xstrdup("/"), .has_session = true, .ended_at = 1769900000},
        {.location = xstrdup("/?error=login_failed"), .ended_at = 1},
    };
    secret_new(&outcomes[0].session);
    for (size_t i = 0; i < 2; i++) {
        struct buf text = {0};
        struct login_outcome back;
        record_format_outcome(&outcomes[i], &text);
        assert_int_equal(record_parse_outcome(text.data, text.len, &back), OK);
        same(back.location, outcomes[i].location);
        assert_int_equal(back.has_session, outcomes[i].has_session);
        assert_true(secret_equal(&back.session, &outcomes[i].session));
        assert_int_equal(back.ended_at, outcomes[i].ended_at);
        login_outcome_clear(&back);
        login_outcome_clear(&outcomes[i]);
        buf_clear(&text);
    }
}

static void what_is_no_outcome_is_refused(void **state)
{
    (void)state;
    static const struct spoilt cases[] = {
        SPOILT(TEXT("\1", "/") NUMBER("\2", "\1"), OK),
        SPOILT("", ERR_FORMAT),
        SPOILT(TEXT("\1", "/"), ERR_FORMAT),
        SPOILT(NUMBER("\2", "\1"), ERR_FORMAT),
        SPOILT(EMPTY("\1") NUMBER("\2", "\1"), ERR_FORMAT),
        SPOILT(TEXT("\1", "/") NUMBER("\2", "\1") TEXT("\3", "x"), ERR_FORMAT),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct login_outcome outcome;
        assert_int_equal(record_parse_outcome(cases[i].text, cases[i].len, &outcome),
                         cases[i].want);
        login_outcome_clear(&outcome);
    }
}

static void an_app_token_reads_back(void **state)
{
    (void)state;
    struct app_token token = {
        .access_token = xstrdup("at"), .obtained_at_ms = 1795309440123, .expires_at = 1795313040};
    struct app_token back;
    struct buf text = {0};
    record_format_app_token(&token, &text);
    assert_int_equal(record_parse_app_token(text.data, text.len, &back), OK);
    assert_string_equal(back.access_token, "at");
    assert_int_equal(back.obtained_at_ms, token.obtained_at_ms);
    assert_int_equal(back.expires_at, token.expires_at);
    for (size_t len = 0; len < text.len; len++) {
        struct app_token cut;
        assert_int_equal(record_parse_app_token(text.data, len, &cut), ERR_FORMAT);
        assert_null(cut.access_token);
    }
    app_token_clear(&back);
    app_token_clear(&token);
    buf_clear(&text);
}

static void a_listing_reads_back(void **state)
{
    (void)state;
    struct listing listings[] = {{1, 2, xstrdup("Firefox on Linux")}, {0, 1769900000, NULL}};
    for (size_t i = 0; i < 2; i++) {
        struct buf text = {0};
        struct listing back;
        record_format_listing(&listings[i], &text);
        assert_int_equal(record_parse_listing(text.data, text.len, &back), OK);
        assert_int_equal(back.begun_at, listings[i].begun_at);
        assert_int_equal(back.used_at, listings[i].used_at);
        same(back.agent, listings[i].agent);
        listing_clear(&back);
        assert_int_equal(record_parse_listing(text.data, text.len - 1, &back), ERR_FORMAT);
        assert_null(back.agent);
        listing_clear(&listings[i]);
        buf_clear(&text);
    }
}

static int start(void **state)
{
    (void)state;
    seal_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_reads_back),
        cmocka_unit_test(the_longest_session_reads_back),
        cmocka_unit_test(too_long_is_refused_not_cut),
        cmocka_unit_test(what_is_no_session_is_refused),
        cmocka_unit_test(a_login_reads_back),
        cmocka_unit_test(what_is_no_login_is_refused),
        cmocka_unit_test(a_device_reads_back),
        cmocka_unit_test(an_outcome_reads_back),
        cmocka_unit_test(what_is_no_outcome_is_refused),
        cmocka_unit_test(an_app_token_reads_back),
        cmocka_unit_test(a_listing_reads_back),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
