/* The settings: one table with a row for each, from which come parsing, --check, --help and the
 * README. How a value of each kind is read is in settings_parse.c and settings_url.c; here is where
 * the text comes from (environment, file, default) and what must hold between settings. */
#include "base/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/scope.h"
#include "base/settings_parse.h"

#define FILE_MAX ((size_t)65536)
#define DAY_S ((int64_t)86400)
#define YEARS_S (DAY_S * 365 * 10)
#define CALLBACK "callback"

#define AT(member) offsetof(struct settings, member)

static const struct setting TABLE[] = {
    {"SPOTIFY_CLIENT_ID", NULL, NULL, true, settings_parse_credential, AT(client_id), 0, 0,
     "the app's client id, from Spotify's developer dashboard"},
    {"SPOTIFY_CLIENT_SECRET", NULL, NULL, true, settings_parse_credential, AT(client_secret), 0, 0,
     "the app's client secret, from the same page"},
    {"SPOTIFY_REDIRECT_URI", NULL, NULL, true, settings_parse_redirect_uri, AT(redirect_uri), 0, 0,
     "the registered redirect URI, such as `https://music.example/auth/callback`; its origin is "
     "the "
     "service's own public origin"},
    {"SPOTIFY_SCOPE", "user-read-private user-read-email", NULL, false, settings_parse_scope,
     AT(scope), 0, 0, "scope asked for when `/authorize` names none"},
    {"SPOTIFY_SCOPE_ALLOWED", NULL, "as `SPOTIFY_SCOPE`", false, settings_parse_scope,
     AT(scope_allowed), 0, 0, "what `?scope=` may ask for"},
    {"SPOTIFY_PKCE", "on", NULL, false, settings_parse_switch, AT(pkce), 0, 0,
     "`on` or `off`: send PKCE S256 besides the client secret"},
    {"SPOTIFY_PROFILE", "on", NULL, false, settings_parse_switch, AT(profile), 0, 0,
     "`on` or `off`: read `/v1/me` at login"},
    {"SPOTIFY_ACCOUNTS_URL", "https://accounts.spotify.com", NULL, false, settings_parse_upstream,
     AT(accounts_url), 0, 0,
     "origin of Spotify's accounts service; plain http for loopback addresses only"},
    {"SPOTIFY_API_URL", "https://api.spotify.com", NULL, false, settings_parse_upstream,
     AT(api_url), 0, 0, "origin of Spotify's Web API; plain http for loopback addresses only"},
    {"UPSTREAM_CA_FILE", NULL, "the system's", false, settings_parse_ca_file, AT(upstream_ca_file),
     0, 0, "file with the CA certificates (PEM) for those two"},
    {"REDIS_URL", "redis://127.0.0.1:6379/0", NULL, false, settings_parse_redis, AT(redis), 0, 0,
     "`redis://[user:password@]host[:port][/database]`, "
     "`unix://[user:password@]/path[?db=database]`, "
     "`redis+sentinel://[user:password@]host[:port],…/name[/database]` or "
     "`redis+cluster://[user:password@]host[:port],…`; `rediss` for TLS"},
    {"REDIS_CA_FILE", NULL, "the system's", false, settings_parse_ca_file, AT(redis_ca_file), 0, 0,
     "file with the CA certificates (PEM) for `rediss`"},
    {"REDIS_CERT_FILE", NULL, NULL, false, settings_parse_ca_file, AT(redis_cert_file), 0, 0,
     "file with the certificate (PEM) to show to a Redis that asks for one"},
    {"REDIS_KEY_FILE", NULL, NULL, false, settings_parse_key_file, AT(redis_key_file), 0, 0,
     "file with that certificate's key (PEM, no password)"},
    {"REDIS_PREFIX", "spotify-auth:", NULL, false, settings_parse_prefix, AT(redis_prefix), 0, 0,
     "starts the name of every key in Redis"},
    {"SESSION_KEYS", NULL, NULL, true, settings_parse_keys, AT(keys), 0, 0,
     "`kid:base64(32 bytes)`, comma-separated; the first seals, all open; "
     "`spotify-auth --new-key` prints one"},
    {"SESSION_IDLE_TTL", "2592000", NULL, false, settings_parse_number, AT(session_idle_ttl_s), 1,
     YEARS_S, "seconds without use after which a session ends"},
    {"SESSION_MAX_AGE", "15552000", NULL, false, settings_parse_number, AT(session_max_age_s), 1,
     YEARS_S,
     "seconds after authorization after which a session ends whatever happens (Spotify's refresh "
     "tokens live six months from then)"},
    {"COOKIE_SAMESITE", "Strict", NULL, false, settings_parse_samesite, AT(samesite_lax), 0, 0,
     "`Strict` or `Lax`, of the session cookie"},
    {"ALLOWED_ORIGINS", NULL, NULL, false, settings_parse_origins, AT(allowed_origins), 0, 0,
     "comma-separated origins of web frontends that may call with credentials, and to which "
     "`return_to` may point"},
    {"RETURN_TO", "/", NULL, false, settings_parse_return_to, AT(return_to), 0, 0,
     "where a login ends when `/authorize` named nothing"},
    {"LOGIN_TTL", "600", NULL, false, settings_parse_number, AT(login_ttl_s), 1, DAY_S,
     "seconds a login may take"},
    {"REFRESH_AHEAD", "60", NULL, false, settings_parse_number, AT(refresh_ahead_s), 0, 3600,
     "a token with fewer seconds left is renewed before it is handed out"},
    {"SERVICE_CLIENTS", NULL, NULL, false, settings_parse_clients, AT(service_clients), 0, 0,
     "`name:base64url(SHA-256(secret))`, comma-separated: who may ask `/api/token`; "
     "`spotify-auth --new-client NAME` prints one"},
    {"SWAP_REDIRECT_URIS", NULL, NULL, false, settings_parse_app_uris, AT(swap_redirect_uris), 0, 0,
     "comma-separated redirect URIs of mobile apps, the first is the default; empty: the swap "
     "routes answer 404"},
    {"DEVICE_LOGIN", "off", NULL, false, settings_parse_switch, AT(device_login), 0, 0,
     "`on` or `off`: whether the device routes exist"},
    {"LISTEN", "unix:/run/spotify-auth/spotify-auth.sock", NULL, false, settings_parse_listen,
     AT(listen), 0, 0,
     "`unix:/path` or `tcp:HOST:PORT`; not looked at when descriptor 0 is a listening socket"},
    {"WORKERS", NULL, "number of CPUs", false, settings_parse_number, AT(workers), 1, 1024,
     "worker processes"},
    {"STORE_TIMEOUT_MS", "500", NULL, false, settings_parse_number, AT(store_timeout_ms), 1, 60000,
     "one Redis command"},
    {"UPSTREAM_CONNECT_TIMEOUT_MS", "3000", NULL, false, settings_parse_number,
     AT(upstream_connect_timeout_ms), 1, 120000, "reaching Spotify"},
    {"UPSTREAM_TIMEOUT_MS", "10000", NULL, false, settings_parse_number, AT(upstream_timeout_ms), 1,
     120000, "one call to Spotify"},
    {"UPSTREAM_MAX_IN_FLIGHT", "4096", NULL, false, settings_parse_number,
     AT(upstream_max_in_flight), 1, 65536,
     "calls to Spotify in flight in one worker; more get 503"},
    {"DRAIN_TIMEOUT_S", "30", NULL, false, settings_parse_number, AT(drain_timeout_s), 0, 3600,
     "seconds that requests in hand may take after SIGTERM"},
    {"LOG_LEVEL", "info", NULL, false, settings_parse_log_level, AT(log_level), 0, 0,
     "`error`, `warn`, `info` or `debug`"},
};
#define TABLE_COUNT (sizeof(TABLE) / sizeof(TABLE[0]))

