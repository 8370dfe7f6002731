/* Records as tagged fields: a tag (1 byte), a length (4, big endian), the value; in any order, each
 * tag once. One table for each record makes writing and reading. A tag that this version does not
 * know is passed over and a field that an older version did not write is empty, so that versions
 * can run side by side. JSON was measured first: parsing a session took 8 of the 23 microseconds
 * that a worker spent on a request for its token. */
#include "store/record.h"

#include <stddef.h>
#include <string.h>

/* return_to, were every byte of it percent-encoded, with an error added. */
#define LOCATION_MAX (3 * RETURN_TO_MAX + 256)

#define HEAD_LEN 5
#define TIME_LEN 8

enum kind {
    TEXT,  /* char *, owned; not written while NULL */
    TIME,  /* int64_t from 0 on */
    NAME,  /* char[SECRET_NAME_LEN + 1], a name or "" */
    SECRET /* struct secret */
};
enum need { OPTIONAL, REQUIRED, NOT_EMPTY };

struct field {
    uint8_t tag; /* never given to another meaning */
    enum kind kind;
    size_t offset;
    enum need need;
    size_t max; /* of a TEXT */
};

static const struct field login_fields[] = {
    {1, TEXT, offsetof(struct login, verifier), OPTIONAL, PKCE_LEN},
    {2, TEXT, offsetof(struct login, scope), REQUIRED, SCOPE_MAX},
    {3, TEXT, offsetof(struct login, return_to), NOT_EMPTY, RETURN_TO_MAX},
    {4, NAME, offsetof(struct login, previous), REQUIRED, 0},
    {5, TIME, offsetof(struct login, started_at), REQUIRED, 0},
    {6, NAME, offsetof(struct login, device), OPTIONAL, 0},
};

static const struct field device_fields[] = {
    {1, NAME, offsetof(struct device, name), REQUIRED, 0},
    {2, TEXT, offsetof(struct device, scope), REQUIRED, SCOPE_MAX},
};

/* The session is there only where the login was good. */
static const struct field outcome_fields[] = {
    {1, TEXT, offsetof(struct login_outcome, location), NOT_EMPTY, LOCATION_MAX},
    {2, TIME, offsetof(struct login_outcome, ended_at), REQUIRED, 0},
    {3, SECRET, offsetof(struct login_outcome, session), OPTIONAL, 0},
};

static const struct field session_fields[] = {
    {1, TEXT, offsetof(struct session, access_token), NOT_EMPTY, TOKEN_MAX},
    {2, TEXT, offsetof(struct session, refresh_token), NOT_EMPTY, TOKEN_MAX},
    {3, TEXT, offsetof(struct session, scope), REQUIRED, SCOPE_MAX},
    {4, TIME, offsetof(struct session, expires_at), REQUIRED, 0},
    {5, TIME, offsetof(struct session, obtained_at), REQUIRED, 0},
    {6, TIME, offsetof(struct session, authorized_at), REQUIRED, 0},
    {7, TIME, offsetof(struct session, suspect_since), OPTIONAL, 0},
    {8, TIME, offsetof(struct session, suspect_tried_at), OPTIONAL, 0},
    {9, TEXT, offsetof(struct session, profile.id), OPTIONAL, PROFILE_TEXT_MAX},
    {10, TEXT, offsetof(struct session, profile.account_id), OPTIONAL, PROFILE_TEXT_MAX},
    {11, TEXT, offsetof(struct session, profile.display_name), OPTIONAL, PROFILE_TEXT_MAX},
    {12, TEXT, offsetof(struct session, profile.image_url), OPTIONAL, PROFILE_TEXT_MAX},
    {13, TEXT, offsetof(struct session, profile.product), OPTIONAL, PROFILE_TEXT_MAX},
    {16, TEXT, offsetof(struct session, agent), OPTIONAL, AGENT_MAX},
};

static const struct field listing_fields[] = {
    {1, TIME, offsetof(struct listing, begun_at), REQUIRED, 0},
    {2, TIME, offsetof(struct listing, used_at), REQUIRED, 0},
    {3, TEXT, offsetof(struct listing, agent), OPTIONAL, AGENT_MAX},
};

static const struct field app_token_fields[] = {
    {1, TEXT, offsetof(struct app_token, access_token), NOT_EMPTY, TOKEN_MAX},
    {2, TIME, offsetof(struct app_token, obtained_at_ms), REQUIRED, 0},
    {3, TIME, offsetof(struct app_token, expires_at), REQUIRED, 0},
};

#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

/* ---- writing ---- */

static void put_number(uint64_t number, size_t len, uint8_t *out)
{
    while (len > 0) {
        out[--len] = (uint8_t)number;
        number >>= 8;
    }
}

static void add_field(struct buf *out, uint8_t tag, const void *value, size_t len)
{
    uint8_t head[HEAD_LEN] = {tag};
    put_number(len, HEAD_LEN - 1, head + 1);
    buf_add(out, head, HEAD_LEN);
    buf_add(out, value, len);
}

static void format_field(const struct field *field, const void *record, struct buf *out)
{
    const char *place = (const char *)record + field->offset;
    uint8_t time[TIME_LEN];
    int64_t seconds;
    const char *text;
    switch (field->kind) {
    case TEXT:
        memcpy(&text, place, sizeof(text));
        if (text) {
            add_field(out, field->tag, text, strlen(text));
        }
        break;
    case TIME:
        memcpy(&seconds, place, sizeof(seconds));
        put_number((uint64_t)seconds, TIME_LEN, time);
        add_field(out, field->tag, time, TIME_LEN);
        break;
    case NAME:
        add_field(out, field->tag, place, strlen(place));
        break;
    case SECRET:
        add_field(out, field->tag, place, SECRET_LEN);
        break;
    }
}

