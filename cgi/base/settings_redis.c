/* The parser of REDIS_URL: one Redis by its host or socket, a master by the Sentinels that watch
 * it, or a Cluster by some of its nodes. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/settings_parse.h"

#define REDIS_PORT 6379
#define SENTINEL_PORT 26379
#define DATABASE_MAX 9999
#define HOSTS_MAX 64
#define HOST_MAX 253 /* RFC 1035 2.3.4, as text */
#define MASTER_NAME_MAX 128

/* What Sentinel takes for a name. */
#define MASTER_NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_"

static const char *after_scheme(const char *value)
{
    return strstr(value, "://") + 3;
}

/* The empty string as NULL: "redis://:password@host" names no user. Takes text over. */
static char *drop_empty(char *text)
{
    if (text == NULL || *text != '\0') {
        return text;
    }
    free(text);
    return NULL;
}

/* Take user and password out of url. */
static void take_redis_user(struct url *url, struct redis_url *out, struct report *report)
{
    out->user = drop_empty(url->user);
    out->password = drop_empty(url->password);
    url->user = NULL;
    url->password = NULL;
    if (out->user != NULL && out->password == NULL) {
        settings_problem(report, "has a user and no password; write user:password@ or :password@");
    }
}

static void parse_redis_database(const char *text, struct redis_url *out, struct report *report)
{
    int64_t number = 0;

    if (*text != '\0' && !settings_integer(text, 0, DATABASE_MAX, &number)) {
        settings_problem(report, "has no database number where one belongs; write one from 0 to %d",
                         DATABASE_MAX);
    }
    out->database = (int)number;
}

static bool is_host(const char *host)
{
    return host[0] != '\0' && strlen(host) <= HOST_MAX;
}

/* The library wants an IPv6 address without its brackets. */
static char *take_host(const struct url *url)
{
    size_t len = strlen(url->host);

    return url->host[0] == '[' ? xstrndup(url->host + 1, len - 2) : xstrdup(url->host);
}

/* redis://[user:password@]host[:port][/database], or rediss:// */
static void parse_redis_tcp(const char *value, struct redis_url *out, struct report *report)
{
    struct url url;

    if (url_parse(value, &url) != OK || !is_host(url.host)) {
        settings_problem(report, "is no URL; write redis://[user:password@]host[:port][/database], "
                                 "with other characters of the password percent-encoded");
        url_clear(&url);
        return;
    }
    take_redis_user(&url, out, report);
    if (url.has_query || url.has_fragment) {
        settings_problem(report,
                         "has a query or fragment; write redis://host:port/database, and ? or "
                         "# of a password percent-encoded");
    }
    out->host = take_host(&url);
    out->port = url.port != 0 ? url.port : REDIS_PORT;
    parse_redis_database(url.path + (url.path[0] == '/'), out, report);
    url_clear(&url);
}

/* unix://[user:password@]/path[?db=database]. No URL has such an authority, so the user is read
 * from one with a host in it. */
static void parse_redis_unix(const char *value, struct redis_url *out, struct report *report)
{
    const char *rest = after_scheme(value);
    size_t user_len = strcspn(rest, "/");
    size_t path_len = strcspn(rest + user_len, "?");
    const char *query = rest + user_len + path_len;
    struct buf text = {0};
    struct url url;

    buf_adds(&text, "redis://");
    buf_add(&text, rest, user_len);
    buf_adds(&text, "localhost/");
    if (user_len > 0 && (rest[user_len - 1] != '@' || url_parse(text.data, &url) != OK)) {
        settings_problem(report, "is no socket; write unix:///path or unix://user:password@/path");
    } else if (user_len > 0) {
        take_redis_user(&url, out, report);
        url_clear(&url);
    }
    buf_clear(&text);
    out->socket_path = xstrndup(rest + user_len, path_len);
    if (!settings_fits_socket_path(out->socket_path)) {
        settings_problem(report, "its path is empty or too long; write unix:///path of at most 107 "
                                 "bytes");
    }
    if (strncmp(query, "?db=", 4) == 0) {
        parse_redis_database(query + 4, out, report);
    } else if (*query != '\0') {
        settings_problem(report, "has a query that is not db; write ?db=NUMBER, or nothing");
    }
}

/* host[:port], as part of a list. */
static bool parse_host(const char *text, size_t len, int default_port, struct redis_host *out)
{
    struct buf whole = {0};
    struct url url;
    bool is_good;

    buf_adds(&whole, "redis://");
    buf_add(&whole, text, len);
    buf_addc(&whole, '/');
    is_good = url_parse(whole.data, &url) == OK;
    buf_clear(&whole);
    if (!is_good) {
        return false;
    }
    is_good = is_host(url.host) && url.user == NULL && url.password == NULL &&
              strcmp(url.path, "/") == 0 && !url.has_query && !url.has_fragment;
    if (is_good) {
        out->host = take_host(&url);
        out->port = url.port != 0 ? url.port : default_port;
    }
    url_clear(&url);
    return is_good;
}