void settings_problem(struct report *report, const char *format, ...)
{
    va_list arguments;

    fprintf(report->out, "%s: ", report->setting);
    va_start(arguments, format);
    vfprintf(report->out, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(arguments);
    fputc('\n', report->out);
    report->count++;
}

/* Read a whole small file, without the newline at its end. NULL with *problem set when that fails.
 */
static char *read_value_file(const char *path, const char **problem)
{
    FILE *file = fopen(path, "re");
    char *value = NULL;
    size_t len;

    if (file == NULL) {
        *problem = strerror(errno);
        return NULL;
    }
    setvbuf(file, NULL, _IONBF, 0); /* no copy of a secret in stdio's own memory */
    value = xcalloc(1, FILE_MAX + 1);
    len = fread(value, 1, FILE_MAX + 1, file);
    if (ferror(file)) {
        *problem = strerror(errno);
    } else if (len > FILE_MAX) {
        *problem = "longer than 64 KiB";
    } else if (memchr(value, '\0', len) != NULL) {
        *problem = "it holds a NUL byte";
    }
    fclose(file);
    if (*problem != NULL) {
        explicit_bzero(value, FILE_MAX + 1);
        free(value);
        return NULL;
    }
    value[len] = '\0';
    if (len > 0 && value[len - 1] == '\n') {
        value[--len] = '\0';
    }
    if (len > 0 && value[len - 1] == '\r') {
        value[--len] = '\0';
    }
    return value;
}

/* The text of a setting, from NAME or the file that NAME_FILE names; NULL when it is not set, or
 * could not be read, which is reported. The caller wipes and frees it. */
static char *read_value(const struct setting *setting, struct report *report)
{
    const char *value = getenv(setting->name), *path, *problem = NULL;
    char file_name[64], *read;

    snprintf(file_name, sizeof(file_name), "%s_FILE", setting->name);
    path = getenv(file_name);
    if (path == NULL || *path == '\0') {
        return value != NULL && *value != '\0' ? xstrdup(value) : NULL;
    }
    if (value != NULL && *value != '\0') {
        settings_problem(report, "%s is set as well; set only one of the two", file_name);
        return NULL;
    }
    read = read_value_file(path, &problem);
    if (read == NULL) {
        settings_problem(report, "the file that %s names cannot be read (%s); name a readable file",
                         file_name, problem);
    } else if (*read != '\0') {
        return read;
    }
    free(read);
    return NULL;
}

static void load_setting(const struct setting *setting, struct settings *out, struct report *report)
{
    int before = report->count;
    char *value;

    report->setting = setting->name;
    value = read_value(setting, report);
    if (value == NULL && report->count > before) {
        return;
    }
    if (value == NULL && setting->required) {
        settings_problem(report, "not set; write %s", setting->meaning);
    }
    if (value != NULL) {
        setting->parse(setting, value, out, report);
    } else if (setting->fallback != NULL) {
        setting->parse(setting, setting->fallback, out, report);
    }
    xfree_secret(value);
}

static int64_t count_cpus(void)
{
    cpu_set_t cpus;

    /* What this process may run on: a container's share, not the machine's size. */
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
        return CPU_COUNT(&cpus);
    }
    return sysconf(_SC_NPROCESSORS_ONLN) > 0 ? sysconf(_SC_NPROCESSORS_ONLN) : 1;
}

