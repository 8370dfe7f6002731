/* The settings: what each accepts and refuses, where its text comes from, and that no problem shows
 * a secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/settings.h"
#include "process/configure.h"

#define KEY "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define HASH "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
#define TEXT_32 "abcdefghijklmnopqrstuvwxyz012345"
#define TEXT_64 TEXT_32 TEXT_32

static char *problems;

/* Only the required settings, all good. */
static int set_up(void **state)
{
    (void)state;
    clearenv();
    setenv("SPOTIFY_CLIENT_ID", "0123456789abcdef", 1);
    setenv("SPOTIFY_CLIENT_SECRET", "fedcba9876543210", 1);
    setenv("SPOTIFY_REDIRECT_URI", "https://music.example/auth/callback", 1);
    setenv("SESSION_KEYS", "k1:" KEY, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(problems);
    problems = NULL;
    return 0;
}

/* Load, with the problems' text kept until the next load. */
static int load(struct settings *settings)
{
    size_t len;
    FILE *out;
    int count;

    free(problems);
    problems = NULL;
    out = open_memstream(&problems, &len);
    assert_non_null(out);
    count = configure_load(settings, out);
    fclose(out);
    return count;
}

static void load_good(struct settings *settings)
{
    if (load(settings) != 0) {
        fail_msg("%s", problems);
    }
}

static void test_defaults(void **state)
{
    struct settings settings;

    (void)state;
    load_good(&settings);
    assert_string_equal(settings.client_id, "0123456789abcdef");
    assert_string_equal(settings.origin.text, "https://music.example");
    assert_string_equal(settings.login_url, "https://music.example/auth/authorize");
    assert_true(settings.secure);
    assert_string_equal(settings.scope, "user-read-private user-read-email");
    assert_string_equal(settings.scope_allowed, settings.scope);
    assert_true(settings.pkce);
    assert_true(settings.profile);
    assert_string_equal(settings.accounts_url, "https://accounts.spotify.com");
    assert_string_equal(settings.api_url, "https://api.spotify.com");
    assert_null(settings.upstream_ca_file);
    assert_string_equal(settings.redis.host, "127.0.0.1");
    assert_int_equal(settings.redis.port, 6379);
    assert_int_equal(settings.redis.database, 0);
    assert_string_equal(settings.redis_prefix, "spotify-auth:");
    assert_int_equal(settings.keys.count, 1);
    assert_int_equal(settings.session_idle_ttl_s, 2592000);
    assert_int_equal(settings.session_max_age_s, REFRESH_TOKEN_LIFE_S);
    assert_false(settings.samesite_lax);
    assert_int_equal(settings.allowed_origins.count, 0);
    assert_string_equal(settings.return_to, "/");
    assert_int_equal(settings.login_ttl_s, 600);
    assert_int_equal(settings.refresh_ahead_s, 60);
    assert_int_equal(settings.service_client_count, 0);
    assert_int_equal(settings.swap_redirect_uris.count, 0);
    assert_false(settings.device_login);
    assert_string_equal(settings.listen.socket_path, "/run/spotify-auth/spotify-auth.sock");
    assert_true(settings.workers >= 1);
    assert_int_equal(settings.store_timeout_ms, 500);
    assert_int_equal(settings.upstream_connect_timeout_ms, 3000);
    assert_int_equal(settings.upstream_timeout_ms, 10000);
    assert_int_equal(settings.upstream_max_in_flight, 4096);
    assert_int_equal(settings.drain_timeout_s, 30);
    assert_int_equal(settings.log_level, LOG_INFO);
    settings_clear(&settings);
}

static const struct {
    const char *name;
    const char *value;
} GOOD[] = {
    {"SPOTIFY_REDIRECT_URI", "http://127.0.0.1:8080/auth/callback"},
    {"SPOTIFY_REDIRECT_URI", "http://127.9.9.9/callback"},
    {"SPOTIFY_REDIRECT_URI", "http://[::1]:8080/auth/callback"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example:8443/a/b/callback"},
    {"SPOTIFY_SCOPE", "user-read-email"},
    {"SPOTIFY_SCOPE_ALLOWED", "streaming user-read-email user-read-private"},
    {"SPOTIFY_ACCOUNTS_URL", "http://127.0.0.1:9000"},
    {"SPOTIFY_API_URL", "http://[::1]:9000"},
    {"SPOTIFY_API_URL", "https://api.spotify.com/"},
    {"UPSTREAM_CA_FILE", "/etc/ssl/certs/ca-certificates.crt"},
    {"REDIS_URL", "redis://localhost"},
    {"REDIS_URL", "redis://:p%40ss@redis.example:6380/3"},
    {"REDIS_URL", "redis://user:pass@[::1]:6380/"},
    {"REDIS_URL", "unix:///run/redis.sock"},
    {"SESSION_KEYS", "k2:" KEY ",k1:" KEY "="},
    {"ALLOWED_ORIGINS", "https://a.example, http://127.0.0.1:3000"},
    {"RETURN_TO", "/home?x=1"},
    {"RETURN_TO", "https://music.example/home"},
    {"COOKIE_SAMESITE", "Lax"},
    {"SESSION_IDLE_TTL", "1"},
    {"REFRESH_AHEAD", "0"},
    {"DRAIN_TIMEOUT_S", "0"},
    {"SERVICE_CLIENTS", "bob:" HASH ",al-ice_1:" HASH "="},
    {"SERVICE_CLIENTS", TEXT_64 ":" HASH},
    {"SWAP_REDIRECT_URIS", "my-app://callback,com.example.app:/oauth"},
    {"LISTEN", "tcp:127.0.0.1:9000"},
    {"LISTEN", "tcp:[::1]:65535"},
    {"LISTEN", "unix:/tmp/s"},
    {"LOG_LEVEL", "debug"},
};

static void test_good_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        struct settings settings;

        set_up(NULL);
        setenv(GOOD[i].name, GOOD[i].value, 1);
        if (load(&settings) != 0) {
            fail_msg("%s=%s: %s", GOOD[i].name, GOOD[i].value, problems);
        }
        settings_clear(&settings);
    }
}