/* h:p,h:p */
static void parse_hosts(const char *text, size_t len, int default_port, struct redis_url *out,
                        struct report *report)
{
    const char *end = text + len;
    int number = 0;

    out->hosts = xcalloc(HOSTS_MAX, sizeof(*out->hosts));
    while (text <= end) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma != NULL ? comma : end;

        number++;
        if (out->host_count == HOSTS_MAX) {
            settings_problem(report, "names more than %d hosts; some of them are enough",
                             HOSTS_MAX);
            return;
        }
        if (parse_host(text, (size_t)(stop - text), default_port, &out->hosts[out->host_count])) {
            out->host_count++;
        } else {
            settings_problem(report, "its host number %d is none; write host:port,host:port",
                             number);
        }
        text = stop + 1;
    }
}

/* user:password@, taken from a URL with a host in it. */
static void parse_user(const char *text, size_t len, struct redis_url *out, struct report *report)
{
    struct buf whole = {0};
    struct url url;

    buf_adds(&whole, "redis://");
    buf_add(&whole, text, len);
    buf_adds(&whole, "localhost/");
    if (url_parse(whole.data, &url) == OK) {
        take_redis_user(&url, out, report);
        url_clear(&url);
    } else {
        settings_problem(report, "has no user and password before its @; write user:password@ or "
                                 ":password@, with other characters percent-encoded");
    }
    buf_clear(&whole);
}

/* [user:password@]h:p,h:p, what the URLs of several hosts have in common. Returns what follows. */
static const char *parse_authority(const char *text, int default_port, struct redis_url *out,
                                   struct report *report)
{
    size_t len = strcspn(text, "/?#");
    const char *at = memrchr(text, '@', len);
    size_t user_len = at != NULL ? (size_t)(at + 1 - text) : 0;

    if (user_len > 0) {
        parse_user(text, user_len, out, report);
    }
    parse_hosts(text + user_len, len - user_len, default_port, out, report);
    if (strpbrk(text + len, "?#") != NULL) {
        settings_problem(report, "has a query or fragment; leave it out, and write ? or # of a "
                                 "password percent-encoded");
    }
    return text + len;
}

/* redis+sentinel://[user:password@]host[:port],.../name[/database] */
static void parse_redis_sentinel(const char *value, struct redis_url *out, struct report *report)
{
    const char *path = parse_authority(after_scheme(value), SENTINEL_PORT, out, report);
    const char *name = path + (*path == '/');
    size_t len = strcspn(name, "/?#");
    const char *database;
    char *text;

    out->kind = REDIS_SENTINEL;
    if (len == 0 || len > MASTER_NAME_MAX || strspn(name, MASTER_NAME_CHARACTERS) < len) {
        settings_problem(report, "has no master's name after its hosts; write "
                                 "redis+sentinel://host:port,host:port/NAME[/database]");
        return;
    }
    out->master = xstrndup(name, len);
    database = name + len + (name[len] == '/');
    text = xstrndup(database, strcspn(database, "?#"));
    parse_redis_database(text, out, report);
    free(text);
}

/* redis+cluster://[user:password@]host[:port],... */
static void parse_redis_cluster(const char *value, struct redis_url *out, struct report *report)
{
    const char *path = parse_authority(after_scheme(value), REDIS_PORT, out, report);

    out->kind = REDIS_CLUSTER;
    if (strcspn(path, "?#") > 1 && strncmp(path, "/0", strcspn(path, "?#")) != 0) {
        settings_problem(report, "has a path, and a Cluster has no databases; end it after the "
                                 "last port");
    }
}

static const struct {
    const char *start;
    bool is_tls;
    void (*parse)(const char *value, struct redis_url *out, struct report *report);
} forms[] = {
    {"redis://", false, parse_redis_tcp},
    {"rediss://", true, parse_redis_tcp},
    {"unix://", false, parse_redis_unix},
    {"redis+sentinel://", false, parse_redis_sentinel},
    {"rediss+sentinel://", true, parse_redis_sentinel},
    {"redis+cluster://", false, parse_redis_cluster},
    {"rediss+cluster://", true, parse_redis_cluster},
};

void settings_parse_redis(const struct setting *setting, const char *value, struct settings *out,
                          struct report *report)
{
    (void)setting;
    if (!settings_is_visible(value, SETTINGS_URL_MAX)) {
        settings_problem(report,
                         "holds a blank or other character that no URL has; percent-encode it");
        return;
    }
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t len = strlen(forms[i].start);

        if (strncasecmp(value, forms[i].start, len) == 0) {
            out->redis.is_tls = forms[i].is_tls;
            forms[i].parse(value, &out->redis, report);
            return;
        }
    }
    settings_problem(report, "names no Redis; write redis://host:port/database, unix:///path, "
                             "redis+sentinel://host:port,host:port/NAME or "
                             "redis+cluster://host:port,host:port, and rediss for TLS");
}