/* Settings that follow others. One that has a problem follows too: out is not used then. */
static void derive(struct settings *out)
{
    struct buf url = {0};

    if (out->scope_allowed == NULL) {
        out->scope_allowed = xstrdup(out->scope);
    }
    if (out->workers == 0) {
        out->workers = count_cpus();
    }
    if (out->redirect_uri == NULL) {
        return;
    }
    out->secure = strncasecmp(out->redirect_uri, "https:", 6) == 0;
    buf_add(&url, out->redirect_uri, strlen(out->redirect_uri) - strlen(CALLBACK));
    buf_adds(&url, "authorize");
    out->login_url = buf_take(&url);
}

/* What /authorize asks for by itself must be allowed by name, too. */
static void check_scopes(const struct settings *settings, struct report *report)
{
    report->setting = "SPOTIFY_SCOPE";
    for (const char *at = settings->scope; at != NULL && *at != '\0'; at += *at == ' ') {
        char *scope = xstrndup(at, strcspn(at, " "));

        if (!scope_includes(settings->scope_allowed, scope)) {
            settings_problem(
                report, "%s is not in SPOTIFY_SCOPE_ALLOWED; add it there or leave it out here",
                scope);
        }
        at += strlen(scope);
        free(scope);
    }
}

int settings_load(struct settings *out, FILE *problems)
{
    struct report report = {.out = problems};

    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        load_setting(&TABLE[i], out, &report);
    }
    derive(out);
    check_scopes(out, &report);
    return report.count;
}

static void clear_clients(struct settings *settings)
{
    for (size_t i = 0; i < settings->service_client_count; i++) {
        free(settings->service_clients[i].name);
    }
    free(settings->service_clients);
}

static void clear_texts(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
}

void settings_clear(struct settings *settings)
{
    free(settings->client_id);
    xfree_secret(settings->client_secret);
    free(settings->redirect_uri);
    origin_clear(&settings->origin);
    free(settings->login_url);
    free(settings->scope);
    free(settings->scope_allowed);
    free(settings->accounts_url);
    free(settings->api_url);
    free(settings->upstream_ca_file);
    free(settings->redis.socket_path);
    free(settings->redis.host);
    for (size_t i = 0; i < settings->redis.host_count; i++) {
        free(settings->redis.hosts[i].host);
    }
    free(settings->redis.hosts);
    free(settings->redis.master);
    free(settings->redis.user);
    xfree_secret(settings->redis.password);
    free(settings->redis_ca_file);
    free(settings->redis_cert_file);
    free(settings->redis_key_file);
    free(settings->redis_prefix);
    key_ring_wipe(&settings->keys);
    origin_list_clear(&settings->allowed_origins);
    free(settings->return_to);
    clear_clients(settings);
    clear_texts(&settings->swap_redirect_uris);
    free(settings->listen.socket_path);
    free(settings->listen.host);
    free(settings->listen.port);
    memset(settings, 0, sizeof(*settings));
}

int64_t settings_authorization_life_s(const struct settings *settings)
{
    return settings->session_max_age_s < REFRESH_TOKEN_LIFE_S ? settings->session_max_age_s
                                                              : REFRESH_TOKEN_LIFE_S;
}

void settings_print_table(FILE *out)
{
    fputs("| setting | default | meaning |\n|---|---|---|\n", out);
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        const struct setting *setting = &TABLE[i];

        fprintf(out, "| `%s` | ", setting->name);
        if (setting->required) {
            fputs("required", out);
        } else if (setting->shown != NULL) {
            fputs(setting->shown, out);
        } else if (setting->fallback != NULL) {
            fprintf(out, "`%s`", setting->fallback);
        } else {
            fputs("empty", out);
        }
        fprintf(out, " | %s", setting->meaning);
        if (setting->max > 0) {
            fprintf(out, " (%" PRId64 " to %" PRId64 ")", setting->min, setting->max);
        }
        fputs(" |\n", out);
    }
}