static void format(const struct field *fields, size_t count, const void *record, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        format_field(&fields[i], record, out);
    }
}

/* ---- reading ---- */

static uint64_t get_number(const uint8_t *bytes, size_t len)
{
    uint64_t number = 0;
    for (size_t i = 0; i < len; i++) {
        number = number << 8 | bytes[i];
    }
    return number;
}

static bool parse_text(const struct field *field, const uint8_t *value, size_t len, char *place)
{
    if (len > field->max || (len == 0 && field->need == NOT_EMPTY) || memchr(value, 0, len)) {
        return false;
    }
    char *text = xstrndup((const char *)value, len);
    memcpy(place, &text, sizeof(text));
    return true;
}

static bool parse_field(const struct field *field, const uint8_t *value, size_t len, void *record)
{
    char *place = (char *)record + field->offset;
    int64_t time;
    switch (field->kind) {
    case TEXT:
        return parse_text(field, value, len, place);
    case TIME:
        time = (int64_t)get_number(value, len == TIME_LEN ? TIME_LEN : 0);
        memcpy(place, &time, sizeof(time));
        return len == TIME_LEN && time >= 0;
    case NAME:
        if ((len != 0 && len != SECRET_NAME_LEN) || memchr(value, 0, len)) {
            return false;
        }
        memcpy(place, value, len);
        place[len] = '\0';
        return true;
    case SECRET:
        memcpy(place, value, len == SECRET_LEN ? SECRET_LEN : 0);
        return len == SECRET_LEN;
    }
    return false;
}

static const struct field *find_field(const struct field *fields, size_t count, uint8_t tag)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].tag == tag) {
            return &fields[i];
        }
    }
    return NULL;
}

/* Fill the all-zero record. *seen has bit i set for each of fields that was there. */
static enum err parse(const struct field *fields, size_t count, const char *text, size_t text_len,
                      void *record, unsigned *seen)
{
    const uint8_t *bytes = (const uint8_t *)text;
    *seen = 0;
    while (text_len > 0) {
        size_t len = text_len < HEAD_LEN ? 0 : (size_t)get_number(bytes + 1, HEAD_LEN - 1);
        if (text_len < HEAD_LEN || len > text_len - HEAD_LEN) {
            return ERR_FORMAT;
        }
        const struct field *field = find_field(fields, count, bytes[0]);
        if (field) {
            unsigned bit = 1u << (field - fields);
            if (*seen & bit || !parse_field(field, bytes + HEAD_LEN, len, record)) {
                return ERR_FORMAT;
            }
            *seen |= bit;
        }
        bytes += HEAD_LEN + len;
        text_len -= HEAD_LEN + len;
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].need != OPTIONAL && !(*seen & 1u << i)) {
            return ERR_FORMAT;
        }
    }
    return OK;
}

/* ---- the records ---- */

void record_format_login(const struct login *login, struct buf *out)
{
    format(login_fields, COUNT(login_fields), login, out);
}

enum err record_parse_login(const char *text, size_t len, struct login *out)
{
    unsigned seen;
    *out = (struct login){0};
    enum err err = parse(login_fields, COUNT(login_fields), text, len, out, &seen);
    if (err != OK) {
        login_clear(out);
    }
    return err;
}

void record_format_device(const struct device *device, struct buf *out)
{
    format(device_fields, COUNT(device_fields), device, out);
}

enum err record_parse_device(const char *text, size_t len, struct device *out)
{
    unsigned seen;
    *out = (struct device){0};
    enum err err = parse(device_fields, COUNT(device_fields), text, len, out, &seen);
    if (err != OK) {
        device_clear(out);
    }
    return err;
}

void record_format_outcome(const struct login_outcome *outcome, struct buf *out)
{
    size_t without = outcome->has_session ? 0 : 1; /* the session is the last field */
    format(outcome_fields, COUNT(outcome_fields) - without, outcome, out);
}

enum err record_parse_outcome(const char *text, size_t len, struct login_outcome *out)
{
    unsigned seen;
    *out = (struct login_outcome){0};
    enum err err = parse(outcome_fields, COUNT(outcome_fields), text, len, out, &seen);
    out->has_session = seen & 1u << (COUNT(outcome_fields) - 1);
    if (err != OK) {
        login_outcome_clear(out);
    }
    return err;
}

void record_format_session(const struct session *session, struct buf *out)
{
    format(session_fields, COUNT(session_fields), session, out);
}

enum err record_parse_session(const char *text, size_t len, struct session *out)
{
    unsigned seen;
    *out = (struct session){0};
    enum err err = parse(session_fields, COUNT(session_fields), text, len, out, &seen);
    if (err != OK) {
        session_clear(out);
    }
    return err;
}

void record_format_app_token(const struct app_token *token, struct buf *out)
{
    format(app_token_fields, COUNT(app_token_fields), token, out);
}

enum err record_parse_app_token(const char *text, size_t len, struct app_token *out)
{
    unsigned seen;
    *out = (struct app_token){0};
    enum err err = parse(app_token_fields, COUNT(app_token_fields), text, len, out, &seen);
    if (err != OK) {
        app_token_clear(out);
    }
    return err;
}

void record_format_listing(const struct listing *listing, struct buf *out)
{
    format(listing_fields, COUNT(listing_fields), listing, out);
}

enum err record_parse_listing(const char *text, size_t len, struct listing *out)
{
    unsigned seen;
    *out = (struct listing){0};
    enum err err = parse(listing_fields, COUNT(listing_fields), text, len, out, &seen);
    if (err != OK) {
        listing_clear(out);
    }
    return err;
}
