/* The device's side and the person's side of one login meet here. A device code is a secret of 256
 * bits, and what a browser leaves for its holder is boxed; a user code is made to be typed, so it
 * is good for nothing but to say whose login it is, for a short time. */
#include "flows/device.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "flows/handle.h"
#include "store/store_device.h"

/* RFC 8628 6.1: no vowels, so that no words come about; 20^8 are 34 bits. */
static const char letters[] = "BCDFGHJKLMNPQRSTVWXZ";
#define LETTERS (sizeof(letters) - 1)
/* The multiples of LETTERS that a byte can be without some letters being likelier. */
#define BYTE_MAX (256 / LETTERS * LETTERS)

/* RFC 8628 5.1: with a thousand devices waiting, ten guesses find one in 2.5 million; all that are
 * let through of whoever has many addresses find one in 2,500. */
#define GUESSES_MAX 10
#define GUESSES_ALL_MAX 10000
#define GUESS_WINDOW_MS 600000
#define EVERYBODY "everybody" /* no address */

/* A question may travel faster than the one before it. */
#define SLACK_MS 500
/* RFC 8628 3.5: by how much a device has to slow down. */
#define LONGER_MS 5000

/* How often a user code that is taken is made anew. */
#define TRIES_MAX 5

/* ---- codes ---- */

static void new_user_code(char out[static USER_CODE_LEN + 1])
{
    size_t len = 0;
    while (len < USER_CODE_LEN) {
        struct secret random;
        secret_new(&random);
        for (size_t i = 0; i < SECRET_LEN && len < USER_CODE_LEN; i++) {
            if (random.bytes[i] < BYTE_MAX) {
                out[len++] = letters[random.bytes[i] % LETTERS];
            }
        }
    }
    out[len] = '\0';
}

static void write_user_code(const char *code, char out[static DEVICE_USER_CODE_LEN + 1])
{
    memcpy(out, code, USER_CODE_LEN / 2);
    out[USER_CODE_LEN / 2] = '-';
    memcpy(out + USER_CODE_LEN / 2 + 1, code + USER_CODE_LEN / 2, USER_CODE_LEN / 2 + 1);
}

/* RFC 8628 6.1: whatever else was typed is passed over where it is only there to read better. */
static bool read_user_code(const char *typed, char out[static USER_CODE_LEN + 1])
{
    size_t len = 0;
    for (const char *p = typed; *p; p++) {
        char letter = (char)toupper((unsigned char)*p);
        if (letter == '-' || letter == ' ') {
            continue;
        }
        if (len == USER_CODE_LEN || !strchr(letters, letter)) {
            return false;
        }
        out[len++] = letter;
    }
    out[len] = '\0';
    return len == USER_CODE_LEN;
}

void device_add_url(const struct settings *settings, struct buf *out)
{
    buf_add(out, settings->login_url, strlen(settings->login_url) - strlen("authorize"));
    buf_adds(out, "device");
}

enum err device_begin(struct service *service, const char *scope, struct device_codes *out)
{
    struct secret device_code;
    char user_code[USER_CODE_LEN + 1];
    enum err err = ERR_USED;
    secret_new(&device_code);
    for (int i = 0; err == ERR_USED && i < TRIES_MAX; i++) {
        new_user_code(user_code);
        err = store_put_device(service->store, &device_code, user_code, scope);
    }
    secret_format(&device_code, out->device_code);
    write_user_code(user_code, out->user_code);
    secret_wipe(&device_code);
    return err == ERR_USED ? ERR_STORE : err;
}

/* ---- D3 ---- */

/* Who guesses: an IPv6 customer has a whole /64 (RFC 6177). */
static void name_guesser(const struct request *request, char out[static INET6_ADDRSTRLEN])
{
    const char *address = request_variable(request, "REMOTE_ADDR");
    uint8_t bytes[16];
    out[0] = '\0';
    if (address && inet_pton(AF_INET6, address, bytes) == 1) {
        memset(bytes + 8, 0, 8);
        inet_ntop(AF_INET6, bytes, out, INET6_ADDRSTRLEN);
    } else if (address && strlen(address) < INET6_ADDRSTRLEN) {
        memcpy(out, address, strlen(address) + 1);
    }
}

