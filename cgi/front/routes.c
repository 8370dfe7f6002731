/* The route table, and what each parameter may be. Who may call, and in which order a request is
 * looked at, is route.c's business. */
#include "front/routes.h"

#include <string.h>

#include "base/scope.h"
#include "http/return_to.h"

/* ---- what a parameter may be ---- */

static enum err check_return_to(const struct settings *settings, const char *value)
{
    return return_to_is_ours(value, &settings->origin, &settings->allowed_origins)
               ? OK
               : ERR_INVALID_REQUEST;
}

static enum err check_scope(const struct settings *settings, const char *value)
{
    (void)settings;
    return scope_is_wellformed(value) ? OK : ERR_INVALID_SCOPE;
}

static enum err check_allowed_scope(const struct settings *settings, const char *value)
{
    return scope_is_wellformed(value) && scope_includes(settings->scope_allowed, value)
               ? OK
               : ERR_INVALID_SCOPE;
}

static enum err check_switch(const struct settings *settings, const char *value)
{
    (void)settings;
    return strcmp(value, "true") == 0 || strcmp(value, "false") == 0 ? OK : ERR_INVALID_REQUEST;
}

/* What nginx wants to know of the request in hand: "script" that a frontend of ours sent it, as the
 * browser routes demand it; "site" only that it is no foreign page's. */
static enum err check_caller(const struct settings *settings, const char *value)
{
    (void)settings;
    return strcmp(value, "script") == 0 || strcmp(value, "site") == 0 ? OK : ERR_INVALID_REQUEST;
}

static enum err check_state(const struct settings *settings, const char *value)
{
    (void)settings;
    struct secret state;
    return secret_parse(value, &state) == OK ? OK : ERR_INVALID_STATE;
}

/* RFC 6749 appendix A.11 and A.7: visible ASCII and space. */
static enum err check_visible(const struct settings *settings, const char *value)
{
    (void)settings;
    for (const char *p = value; *p; p++) {
        if (*p < 0x20 || *p > 0x7e) {
            return ERR_INVALID_REQUEST;
        }
    }
    return OK;
}

/* RFC 7636 4.1. */
static enum err check_verifier(const struct settings *settings, const char *value)
{
    static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    (void)settings;
    size_t len = strlen(value);
    return len >= 43 && len <= 128 && strspn(value, unreserved) == len ? OK : ERR_INVALID_REQUEST;
}

static enum err check_app_uri(const struct settings *settings, const char *value)
{
    for (size_t i = 0; i < settings->swap_redirect_uris.count; i++) {
        if (strcmp(value, settings->swap_redirect_uris.items[i]) == 0) {
            return OK;
        }
    }
    return ERR_INVALID_REQUEST;
}

/* RFC 6749 5.2: a refresh token that was issued to another client is an invalid_grant. */
static enum err check_own_client(const struct settings *settings, const char *value)
{
    return strcmp(value, settings->client_id) == 0 ? OK : ERR_INVALID_GRANT;
}

static enum err check_refresh_grant(const struct settings *settings, const char *value)
{
    (void)settings;
    return strcmp(value, "refresh_token") == 0 ? OK : ERR_GRANT_TYPE;
}

/* Whatever was made up for a handle is answered by the handler, with invalid_grant. */
static enum err check_nothing(const struct settings *settings, const char *value)
{
    (void)settings;
    (void)value;
    return OK;
}

/* RFC 9207 2.4: simple string comparison. Spotify sends none as yet. */
static enum err check_issuer(const struct settings *settings, const char *value)
{
    return strcmp(value, settings->accounts_url) == 0 ? OK : ERR_INVALID_REQUEST;
}