static const struct {
    const char *name;
    const char *value;
    const char *want; /* part of the only problem */
} BAD[] = {
    {"SPOTIFY_CLIENT_ID", "", "not set"},
    {"SPOTIFY_CLIENT_ID", "has blank", "blank"},
    {"SPOTIFY_CLIENT_SECRET", "line\n", "blank"},
    {"SPOTIFY_REDIRECT_URI", "", "not set"},
    {"SPOTIFY_REDIRECT_URI", "/auth/callback", "no absolute URL"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/ /callback", "no absolute URL"},
    {"SPOTIFY_REDIRECT_URI", "ftp://music.example/callback", "neither https nor http"},
    {"SPOTIFY_REDIRECT_URI", "http://localhost:8080/auth/callback",
     "write http://127.0.0.1:8080/auth/callback"},
    {"SPOTIFY_REDIRECT_URI", "https://LOCALHOST/auth/callback",
     "write http://127.0.0.1/auth/callback"},
    {"SPOTIFY_REDIRECT_URI", "http://music.example/callback", "plain http"},
    {"SPOTIFY_REDIRECT_URI", "http://128.0.0.1/callback", "plain http"},
    {"SPOTIFY_REDIRECT_URI", "http://127.0.0.1.example/callback", "plain http"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/callback?", "query"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/callback?a=b", "query"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/callback#x", "fragment"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/auth/callback/", "end in /callback"},
    {"SPOTIFY_REDIRECT_URI", "https://music.example/authcallback", "end in /callback"},
    {"SPOTIFY_REDIRECT_URI", "https://u:p@music.example/callback", "user or password"},
    {"SPOTIFY_SCOPE", "a  b", "no list of scopes"},
    {"SPOTIFY_SCOPE", "a\"b", "no list of scopes"},
    {"SPOTIFY_SCOPE_ALLOWED", "user-read-email", "user-read-private is not in"},
    {"SPOTIFY_PKCE", "yes", "on or off"},
    {"SPOTIFY_PROFILE", "On", "on or off"},
    {"DEVICE_LOGIN", "1", "on or off"},
    {"SPOTIFY_ACCOUNTS_URL", "https://accounts.spotify.com/api", "no origin"},
    {"SPOTIFY_ACCOUNTS_URL", "http://accounts.spotify.com", "plain http"},
    {"SPOTIFY_API_URL", "http://localhost:9000", "plain http"},
    {"SPOTIFY_API_URL", "https://api.spotify.com/v1", "no origin"},
    {"UPSTREAM_CA_FILE", "/nonexistent", "cannot be read"},
    {"UPSTREAM_CA_FILE", "/", "no regular file"},
    {"UPSTREAM_CA_FILE", "/proc/self/exe", "holds no certificate"},
    {"REDIS_CA_FILE", "/nowhere", "cannot be read"},
    {"REDIS_CERT_FILE", "/proc/self/exe", "holds no certificate"},
    {"REDIS_KEY_FILE", "/proc/self/exe", "holds no private key"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2", "no master's name"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2/", "no master's name"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2//0", "no master's name"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2/ma%20in", "no master's name"},
    {"REDIS_URL", "redis+sentinel://a:1/" TEXT_64 TEXT_64 "x", "no master's name"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2/main/x", "database"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2/main/1/2", "database"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2/main?db=1", "query"},
    {"REDIS_URL", "redis+sentinel://a:1,,b:2/main", "host number 2"},
    {"REDIS_URL", "redis+sentinel://a:1,b:2,/main", "host number 3"},
    {"REDIS_URL", "redis+sentinel:///main", "host number 1"},
    {"REDIS_URL", "redis+sentinel://u:p@/main", "host number 1"},
    {"REDIS_URL", "redis+sentinel://user@a:1/main", "no password"},
    {"REDIS_URL", "redis+sentinel:a:1/main", "names no Redis"},
    {"REDIS_URL", "redis+cluster://", "host number 1"},
    {"REDIS_URL", "redis+cluster://a:1,b:99999", "host number 2"},
    {"REDIS_URL", "redis+cluster://a:1,b:x", "host number 2"},
    {"REDIS_URL", "redis+cluster://a:1,[::1", "host number 2"},
    {"REDIS_URL", "redis+cluster://a:1/1", "no databases"},
    {"REDIS_URL", "redis+cluster://a:1/0/", "no databases"},
    {"REDIS_URL", "redis+cluster://a:1?x", "query"},
    {"REDIS_URL", "redis+cluster://a:1#x", "query"},
    {"REDIS_URL", "redis+cluster://user@a:1", "no password"},
    {"REDIS_URL", "redis+elsewhere://a:1", "names no Redis"},
    {"REDIS_URL", "http://redis.example", "names no Redis"},
    {"REDIS_URL", "redis.example:6379", "names no Redis"},
    {"REDIS_URL", "redis://user@redis.example", "no password"},
    {"REDIS_URL", "redis://redis.example/zero", "database"},
    {"REDIS_URL", "redis://redis.example/1?a=b", "query"},
    {"REDIS_URL", "unix://", "path"},
    {"REDIS_URL", "unix:///" TEXT_64 TEXT_64, "too long"},
    {"REDIS_URL", "unix:///run/redis.sock?db=x", "database"},
    {"REDIS_URL", "unix:///run/redis.sock?x=1", "not db"},
    {"REDIS_PREFIX", "a{b}:", "brace"},
    {"REDIS_PREFIX", "a b", "blank"},
    {"SESSION_KEYS", "", "not set"},
    {"SESSION_KEYS", KEY, "write kid:base64"},
    {"SESSION_KEYS", "k1:AAAA", "write kid:base64"},
    {"SESSION_KEYS", "k1:" KEY ",k1:" KEY, "write kid:base64"},
    {"SESSION_KEYS", "k1:" KEY ",", "write kid:base64"},
    {"SESSION_IDLE_TTL", "0", "from 1 to"},
    {"SESSION_MAX_AGE", "99999999999999999999999", "from 1 to"},
    {"LOGIN_TTL", "0", "from 1 to"},
    {"LOGIN_TTL", "600s", "from 1 to"},
    {"LOGIN_TTL", "+600", "from 1 to"},
    {"REFRESH_AHEAD", "-1", "from 0 to"},
    {"REFRESH_AHEAD", "3601", "from 0 to"},
    {"WORKERS", "0", "from 1 to"},
    {"WORKERS", "0x10", "from 1 to"},
    {"STORE_TIMEOUT_MS", "0", "from 1 to"},
    {"UPSTREAM_TIMEOUT_MS", "1e3", "from 1 to"},
    {"UPSTREAM_CONNECT_TIMEOUT_MS", " 1", "from 1 to"},
    {"UPSTREAM_MAX_IN_FLIGHT", "0", "from 1 to"},
    {"DRAIN_TIMEOUT_S", "x", "from 0 to"},
    {"COOKIE_SAMESITE", "None", "Strict or Lax"},
    {"ALLOWED_ORIGINS", "*", "entry 1 is no origin"},
    {"ALLOWED_ORIGINS", "null", "entry 1 is no origin"},
    {"ALLOWED_ORIGINS", "https://a.example,https://b.example/path", "entry 2 is no origin"},
    {"ALLOWED_ORIGINS", "https://a.example,", "entry 2 is no origin"},
    {"ALLOWED_ORIGINS", "https://*.example", "entry 1 is no origin"},
    {"RETURN_TO", "//evil.example", "own origin"},
    {"RETURN_TO", "https://evil.example/", "own origin"},
    {"RETURN_TO", "home", "own origin"},
    {"SERVICE_CLIENTS", "bob", "no name"},
    {"SERVICE_CLIENTS", ":" HASH, "no name"},
    {"SERVICE_CLIENTS", "b b:" HASH, "no name"},
    {"SERVICE_CLIENTS", TEXT_64 "x:" HASH, "no name"},
    {"SERVICE_CLIENTS", "bob:abc", "no SHA-256"},
    {"SERVICE_CLIENTS", "bob:" HASH ",bob:" HASH, "entry 2 has a name that stands there before"},
    {"SWAP_REDIRECT_URIS", "callback", "no absolute URI"},
    {"SWAP_REDIRECT_URIS", "my-app:", "no absolute URI"},
    {"SWAP_REDIRECT_URIS", "my-app://a,my-app://b#c", "entry 2"},
    {"LISTEN", "/run/s", "write unix:/path"},
    {"LISTEN", "unix:run/s", "does not start with /"},
    {"LISTEN", "unix:/" TEXT_64 TEXT_64, "longer than"},
    {"LISTEN", "tcp:9000", "no address"},
    {"LISTEN", "tcp:::1:9000", "brackets"},
    {"LISTEN", "tcp:127.0.0.1:0", "no port"},
    {"LISTEN", "tcp:127.0.0.1:65536", "no port"},
    {"LOG_LEVEL", "trace", "error, warn"},
};

static void test_bad_values_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        struct settings settings;
        size_t len = strlen(BAD[i].name);
        int count;

        set_up(NULL);
        setenv(BAD[i].name, BAD[i].value, 1);
        count = load(&settings);
        /* SPOTIFY_SCOPE_ALLOWED too narrow is reported as the scope that is not in it. */
        if (strcmp(BAD[i].name, "SPOTIFY_SCOPE_ALLOWED") == 0) {
            len = strlen("SPOTIFY_SCOPE");
        }
        if (count != 1 || strncmp(problems, BAD[i].name, len) != 0 || problems[len] != ':' ||
            strstr(problems, BAD[i].want) == NULL || strstr(problems, "; ") == NULL) {
            fail_msg("%s=%s: %d: %s", BAD[i].name, BAD[i].value, count, problems);
        }
        settings_clear(&settings);
    }
}

static void test_all_problems_are_reported(void **state)
{
    struct settings settings;
    int lines = 0;

    (void)state;
    clearenv();
    setenv("WORKERS", "none", 1);
    setenv("LISTEN", "nowhere", 1);
    setenv("SPOTIFY_REDIRECT_URI", "http://u@localhost/x?y#z", 1);
    assert_int_equal(load(&settings), 10);
    for (const char *at = problems; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    assert_int_equal(lines, 10);
    settings_clear(&settings);
}

static void test_secrets_are_not_shown(void **state)
{
    static const char *const NAMES[] = {"SPOTIFY_CLIENT_SECRET", "SESSION_KEYS", "REDIS_URL",
                                        "SERVICE_CLIENTS",       "LISTEN",       "WORKERS",
                                        "SPOTIFY_REDIRECT_URI",  "SPOTIFY_SCOPE"};

    (void)state;
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        struct settings settings;

        set_up(NULL);
        setenv(NAMES[i], "hunter2\x01hunter2", 1);
        assert_true(load(&settings) > 0);
        assert_null(strstr(problems, "hunter2"));
        settings_clear(&settings);
    }
}

static void check_redis(const char *value, const struct redis_url *want)
{
    struct settings settings;
    const struct redis_url *redis = &settings.redis;

    setenv("REDIS_URL", value, 1);
    load_good(&settings);
    assert_string_equal(redis->socket_path ? redis->socket_path : "", want->socket_path);
    assert_string_equal(redis->host ? redis->host : "", want->host);
    assert_int_equal(redis->port, want->port);
    assert_string_equal(redis->user ? redis->user : "", want->user);
    assert_string_equal(redis->password ? redis->password : "", want->password);
    assert_int_equal(redis->database, want->database);
    settings_clear(&settings);
}

struct hosts_case {
    const char *value;
    enum redis_kind kind;
    const char *hosts; /* "host port " each */
    const char *master;
    int database;
    const char *user, *password;
};

static void check_hosts(const struct hosts_case *want)
{
    struct settings settings;
    const struct redis_url *redis = &settings.redis;
    struct buf hosts = {0};
    setenv("REDIS_URL", want->value, 1);
    assert_int_equal(load(&settings), 0);
    for (size_t i = 0; i < redis->host_count; i++) {
        buf_addf(&hosts, "%s %d ", redis->hosts[i].host, redis->hosts[i].port);
    }
    assert_int_equal(redis->kind, want->kind);
    assert_string_equal(buf_str(&hosts), want->hosts);
    assert_string_equal(redis->master ? redis->master : "", want->master);
    assert_int_equal(redis->database, want->database);
    assert_string_equal(redis->user ? redis->user : "", want->user);
    assert_string_equal(redis->password ? redis->password : "", want->password);
    buf_clear(&hosts);
    settings_clear(&settings);
}

static void test_redis_url_of_several_hosts(void **state)
{
    (void)state;
    static const struct hosts_case table[] = {
        {"redis+sentinel://a.example:1,b.example,[::1]:3/my.main-1_x", REDIS_SENTINEL,
         "a.example 1 b.example 26379 ::1 3 ", "my.main-1_x", 0, "", ""},
        {"redis+sentinel://:p%40%2C%2Fs@a:1,b:2/main/7", REDIS_SENTINEL, "a 1 b 2 ", "main", 7, "",
         "p@,/s"},
        {"redis+cluster://u:p@A:1,b", REDIS_CLUSTER, "a 1 b 6379 ", "", 0, "u", "p"},
        {"redis+cluster://127.0.0.1:7000/", REDIS_CLUSTER, "127.0.0.1 7000 ", "", 0, "", ""},
        {"REDIS+CLUSTER://127.0.0.1:7000/0", REDIS_CLUSTER, "127.0.0.1 7000 ", "", 0, "", ""},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        check_hosts(&table[i]);
    }
}

static void test_redis_url(void **state)
{
    (void)state;
    check_redis(
        "redis://h.example",
        &(struct redis_url){
            .socket_path = "", .host = "h.example", .port = 6379, .user = "", .password = ""});
    check_redis("redis://u:p%40s%2Fs@[::1]:7000/12", &(struct redis_url){.socket_path = "",
                                                                         .host = "::1",
                                                                         .port = 7000,
                                                                         .user = "u",
                                                                         .password = "p@s/s",
                                                                         .database = 12});
    check_redis(
        "redis://:pw@h.example/",
        &(struct redis_url){
            .socket_path = "", .host = "h.example", .port = 6379, .user = "", .password = "pw"});
    check_redis(
        "unix:///run/redis/redis.sock",
        &(struct redis_url){
            .socket_path = "/run/redis/redis.sock", .host = "", .user = "", .password = ""});
    check_redis("unix://u:p@/run/redis.sock?db=5",
                &(struct redis_url){.socket_path = "/run/redis.sock",
                                    .host = "",
                                    .user = "u",
                                    .password = "p",
                                    .database = 5});
}

/* Whether a build can do it is known a floor higher. */
static void test_redis_url_with_tls(void **state)
{
    struct settings settings;

    (void)state;
    setenv("REDIS_URL", "rediss://u:p@h.example:6390/2", 1);
    assert_int_equal(settings_load(&settings, stderr), 0);
    assert_true(settings.redis.is_tls);
    assert_string_equal(settings.redis.host, "h.example");
    assert_int_equal(settings.redis.port, 6390);
    assert_int_equal(settings.redis.database, 2);
    settings_clear(&settings);
    setenv("REDIS_URL", "redis://h.example", 1);
    assert_int_equal(settings_load(&settings, stderr), 0);
    assert_false(settings.redis.is_tls);
    settings_clear(&settings);
}

static void test_lists(void **state)
{
    struct settings settings;

    (void)state;
    setenv("ALLOWED_ORIGINS", " https://A.example:443 ,http://127.0.0.1:3000", 1);
    setenv("RETURN_TO", "https://a.example/in", 1);
    setenv("SERVICE_CLIENTS", "bob:" HASH ", eve:" HASH, 1);
    setenv("SWAP_REDIRECT_URIS", "my-app://callback", 1);
    load_good(&settings);
    assert_int_equal(settings.allowed_origins.count, 2);
    assert_string_equal(settings.allowed_origins.items[0].text, "https://a.example");
    assert_string_equal(settings.allowed_origins.items[1].text, "http://127.0.0.1:3000");
    assert_int_equal(settings.service_client_count, 2);
    assert_string_equal(settings.service_clients[1].name, "eve");
    assert_int_equal(settings.service_clients[1].secret_sha256[0], 0xe3);
    assert_int_equal(settings.swap_redirect_uris.count, 1);
    assert_string_equal(settings.swap_redirect_uris.items[0], "my-app://callback");
    settings_clear(&settings);
}

static void test_loopback_http_is_not_secure(void **state)
{
    struct settings settings;

    (void)state;
    setenv("SPOTIFY_REDIRECT_URI", "http://127.0.0.1:8080/auth/callback", 1);
    setenv("LISTEN", "tcp:[::1]:9000", 1);
    load_good(&settings);
    assert_false(settings.secure);
    assert_string_equal(settings.origin.text, "http://127.0.0.1:8080");
    assert_string_equal(settings.login_url, "http://127.0.0.1:8080/auth/authorize");
    assert_string_equal(settings.listen.host, "::1");
    assert_string_equal(settings.listen.port, "9000");
    settings_clear(&settings);
}

static void test_empty_is_not_set(void **state)
{
    struct settings settings;

    (void)state;
    setenv("LOGIN_TTL", "", 1);
    setenv("LOGIN_TTL_FILE", "", 1);
    setenv("SPOTIFY_SCOPE_ALLOWED", "", 1);
    load_good(&settings);
    assert_int_equal(settings.login_ttl_s, 600);
    assert_string_equal(settings.scope_allowed, settings.scope);
    settings_clear(&settings);
}

/* A file with that content, named by NAME_FILE. The caller frees and unlinks. */
static char *set_file(const char *name_file, const void *content, size_t len)
{
    char *path = strdup("/tmp/test_settings.XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, len), (ssize_t)len);
    close(fd);
    setenv(name_file, path, 1);
    return path;
}

static void test_value_from_file(void **state)
{
    struct settings settings;
    char *path;

    (void)state;
    unsetenv("SPOTIFY_CLIENT_SECRET");
    path = set_file("SPOTIFY_CLIENT_SECRET_FILE", "from-file\n", 10);
    load_good(&settings);
    assert_string_equal(settings.client_secret, "from-file");
    settings_clear(&settings);

    setenv("SPOTIFY_CLIENT_SECRET", "as well", 1);
    assert_int_equal(load(&settings), 1);
    assert_non_null(strstr(problems, "SPOTIFY_CLIENT_SECRET_FILE is set as well"));
    settings_clear(&settings);
    unlink(path);

    unsetenv("SPOTIFY_CLIENT_SECRET");
    assert_int_equal(load(&settings), 1);
    assert_non_null(strstr(problems, "cannot be read"));
    settings_clear(&settings);
    free(path);
}

static void test_bad_files(void **state)
{
    static char large[70000];
    struct settings settings;
    char *path;

    (void)state;
    path = set_file("LOGIN_TTL_FILE", "1\0002", 3);
    assert_int_equal(load(&settings), 1);
    assert_non_null(strstr(problems, "NUL"));
    settings_clear(&settings);
    unlink(path);
    free(path);

    memset(large, '1', sizeof(large));
    path = set_file("LOGIN_TTL_FILE", large, sizeof(large));
    assert_int_equal(load(&settings), 1);
    assert_non_null(strstr(problems, "longer than"));
    settings_clear(&settings);
    unlink(path);
    free(path);
}

static void test_table_has_every_default(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    settings_print_table(out);
    fclose(out);
    assert_non_null(strstr(text, "| `SPOTIFY_CLIENT_ID` | required | "));
    assert_non_null(strstr(text, "| `SPOTIFY_SCOPE_ALLOWED` | as `SPOTIFY_SCOPE` | "));
    assert_non_null(strstr(text, "| `ALLOWED_ORIGINS` | empty | "));
    assert_non_null(strstr(text, "| `LOGIN_TTL` | `600` | "));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_good_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_values_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_problems_are_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_secrets_are_not_shown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_redis_url, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_redis_url_with_tls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_redis_url_of_several_hosts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_loopback_http_is_not_secure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty_is_not_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_value_from_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_files, set_up, tear_down),
        cmocka_unit_test(test_table_has_every_default),
    };

    seal_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
