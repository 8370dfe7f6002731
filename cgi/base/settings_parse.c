/* Parsers of the settings' plain values: text, numbers, switches, keys, clients. A parser says what
 * is wrong and what to write instead, and shows nothing of a value that may be a secret, or a
 * secret that was put into the wrong setting. Values that name a place are in settings_url.c. */
#include "base/settings_parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/model.h"
#include "base/scope.h"

#define CREDENTIAL_MAX 512
#define PREFIX_MAX 64
#define CLIENT_NAME_MAX 64
#define SERVICE_CLIENTS_MAX 256
#define PEM_BEGIN "-----BEGIN "
#define WORD_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

/* The member of out that this row of the table fills. */
static void *member(const struct setting *setting, struct settings *out)
{
    return (char *)out + setting->offset;
}

bool settings_is_visible(const char *text, size_t max)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        if (text[i] <= 0x20 || text[i] >= 0x7f) {
            return false;
        }
    }
    return len > 0 && len <= max;
}

bool settings_integer(const char *text, int64_t min, int64_t max, int64_t *out)
{
    size_t len = strspn(text, "0123456789");
    int64_t number;

    /* 18 digits always fit. */
    if (len == 0 || len > 18 || text[len] != '\0') {
        return false;
    }
    number = strtoll(text, NULL, 10);
    if (number < min || number > max) {
        return false;
    }
    *out = number;
    return true;
}

char *settings_next_entry(const char **cursor)
{
    const char *start = *cursor;
    size_t len;

    if (start == NULL) {
        return NULL;
    }
    start += strspn(start, " \t");
    len = strcspn(start, ",");
    *cursor = start[len] == ',' ? start + len + 1 : NULL;
    while (len > 0 && (start[len - 1] == ' ' || start[len - 1] == '\t')) {
        len--;
    }
    return xstrndup(start, len);
}

void settings_parse_credential(const struct setting *setting, const char *value,
                               struct settings *out, struct report *report)
{
    if (!settings_is_visible(value, CREDENTIAL_MAX)) {
        settings_problem(report,
                         "holds a blank or other character that no credential has, or is too long; "
                         "write it as Spotify's dashboard shows it, without quotes around it");
    } else {
        *(char **)member(setting, out) = xstrdup(value);
    }
}

void settings_parse_scope(const struct setting *setting, const char *value, struct settings *out,
                          struct report *report)
{
    if (!scope_is_wellformed(value) || strlen(value) > SCOPE_MAX) {
        settings_problem(report,
                         "is no list of scopes; write names such as user-read-email with one "
                         "blank between two, at most 2048 characters");
    } else {
        *(char **)member(setting, out) = xstrdup(value);
    }
}

void settings_parse_switch(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
        settings_problem(report, "is neither on nor off; write on or off");
    } else {
        *(bool *)member(setting, out) = strcmp(value, "on") == 0;
    }
}

void settings_parse_number(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report)
{
    if (!settings_integer(value, setting->min, setting->max, (int64_t *)member(setting, out))) {
        settings_problem(report,
                         "is no whole number in range; write one from %" PRId64 " to %" PRId64,
                         setting->min, setting->max);
    }
}

/* Whether fd, which this closes, has a block in PEM (RFC 7468 2) whose label ends like this. */
static bool has_pem(int fd, const char *label)
{
    FILE *file = fdopen(fd, "r");
    char line[128];
    bool found = false;

    if (file == NULL) {
        close(fd);
        return false;
    }
    setvbuf(file, NULL, _IONBF, 0); /* no copy of a key in stdio's own memory */
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = strncmp(line, PEM_BEGIN, strlen(PEM_BEGIN)) == 0 && strstr(line, label) != NULL;
    }
    explicit_bzero(line, sizeof(line));
    fclose(file);
    return found;
}

/* The name of a file with at least one such block. */
static void parse_pem_file(const struct setting *setting, const char *value, const char *label,
                           const char *what, struct settings *out, struct report *report)
{
    int fd = open(value, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (fd < 0) {
        settings_problem(report, "that file cannot be read (%s); name a readable file",
                         strerror(errno));
    } else if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        settings_problem(report, "that is no regular file; name a file");
        close(fd);
    } else if (!has_pem(fd, label)) {
        settings_problem(report, "that file holds no %s; name one with at least one %s%s (PEM)",
                         what, PEM_BEGIN, label);
    } else {
        *(char **)member(setting, out) = xstrdup(value);
    }
}

