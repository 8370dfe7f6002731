/* Reads what Spotify sends. Strict where a token is at stake (RFC 6749 5.1), lenient about a
 * profile, which nobody's login depends on. base/json checks size, depth, duplicate keys and
 * encoding; what an answer means for a session is for the flows to decide. */
#include "spotify/answer.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/json.h"
#include "base/origin.h"

#define ANSWER_MAX 65536
#define EXPIRES_IN_DEFAULT 3600
#define EXPIRES_IN_MAX ((int64_t)31536000)
/* A whole number that int64_t holds; larger ones mean the same here. */
#define REAL_MAX 9e15

#define ERROR_INVALID_GRANT "invalid_grant"

/* RFC 6749 5.2. */
static const char *const error_words[] = {
    ERROR_INVALID_GRANT,   "invalid_request",        "invalid_client",
    "unauthorized_client", "unsupported_grant_type", "invalid_scope",
};
#define ERROR_WORD_COUNT (sizeof error_words / sizeof error_words[0])

/* The member name of object; NULL when it is missing or null. */
static const json_t *get_member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

/* Every byte of text is from min to 0x7e, none is excluded. */
static bool is_made_of(const char *text, char min, const char *excluded)
{
    for (; *text; text++) {
        if (*text < min || *text > 0x7e || strchr(excluded, *text)) {
            return false;
        }
    }
    return true;
}

/* RFC 6749 A.12 allows a space in a token too, but a Bearer header cannot carry it (RFC 6750 2.1).
 */
static const char *check_access_token(const json_t *value)
{
    if (!json_is_string(value)) {
        return "access_token missing or not a string";
    }
    if (json_string_length(value) == 0) {
        return "access_token empty";
    }
    if (json_string_length(value) > TOKEN_MAX) {
        return "access_token too long";
    }
    if (!is_made_of(json_string_value(value), 0x21, "")) {
        return "access_token with a character outside visible ASCII";
    }
    return NULL;
}

static const char *check_token_type(const json_t *value)
{
    /* Case does not matter (RFC 6749 5.1), and Spotify has used both. */
    if (!json_is_string(value) || strcasecmp(json_string_value(value), "Bearer") != 0) {
        return "token_type is not Bearer";
    }
    return NULL;
}

static const char *check_refresh_token(const json_t *value)
{
    if (!value) {
        return NULL;
    }
    if (!json_is_string(value)) {
        return "refresh_token not a string";
    }
    if (json_string_length(value) > TOKEN_MAX) {
        return "refresh_token too long";
    }
    if (!is_made_of(json_string_value(value), 0x20, "")) { /* RFC 6749 A.17 */
        return "refresh_token with a character outside printable ASCII";
    }
    return NULL;
}

static const char *check_scope(const json_t *value)
{
    if (!value) {
        return NULL;
    }
    if (!json_is_string(value)) {
        return "scope not a string";
    }
    if (json_string_length(value) > SCOPE_MAX) {
        return "scope too long";
    }
    if (!is_made_of(json_string_value(value), 0x20, "\"\\")) { /* RFC 6749 3.3 */
        return "scope with a character that no scope has";
    }
    return NULL;
}

/* Digits alone, without a sign, as far as a year needs them; 0 for any other text. */
static int64_t read_digits(const char *text)
{
    int64_t number = 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') {
            return 0;
        }
        number = number > EXPIRES_IN_MAX ? number : number * 10 + (*text - '0');
    }
    return number;
}

static int64_t read_whole(double real)
{
    real = real < REAL_MAX ? real : REAL_MAX;
    return real >= 1 && (double)(int64_t)real == real ? (int64_t)real : 0;
}

/* An answer is not refused for this: with it would go a refresh token that replaced the old one. */
static int64_t read_expires_in(const json_t *value)
{
    int64_t seconds = 0;
    if (!value) {
        seconds = EXPIRES_IN_DEFAULT;
    } else if (json_is_integer(value)) {
        seconds = json_integer_value(value);
    } else if (json_is_real(value)) {
        seconds = read_whole(json_real_value(value));
    } else if (json_is_string(value)) {
        seconds = read_digits(json_string_value(value));
    }
    if (seconds < 1) {
        return 0;
    }
    return seconds < EXPIRES_IN_MAX ? seconds : EXPIRES_IN_MAX;
}

enum err answer_parse_tokens(const char *body, size_t len, struct tokens *out, const char **problem)
{
    json_t *root = json_parse_object(body, len, ANSWER_MAX);
    const json_t *access_token = get_member(root, "access_token");
    const json_t *refresh_token = get_member(root, "refresh_token");
    const json_t *scope = get_member(root, "scope");

