/* Parsers of the settings that name a place: URLs, origins, redirect URIs, the listening address.
 * URLs are taken apart by base/origin.c; here stand the rules of each setting, among them those
 * that Spotify would only show to a user (contract A.3). REDIS_URL is settings_redis.c's. */
#include "base/settings_parse.h"

#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define ORIGINS_MAX 256
#define APP_URIS_MAX 64
#define CALLBACK "/callback"

static bool ends_in(const char *text, size_t len, const char *end)
{
    size_t end_len = strlen(end);

    return len >= end_len && memcmp(text + len - end_len, end, end_len) == 0;
}

static bool host_is_localhost(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "localhost.") == 0 ||
           ends_in(host, strlen(host), ".localhost");
}

/* Spotify's rules for the scheme and host: https, or http on a loopback address, never by name. */
static void check_redirect_host(const struct url *url, struct report *report)
{
    bool plain = strcmp(url->scheme, "http") == 0;

    if (!plain && strcmp(url->scheme, "https") != 0) {
        settings_problem(report, "is neither https nor http; write https://HOST/auth/callback");
    } else if (host_is_localhost(url->host) && (url->port == 80 || url->port == 443)) {
        settings_problem(report, "Spotify refuses the name localhost; write http://127.0.0.1%s",
                         url->path);
    } else if (host_is_localhost(url->host)) {
        settings_problem(report, "Spotify refuses the name localhost; write http://127.0.0.1:%d%s",
                         url->port, url->path);
    } else if (plain && !host_is_loopback(url->host)) {
        settings_problem(report,
                         "plain http is for loopback addresses such as 127.0.0.1 only; write "
                         "https://HOST/auth/callback");
    }
}

void settings_parse_redirect_uri(const struct setting *setting, const char *value,
                                 struct settings *out, struct report *report)
{
    int before = report->count;
    struct url url;

    (void)setting;
    if (!settings_is_visible(value, SETTINGS_URL_MAX) || strpbrk(value, "\\\"<>") != NULL ||
        url_parse(value, &url) != OK) {
        settings_problem(report, "is no absolute URL; write https://HOST/auth/callback");
        return;
    }
    check_redirect_host(&url, report);
    if (url.user != NULL || url.password != NULL) {
        settings_problem(report, "holds a user or password; write it without");
    }
    if (strchr(value, '#') != NULL) {
        settings_problem(report, "holds a fragment (#...); write it without (RFC 6749 3.1.2)");
    }
    if (value[strcspn(value, "?#")] == '?') {
        settings_problem(report, "holds a query (?...); write it without");
    }
    if (!ends_in(value, strcspn(value, "?#"), CALLBACK)) {
        settings_problem(report,
                         "its path does not end in /callback; write https://HOST/auth/callback, "
                         "and register the same with Spotify");
    }
    if (report->count == before && origin_of_url(value, &out->origin) != OK) {
        settings_problem(report, "is no absolute URL; write https://HOST/auth/callback");
    }
    if (report->count == before) {
        out->redirect_uri = xstrdup(value);
    }
    url_clear(&url);
}

void settings_parse_upstream(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report)
{
    struct origin origin = {0};

    if (origin_parse(value, &origin) != OK) {
        settings_problem(report, "is no origin; write https://HOST or https://HOST:PORT, without a "
                                 "path (/v1 is added by the service)");
    } else if (strncmp(origin.text, "http:", 5) == 0 && !origin_is_loopback(&origin)) {
        settings_problem(report,
                         "plain http is for loopback addresses such as 127.0.0.1 only; write "
                         "https://HOST");
    } else {
        *(char **)((char *)out + setting->offset) = xstrdup(origin.text);
    }
    origin_clear(&origin);
}

void settings_parse_origins(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report)
{
    struct origin_list *list = &out->allowed_origins;
    int number = 0;
    char *entry;

    (void)setting;
    list->items = xcalloc(ORIGINS_MAX, sizeof(*list->items));
    while ((entry = settings_next_entry(&value)) != NULL) {
        number++;
        if (list->count == ORIGINS_MAX) {
            settings_problem(report, "entry %d is one more than there may be; write at most %d",
                             number, ORIGINS_MAX);
        } else if (origin_parse(entry, &list->items[list->count]) == OK) {
            list->count++;
        } else {
            settings_problem(report,
                             "entry %d is no origin; write https://HOST or https://HOST:PORT, "
                             "without a path, and without * in it",
                             number);
        }
        free(entry);
    }
}

/* RFC 3986 4.3, absolute-URI: a scheme, a colon, something after it, no fragment. Apps use schemes
 * and forms of their own (RFC 8252 7.1), so nothing more is asked. */
static bool is_absolute_uri(const char *text)
{
    const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t scheme = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789+-.");

    return settings_is_visible(text, SETTINGS_URL_MAX) && strchr(letters, text[0]) != NULL &&
           text[scheme] == ':' && text[scheme + 1] != '\0' && strpbrk(text, "#\\\"<>") == NULL;
}

void settings_parse_app_uris(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report)
{
    struct text_list *list = &out->swap_redirect_uris;
    int number = 0;
    char *entry;

    (void)setting;
    list->items = xcalloc(APP_URIS_MAX, sizeof(*list->items));
    while ((entry = settings_next_entry(&value)) != NULL) {
        number++;
        if (list->count == APP_URIS_MAX) {
            settings_problem(report, "entry %d is one more than there may be; write at most %d",
                             number, APP_URIS_MAX);
        } else if (is_absolute_uri(entry)) {
            list->items[list->count++] = entry;
            continue;
        } else {
            settings_problem(report,
                             "entry %d is no absolute URI without a fragment; write it as it is "
                             "registered with Spotify, such as my-app://callback",
                             number);
        }
        free(entry);
    }
}

bool settings_fits_socket_path(const char *path)
{
    return path[0] == '/' && path[1] != '\0' &&
           strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path);
}

static void parse_listen_tcp(const char *value, struct listen_address *out, struct report *report)
{
    const char *colon = strrchr(value, ':');
    size_t len = colon != NULL ? (size_t)(colon - value) : 0;
    bool bracketed = len > 2 && value[0] == '[' && value[len - 1] == ']';
    int64_t port;

    if (len == 0 || (!bracketed && memchr(value, ':', len) != NULL)) {
        settings_problem(report, "is no address; write tcp:HOST:PORT, an IPv6 address in brackets");
    } else if (!settings_integer(colon + 1, 1, 65535, &port)) {
        settings_problem(report, "has no port from 1 to 65535 at its end; write tcp:HOST:PORT");
    } else {
        out->host = bracketed ? xstrndup(value + 1, len - 2) : xstrndup(value, len);
        out->port = xstrdup(colon + 1);
    }
}

void settings_parse_listen(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report)
{
    (void)setting;
    if (!settings_is_visible(value, SETTINGS_URL_MAX)) {
        settings_problem(report, "holds a blank; write unix:/path or tcp:HOST:PORT");
    } else if (strncmp(value, "tcp:", 4) == 0) {
        parse_listen_tcp(value + 4, &out->listen, report);
    } else if (strncmp(value, "unix:", 5) != 0) {
        settings_problem(report, "is no address; write unix:/path or tcp:HOST:PORT");
    } else if (!settings_fits_socket_path(value + 5)) {
        settings_problem(report,
                         "its path does not start with / or is longer than 107 bytes; write "
                         "unix:/path");
    } else {
        out->listen.socket_path = xstrdup(value + 5);
    }
}
