/* The calls to Spotify by meaning: which form, which credentials, and what the status says. The
 * bytes travel through upstream.c and are read by answer.c; whether an answer ends a session, and
 * when to try again, is for the flows. */
#include "spotify/accounts.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/query.h"
#include "spotify/answer.h"
#include "spotify/attempt.h"

#define AUTHORIZE_PATH "/authorize"
#define TOKEN_PATH "/api/token"
#define PROFILE_PATH "/v1/me"
/* Names of calls, for the log and the metrics. */
#define CODE_CALL "token code"

void accounts_init(struct accounts *accounts, struct upstream *upstream,
                   const struct settings *settings)
{
    *accounts = (struct accounts){.upstream = upstream,
                                  .settings = settings,
                                  .token_breaker.name = "accounts",
                                  .api_breaker.name = "api"};
}

void accounts_format_authorize_url(const struct accounts *accounts,
                                   const struct authorization *authorization, struct buf *out)
{
    buf_adds(out, accounts->settings->accounts_url);
    buf_adds(out, AUTHORIZE_PATH "?");
    query_add(out, "client_id", accounts->settings->client_id);
    query_add(out, "response_type", "code");
    query_add(out, "redirect_uri", authorization->redirect_uri);
    if (authorization->scope && *authorization->scope) {
        query_add(out, "scope", authorization->scope);
    }
    query_add(out, "state", authorization->state);
    if (authorization->challenge) {
        query_add(out, "code_challenge_method", "S256");
        query_add(out, "code_challenge", authorization->challenge);
    }
    query_add(out, "show_dialog", authorization->show_dialog ? "true" : "false");
}

/* What an answer of the token endpoint means. One log line for each that is not a plain yes or no.
 */
static enum err read_token_answer(const char *name, const struct upstream_answer *answer,
                                  struct tokens *tokens)
{
    const char *body = buf_str(&answer->body);
    const char *why;
    enum err err;

    if (answer->status == 200) {
        err = answer_parse_tokens(body, answer->body.len, tokens, &why);
        if (err != OK) {
            log_warn("token answer unusable", LOG_TEXT("call", name), LOG_TEXT("problem", why));
        }
        return err == OK ? OK : ERR_UPSTREAM;
    }
    err = answer_parse_error(answer->status, body, answer->body.len, &why);
    if (err == ERR_MISCONFIGURED && strcmp(name, CODE_CALL) == 0 &&
        strcmp(why, "invalid_request") == 0) {
        err = ERR_REJECTED; /* code and verifier may be somebody else's; the rest is all ours */
    } else if (err == ERR_MISCONFIGURED) {
        log_error("spotify refuses our request", LOG_TEXT("call", name),
                  LOG_NUMBER("status", answer->status), LOG_TEXT("error", why));
    } else if (err == ERR_UPSTREAM) {
        log_warn("token answer unusable", LOG_TEXT("call", name),
                 LOG_NUMBER("status", answer->status));
    }
    return err;
}

/* POST form to the token endpoint, as the client that the settings name (RFC 6749 2.3.1). */
static enum err call_token_endpoint(struct accounts *accounts, const char *name,
                                    const struct buf *form, struct tokens *tokens,
                                    int64_t *retry_after_s)
{
    const struct settings *settings = accounts->settings;
    struct upstream_answer answer = {0};
    struct buf url = {0};
    enum err err;

    *retry_after_s = -1;
    buf_addf(&url, "%s" TOKEN_PATH, settings->accounts_url);
    err = attempt_call(accounts->upstream, &accounts->token_breaker,
                       &(struct upstream_call){
                           .name = name,
                           .url = buf_str(&url),
                           .form = form,
                           .user = settings->client_id,
                           .password = settings->client_secret,
                           .timeout_ms = settings->upstream_timeout_ms,
                       },
                       &answer);
    if (err == OK) {
        err = read_token_answer(name, &answer, tokens);
        /* On other statuses it does not ask us to wait (RFC 9110 10.2.3, RFC 6585 4). */
        if (err != OK && (answer.status == 429 || answer.status == 503)) {
            *retry_after_s = answer.retry_after_s;
        }
    }
    upstream_answer_clear(&answer);
    buf_clear(&url);
    return err;
}

/* A token for nobody knows how long is of no use, where nothing else comes with it. */
static enum err check_life(const char *name, struct tokens *tokens)
{
    if (tokens->expires_in > 0) {
        return OK;
    }
    log_warn("token answer unusable", LOG_TEXT("call", name),
             LOG_TEXT("problem", "expires_in is not a number of seconds"));
    tokens_clear(tokens);
    return ERR_UPSTREAM;
}

enum err accounts_redeem_code(struct accounts *accounts, const char *code, const char *redirect_uri,
                              const char *verifier, struct tokens *tokens, int64_t *retry_after_s)
{
    struct buf form = {0};
    enum err err;

    /* C3: exactly these (RFC 6749 4.1.3, RFC 7636 4.5); client_id would say twice who we are. */
    query_add(&form, "grant_type", "authorization_code");
    query_add(&form, "code", code);
    query_add(&form, "redirect_uri", redirect_uri);
    if (verifier) {
        query_add(&form, "code_verifier", verifier);
    }
    err = call_token_endpoint(accounts, CODE_CALL, &form, tokens, retry_after_s);
    if (err == OK) {
        err = check_life(CODE_CALL, tokens);
    }
    buf_clear(&form);
    return err;
}

enum err accounts_refresh(struct accounts *accounts, const char *refresh_token,
                          struct tokens *tokens, int64_t *retry_after_s)
{
    struct buf form = {0};
    enum err err;

    /* R4: without a scope, which means the granted one (RFC 6749 6). */
    query_add(&form, "grant_type", "refresh_token");
    query_add(&form, "refresh_token", refresh_token);
    err = call_token_endpoint(accounts, "token refresh", &form, tokens, retry_after_s);
    buf_clear(&form);
    return err;
}

enum err accounts_get_app_token(struct accounts *accounts, struct tokens *tokens,
                                int64_t *retry_after_s)
{
    struct buf form = {0};
    enum err err;

    query_add(&form, "grant_type", "client_credentials");
    err = call_token_endpoint(accounts, "token app", &form, tokens, retry_after_s);
    if (err == OK) {
        err = check_life("token app", tokens);
    } else if (err == ERR_REFUSED) { /* there was no grant that it could speak of */
        err = ERR_MISCONFIGURED;
    }
    buf_clear(&form);
    return err;
}

enum err accounts_get_profile(struct accounts *accounts, const char *access_token,
                              struct profile *profile)
{
    struct upstream_answer answer = {0};
    struct buf url = {0};
    enum err err;

    attempt_lapse(&accounts->api_breaker);
    if (!breaker_admits(&accounts->api_breaker, clock_mono_ms(), clock_mono_us())) {
        return ERR_UPSTREAM;
    }
    buf_addf(&url, "%s" PROFILE_PATH, accounts->settings->api_url);
    err = attempt_once(accounts->upstream, &accounts->api_breaker,
                       &(struct upstream_call){
                           .name = "profile",
                           .url = buf_str(&url),
                           .bearer = access_token,
                           .timeout_ms = accounts->settings->upstream_timeout_ms,
                       },
                       &answer);
    if (err == OK && answer.status != 200) {
        err = ERR_UPSTREAM;
    } else if (err == OK &&
               answer_parse_profile(buf_str(&answer.body), answer.body.len, profile) != OK) {
        log_warn("profile answer unusable");
        err = ERR_UPSTREAM;
    }
    upstream_answer_clear(&answer);
    buf_clear(&url);
    return err;
}