    *problem = root ? NULL : "not one well-formed JSON object";
    if (!*problem) {
        *problem = check_access_token(access_token);
    }
    if (!*problem) {
        *problem = check_token_type(get_member(root, "token_type"));
    }
    if (!*problem) {
        *problem = check_refresh_token(refresh_token);
    }
    if (!*problem) {
        *problem = check_scope(scope);
    }
    if (!*problem) {
        *out = (struct tokens){
            .access_token = xstrdup(json_string_value(access_token)),
            /* An empty one means the same as none (contract A.7). */
            .refresh_token = json_string_length(refresh_token)
                                 ? xstrdup(json_string_value(refresh_token))
                                 : NULL,
            .scope = xstrdup(json_string_value(scope)),
            .expires_in = read_expires_in(get_member(root, "expires_in")),
        };
    }
    json_decref(root);
    return *problem ? ERR_FORMAT : OK;
}

enum err answer_parse_error(int status, const char *body, size_t len, const char **word)
{
    json_t *root = NULL;
    const char *error;
    enum err err = ERR_UPSTREAM;

    *word = "other";
    /* Spotify says invalid_client with 400, RFC 6749 5.2 wants 401: both are heard (contract A.8).
     * The same words under any other status come from something that is not the token endpoint. */
    if (status == 400 || status == 401) {
        root = json_parse_object(body, len, ANSWER_MAX);
    }
    error = root ? json_get_string(root, "error") : NULL;
    if (error) {
        err = strcmp(error, ERROR_INVALID_GRANT) == 0 ? ERR_REFUSED : ERR_MISCONFIGURED;
    }
    for (size_t i = 0; error && i < ERROR_WORD_COUNT; i++) {
        if (strcmp(error, error_words[i]) == 0) {
            *word = error_words[i];
        }
    }
    json_decref(root);
    return err;
}

/* An own copy of the string member name of object, NULL when it is none of use. */
static char *take_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);

    if (len == 0 || len > PROFILE_TEXT_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            return NULL;
        }
    }
    return xstrdup(text);
}

/* A page will load the picture from wherever this says: https, or plain http from this machine. */
static bool is_image_url(const char *url)
{
    struct origin origin = {0};
    bool good;
    if (origin_of_url(url, &origin) != OK) {
        return false;
    }
    good = strncmp(origin.text, "https:", 6) == 0 || origin_is_loopback(&origin);
    origin_clear(&origin);
    return good;
}

static char *take_image_url(const json_t *images)
{
    for (size_t i = 0; i < json_array_size(images); i++) {
        char *url = take_text(json_array_get(images, i), "url");
        if (url && is_image_url(url)) {
            return url;
        }
        xfree_secret(url);
    }
    return NULL;
}

enum err answer_parse_profile(const char *body, size_t len, struct profile *out)
{
    json_t *root = json_parse_object(body, len, ANSWER_MAX);
    if (!root) {
        return ERR_FORMAT;
    }
    *out = (struct profile){
        .id = take_text(root, "id"),
        .account_id = take_text(root, "account_id"),
        .display_name = take_text(root, "display_name"),
        .image_url = take_image_url(json_object_get(root, "images")),
        .product = take_text(root, "product"),
    };
    json_decref(root);
    return OK;
}

/* RFC 9110 5.6.7: the format that is sent today, and the two that must still be understood. */
static bool parse_http_date(const char *text, int64_t *out)
{
    static const char *const formats[] = {
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
    };
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct tm date = {0};
        const char *end = strptime(text, formats[i], &date);
        if (end && end[strspn(end, " \t\r\n")] == '\0') {
            *out = timegm(&date);
            return true;
        }
    }
    return false;
}

int64_t retry_after_parse(const char *text, int64_t now_unix_s)
{
    int64_t seconds = 0;
    int64_t date;

    if (!text) {
        return -1;
    }
    text += strspn(text, " \t");
    if (parse_http_date(text, &date)) {
        seconds = date > now_unix_s ? date - now_unix_s : 0;
        return seconds < INT32_MAX ? seconds : INT32_MAX;
    }
    if (*text < '0' || *text > '9') {
        return -1;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        if (seconds < INT32_MAX) {
            seconds = seconds * 10 + (*text - '0');
        }
    }
    if (text[strspn(text, " \t\r\n")] != '\0') {
        return -1;
    }
    return seconds < INT32_MAX ? seconds : INT32_MAX;
}