void settings_parse_ca_file(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report)
{
    parse_pem_file(setting, value, "CERTIFICATE-----", "certificate", out, report);
}

void settings_parse_key_file(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report)
{
    parse_pem_file(setting, value, "PRIVATE KEY-----", "private key", out, report);
}

void settings_parse_prefix(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report)
{
    /* Braces would move the Cluster hash tag, which is what keeps a script's keys in one slot. */
    if (!settings_is_visible(value, PREFIX_MAX) || strpbrk(value, "{}") != NULL) {
        settings_problem(report, "holds a blank or brace, or is too long; write 1 to 64 visible "
                                 "characters such as spotify-auth:");
    } else {
        *(char **)member(setting, out) = xstrdup(value);
    }
}

void settings_parse_keys(const struct setting *setting, const char *value, struct settings *out,
                         struct report *report)
{
    const char *problem = "is no list of keys";

    (void)setting;
    if (key_ring_parse(value, &out->keys, &problem) != OK) {
        settings_problem(report,
                         "%s; write kid:base64(32 bytes), comma-separated, such as "
                         "spotify-auth --new-key prints",
                         problem);
    }
}

void settings_parse_samesite(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report)
{
    if (strcmp(value, "Strict") != 0 && strcmp(value, "Lax") != 0) {
        settings_problem(report, "is neither Strict nor Lax; write Strict or Lax");
    } else {
        *(bool *)member(setting, out) = strcmp(value, "Lax") == 0;
    }
}

void settings_parse_return_to(const struct setting *setting, const char *value,
                              struct settings *out, struct report *report)
{
    /* Whether it is ours is known once the origins are: process/configure.c. */
    if (strlen(value) > RETURN_TO_MAX) {
        settings_problem(report, "is too long; write at most %d bytes", RETURN_TO_MAX);
    } else {
        *(char **)member(setting, out) = xstrdup(value);
    }
}

static bool has_client(const struct settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->service_client_count; i++) {
        if (strcmp(settings->service_clients[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

bool settings_is_client_name(const char *name, size_t len)
{
    return len > 0 && len <= CLIENT_NAME_MAX && strspn(name, WORD_CHARACTERS) >= len;
}

/* Take one name:hash into out. Returns what is wrong with it, NULL when nothing. */
static const char *parse_client(const char *entry, struct settings *out)
{
    size_t len = strcspn(entry, ":");
    struct service_client client = {0};
    const char *hash = entry + len + 1;

    if (entry[len] != ':' || !settings_is_client_name(entry, len)) {
        return "has no name of 1 to 64 of A-Za-z0-9_- before a colon";
    }
    if (base64_parse(hash, strlen(hash), client.secret_sha256, sizeof(client.secret_sha256)) !=
        OK) {
        return "has no SHA-256 hash (32 bytes in base64url) after the colon";
    }
    client.name = xstrndup(entry, len);
    if (has_client(out, client.name)) {
        free(client.name);
        return "has a name that stands there before";
    }
    out->service_clients[out->service_client_count++] = client;
    return NULL;
}

void settings_parse_clients(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report)
{
    int number = 0;
    char *entry;

    (void)setting;
    out->service_clients = xcalloc(SERVICE_CLIENTS_MAX, sizeof(*out->service_clients));
    while ((entry = settings_next_entry(&value)) != NULL) {
        const char *problem = out->service_client_count == SERVICE_CLIENTS_MAX
                                  ? "is one more than there may be (256)"
                                  : parse_client(entry, out);

        number++;
        if (problem != NULL) {
            settings_problem(report,
                             "entry %d %s; write name:base64url(SHA-256(secret)), such as "
                             "spotify-auth --new-client NAME prints",
                             number, problem);
        }
        free(entry);
    }
}

void settings_parse_log_level(const struct setting *setting, const char *value,
                              struct settings *out, struct report *report)
{
    int level = log_level_parse(value);

    if (level < 0) {
        settings_problem(report, "is no log level; write error, warn, info or debug");
    } else {
        *(int *)member(setting, out) = level;
    }
}
