/* Settings: one table (settings.c) makes parsing, --check, --help and the README's table. */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/log.h"
#include "base/origin.h"
#include "base/seal.h"

struct text_list {
    char **items; /* owned */
    size_t count;
};

struct redis_host {
    char *host; /* an IPv6 address without brackets */
    int port;
};

/* What REDIS_URL leads to. */
enum redis_kind { REDIS_ALONE, REDIS_SENTINEL, REDIS_CLUSTER };

/* REDIS_URL, parsed. */
struct redis_url {
    enum redis_kind kind;
    char *socket_path; /* REDIS_ALONE: unix:///path; NULL: host and port */
    char *host;
    int port;
    bool is_tls;
    struct redis_host *hosts; /* REDIS_SENTINEL: the Sentinels; REDIS_CLUSTER: some nodes. Owned */
    size_t host_count;
    char *master; /* REDIS_SENTINEL: its name */
    char *user;   /* NULL: none */
    char *password;
    int database;
};

/* LISTEN, parsed. */
struct listen_address {
    char *socket_path; /* unix:/path; NULL: host and port */
    char *host;
    char *port;
};

/* One entry of SERVICE_CLIENTS. */
struct service_client {
    char *name;
    uint8_t secret_sha256[SHA256_LEN];
};

struct settings {
    char *client_id;
    char *client_secret;
    char *redirect_uri;
    struct origin origin; /* from redirect_uri: the service's own public origin */
    bool secure;          /* the origin is https: cookies get Secure and the __Host- prefix */
    char *login_url;      /* from redirect_uri: ".../callback" with "authorize" at its end */
    char *scope;
    char *scope_allowed;
    bool pkce;
    bool profile;
    char *accounts_url; /* origin, without a trailing slash */
    char *api_url;
    char *upstream_ca_file; /* NULL: the system's */
    struct redis_url redis;
    char *redis_ca_file;   /* NULL: the system's */
    char *redis_cert_file; /* NULL: no certificate of ours; with redis_key_file only */
    char *redis_key_file;
    char *redis_prefix;
    struct key_ring keys;
    int64_t session_idle_ttl_s;
    int64_t session_max_age_s;
    bool samesite_lax; /* COOKIE_SAMESITE=Lax */
    struct origin_list allowed_origins;
    char *return_to;
    int64_t login_ttl_s;
    int64_t refresh_ahead_s;
    struct service_client *service_clients;
    size_t service_client_count;
    struct text_list swap_redirect_uris;
    bool device_login;
    struct listen_address listen;
    int64_t workers;
    int64_t store_timeout_ms;
    int64_t upstream_connect_timeout_ms;
    int64_t upstream_timeout_ms;
    int64_t upstream_max_in_flight;
    int64_t drain_timeout_s;
    int log_level; /* enum log_level */
};

/* Read all settings from the environment and the files that NAME_FILE names. Writes every problem
 * to problems, one a line: "SETTING: what is wrong; what to write instead", never a secret's value.
 * Returns how many there were; out is complete only with 0, and must be cleared either way. */
int settings_load(struct settings *out, FILE *problems);
void settings_clear(struct settings *settings);

/* True when the len characters at name may name a service client: 1 to 64 of A-Za-z0-9_- */
bool settings_is_client_name(const char *name, size_t len);

/* The settings table as Markdown: for --help and the README. */
void settings_print_table(FILE *out);

/* Spotify's refresh tokens live six months from the user's authorization (contract A.7). */
#define REFRESH_TOKEN_LIFE_S ((int64_t)15552000)

/* How long after the authorization a session can last: then its user has to agree anew. */
int64_t settings_authorization_life_s(const struct settings *settings);

#endif