/* Counted before it is known whether it is a wrong one: many at once are counted, too. */
static enum err count_guess(struct store *store, const char *guesser)
{
    int64_t own = 0, all = 0;
    enum err err = store_count_guess(store, guesser, 1, GUESS_WINDOW_MS, &own);
    if (err == OK && own <= GUESSES_MAX) {
        err = store_count_guess(store, EVERYBODY, 1, GUESS_WINDOW_MS, &all);
    }
    if (err == OK && (own > GUESSES_MAX || all > GUESSES_ALL_MAX)) {
        log_warn("device codes are guessed", LOG_NUMBER("from_one_address", own),
                 LOG_NUMBER("in_all", all));
        err = ERR_SLOW_DOWN;
    }
    return err;
}

/* It was a right one. */
static void forget_guess(struct store *store, const char *guesser)
{
    int64_t count = 0;
    (void)store_count_guess(store, guesser, -1, GUESS_WINDOW_MS, &count);
    (void)store_count_guess(store, EVERYBODY, -1, GUESS_WINDOW_MS, &count);
}

enum err device_find(struct service *service, const struct request *request, const char *typed,
                     struct device *out, char user_code[static DEVICE_USER_CODE_LEN + 1])
{
    char code[USER_CODE_LEN + 1];
    char guesser[INET6_ADDRSTRLEN];
    if (!read_user_code(typed, code)) {
        return ERR_ABSENT;
    }
    name_guesser(request, guesser);
    enum err err = count_guess(service->store, guesser);
    if (err == OK) {
        err = store_find_device(service->store, code, out);
    }
    if (err == OK) {
        forget_guess(service->store, guesser);
        write_user_code(code, user_code);
    }
    return err;
}

/* ---- D5, D6 ---- */

enum err device_refuse(struct service *service, const char *name)
{
    return store_answer_device(service->store, name, NULL);
}

enum err device_give(struct service *service, const struct code_grant *grant, const char *name)
{
    struct secret handle, secret;
    struct session session = {0};
    int64_t retry_after_s = 0; /* nobody to tell: a browser is on its way */
    secret_new(&handle);
    handle_derive(&handle, &secret);
    enum err err = grant_redeem(service, grant, &secret, &session, &retry_after_s);
    if (err == OK) {
        /* Where the device has gone away, nobody ever has this handle. */
        err = store_limit_session(service->store, &secret, service->settings->login_ttl_s * 1000);
        if (err == OK) {
            err = store_answer_device(service->store, name, &handle);
        }
        if (err == OK) {
            metrics_count(METRIC_SESSIONS_BEGUN, METRIC_BEGUN_DEVICE);
        }
        if (err == ERR_ABSENT) {
            (void)store_end_session(service->store, &secret, &session, NULL);
            err = ERR_EXPIRED;
        }
        session_clear(&session);
    }
    secret_wipe(&handle);
    secret_wipe(&secret);
    return err;
}

/* ---- D7, D8 ---- */

static enum err give_once(struct service *service, const struct secret *device_code,
                          const struct secret *handle, struct reply *reply)
{
    char text[SECRET_TEXT_LEN + 1];
    struct session session = {0};
    enum err err = handle_load(service, handle, SESSION_AHEAD, reply, &session);
    if (err != OK) {
        return err;
    }
    err = store_take_device(service->store, device_code);
    if (err == OK) {
        secret_format(handle, text);
        session_write_token(&session, text, reply);
        metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
        explicit_bzero(text, sizeof(text));
    }
    session_clear(&session);
    return err == ERR_USED ? ERR_INVALID_GRANT : err;
}

enum err device_poll(struct service *service, const char *text, struct reply *reply)
{
    struct secret device_code, handle;
    if (secret_parse(text, &device_code) != OK) {
        return ERR_INVALID_GRANT;
    }
    enum err err = store_poll_device(service->store, &device_code,
                                     DEVICE_INTERVAL_S * 1000 - SLACK_MS, LONGER_MS, &handle);
    if (err == OK) {
        err = give_once(service, &device_code, &handle, reply);
        secret_wipe(&handle);
    }
    secret_wipe(&device_code);
    return err == ERR_ABSENT ? ERR_INVALID_GRANT : err;
}
