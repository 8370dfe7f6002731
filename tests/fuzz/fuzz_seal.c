/* Sealed records: bytes that nobody sealed never open, a sealed record with one byte changed does
 * not either, and a record that parses is written and parsed to the same again. */
#include <stdlib.h>
#include <string.h>

#include "store/record.h"

static struct key_ring ring = {.count = 2, .keys = {{.kid = "a", .key = {1}}, {.kid = "bc"}}};
static const struct secret secret = {.bytes = {2}};
static const struct buf aad = {.data = (char *)"session:name", .len = 12};

static void open_foreign(const uint8_t *data, size_t size)
{
    struct buf plain = {0};
    enum err err = seal_open(&ring, &secret, &aad, data, size, &plain);
    if ((err != ERR_SEAL && err != ERR_SEAL_KEY) || plain.len != 0) {
        abort();
    }
    buf_clear(&plain);
}

/* Seal the input, open it, then change the byte that its own first bytes choose. */
static void seal_and_change(const uint8_t *data, size_t size)
{
    struct buf plain = {0};
    struct buf sealed = {0};
    struct buf opened = {0};
    buf_add(&plain, data, size);
    seal_seal(&ring, &secret, &aad, &plain, &sealed);
    if (seal_open(&ring, &secret, &aad, sealed.data, sealed.len, &opened) != OK ||
        opened.len != size || memcmp(opened.data, plain.data, size) != 0) {
        abort();
    }
    size_t at = size >= 2 ? (data[0] * 256u + data[1]) % sealed.len : 0;
    sealed.data[at] = (char)(sealed.data[at] ^ (size >= 3 && data[2] ? data[2] : 1));
    open_foreign((const uint8_t *)sealed.data, sealed.len);
    buf_clear(&plain);
    buf_clear(&sealed);
    buf_clear(&opened);
}

static void same(struct buf *first, struct buf *second)
{
    if (first->len != second->len || memcmp(first->data, second->data, first->len) != 0) {
        abort();
    }
    buf_clear(first);
    buf_clear(second);
}

static void parse_session(const char *text, size_t len)
{
    struct session session;
    if (record_parse_session(text, len, &session) != OK) {
        return;
    }
    struct buf first = {0};
    struct buf second = {0};
    record_format_session(&session, &first);
    session_clear(&session);
    if (record_parse_session(first.data, first.len, &session) != OK) {
        abort();
    }
    record_format_session(&session, &second);
    session_clear(&session);
    same(&first, &second);
}

static void parse_login(const char *text, size_t len)
{
    struct login login;
    if (record_parse_login(text, len, &login) != OK) {
        return;
    }
    struct buf first = {0};
    struct buf second = {0};
    record_format_login(&login, &first);
    login_clear(&login);
    if (record_parse_login(first.data, first.len, &login) != OK) {
        abort();
    }
    record_format_login(&login, &second);
    login_clear(&login);
    same(&first, &second);
}

static void parse_outcome(const char *text, size_t len)
{
    struct login_outcome outcome;
    if (record_parse_outcome(text, len, &outcome) != OK) {
        return;
    }
    struct buf first = {0};
    struct buf second = {0};
    record_format_outcome(&outcome, &first);
    login_outcome_clear(&outcome);
    if (record_parse_outcome(first.data, first.len, &outcome) != OK) {
        abort();
    }
    record_format_outcome(&outcome, &second);
    login_outcome_clear(&outcome);
    same(&first, &second);
}

static void parse_settings(const uint8_t *data, size_t size)
{
    char *text = xcalloc(size + 1, 1);
    if (size > 0) {
        memcpy(text, data, size);
    }
    struct key_ring parsed;
    const char *problem;
    if ((key_ring_parse(text, &parsed, &problem) == OK) != (problem == NULL)) {
        abort();
    }
    struct secret one;
    if (secret_parse(text, &one) == OK) {
        char again[SECRET_TEXT_LEN + 1];
        secret_format(&one, again);
        if (strcmp(again, text) != 0) {
            abort();
        }
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    seal_init();
    open_foreign(data, size);
    seal_and_change(data, size);
    parse_session((const char *)data, size);
    parse_login((const char *)data, size);
    parse_outcome((const char *)data, size);
    parse_settings(data, size);
    return 0;
}