static const struct route routes[] = {
    {"/authorize",
     ROUTE_PAGE | ROUTE_CORS | ROUTE_LOGIN,
     authorize_get,
     NULL,
     {{"return_to", RETURN_TO_MAX, check_return_to},
      {"scope", SCOPE_MAX, check_allowed_scope},
      {"show_dialog", 5, check_switch}}},
    {"/callback",
     ROUTE_PAGE | ROUTE_CORS,
     callback_get,
     NULL,
     {{"state", 1024, check_state},
      {"iss", 2048, check_issuer},
      {"code", CODE_MAX, check_visible},
      {"error", 1024, check_visible}}},
    {"/session", ROUTE_CORS | ROUTE_CROSS_SITE, session_get, NULL, {{0}}},
    {"/token", ROUTE_CORS | ROUTE_CROSS_SITE, token_get, NULL, {{"scope", SCOPE_MAX, check_scope}}},
    {"/refresh",
     ROUTE_CORS | ROUTE_CROSS_SITE,
     NULL,
     refresh_post,
     {{"scope", SCOPE_MAX, check_scope}}},
    {"/sessions", ROUTE_CORS | ROUTE_CROSS_SITE, sessions_get, NULL, {{0}}},
    {"/logout",
     ROUTE_CORS | ROUTE_CROSS_SITE,
     NULL,
     logout_post,
     {{"all", 5, check_switch}, {"id", LISTED_ID_LEN, check_visible}}},
    {"/api/token",
     ROUTE_FORM,
     NULL,
     api_token_post,
     {{"grant_type", 128, check_visible},
      {"scope", SCOPE_MAX, check_scope},
      {"client_id", 512, check_visible},
      {"client_secret", 512, check_visible},
      {"refresh_token", TOKEN_MAX, check_nothing},
      {"device_code", 1024, check_nothing}}},
    {"/verify/app",
     ROUTE_CORS | ROUTE_VERIFY,
     verify_app_get,
     NULL,
     {{"caller", 8, check_caller}, {"renew", 5, check_switch}}},
    {"/verify",
     ROUTE_CORS | ROUTE_VERIFY,
     verify_get,
     NULL,
     {{"caller", 8, check_caller}, {"renew", 5, check_switch}}},
    {"/verify/preflight", ROUTE_CORS, NULL, NULL, {{0}}},
    {"/swap",
     ROUTE_SWAP | ROUTE_FORM,
     NULL,
     swap_post,
     {{"code", CODE_MAX, check_visible},
      {"code_verifier", 128, check_verifier},
      {"redirect_uri", 2048, check_app_uri}}},
    {"/swap/refresh",
     ROUTE_SWAP | ROUTE_FORM,
     NULL,
     swap_refresh_post,
     {{"grant_type", 32, check_refresh_grant},
      {"client_id", 128, check_own_client},
      {"refresh_token", TOKEN_MAX, check_nothing}}},
    {"/device",
     ROUTE_DEVICE | ROUTE_PAGE | ROUTE_FORM,
     device_get,
     device_post,
     {{"action", 7, check_visible},
      {"user_code", 64, check_nothing},
      {"form", SECRET_NAME_LEN, check_visible},
      {"done", 5, check_switch},
      {"error", 64, check_visible},
      {"scope", SCOPE_MAX, check_allowed_scope}}},
    {"/healthz", 0, healthz_get, NULL, {{0}}},
    {"/readyz", 0, readyz_get, NULL, {{0}}},
    {"/metrics", 0, metrics_get, NULL, {{0}}},
};

static bool is_there(const struct route *route, const struct settings *settings)
{
    if (route->flags & ROUTE_SWAP) {
        return settings->swap_redirect_uris.count > 0;
    }
    return !(route->flags & ROUTE_DEVICE) || settings->device_login;
}

const struct route *routes_find(const struct settings *settings, const char *path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, path) == 0 && is_there(&routes[i], settings)) {
            return &routes[i];
        }
    }
    return NULL;
}

enum metric_route routes_metric(const struct route *route)
{
    /* Looked up by its path once: text costs more than a request may cost for being counted. */
    static enum metric_route known[sizeof(routes) / sizeof(routes[0])];
    if (!route) {
        return METRIC_ROUTE_UNKNOWN;
    }
    enum metric_route *own = &known[route - routes];
    if (*own == METRIC_ROUTE_UNKNOWN) {
        *own = metrics_find_route(route->path);
    }
    return *own;
}
