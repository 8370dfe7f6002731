/* GET /session: who is logged in, for a web frontend. Never calls Spotify. */
#include "flows/session.h"

#include "base/clock.h"
#include "handlers/handlers.h"
#include "http/cookie.h"

static void add_user(struct json_writer *json, const struct profile *profile)
{
    json_open_member(json, "user");
    json_add_string(json, "id", profile->id);
    json_add_string(json, "account_id", profile->account_id);
    json_add_string(json, "display_name", profile->display_name);
    json_add_string(json, "image_url", profile->image_url);
    json_add_string(json, "product", profile->product);
    json_close(json);
}

static void write_session(const struct settings *settings, const struct session *session,
                          struct reply *reply)
{
    int64_t left_s = session->expires_at - clock_unix_s();
    struct json_writer json = reply_open_json(reply, 200);
    json_add_bool(&json, "authenticated", true);
    add_user(&json, &session->profile);
    json_add_string(&json, "scope", session->scope);
    json_add_integer(&json, "expires_in", left_s > 0 ? left_s : 0);
    json_add_integer(&json, "authorized_at", session->authorized_at);
    json_add_integer(&json, "reauth_by",
                     session->authorized_at + settings_authorization_life_s(settings));
    json_close(&json);
}

static void write_nobody(const struct settings *settings, bool is_suspect, struct reply *reply)
{
    struct json_writer json = reply_open_json(reply, 200);
    json_add_bool(&json, "authenticated", false);
    if (is_suspect) {
        json_add_bool(&json, "reauth_required", true);
    }
    json_add_string(&json, "login_url", settings->login_url);
    json_close(&json);
}

enum err session_get(struct service *service, const struct request *request, struct reply *reply)
{
    const struct settings *settings = service->settings;
    struct secret secret;
    struct session session = {0};
    enum err err = session_load(service, request, &secret, &session);
    switch (err) {
    case OK:
        if (session.suspect_since && session.expires_at <= clock_unix_s()) {
            write_nobody(settings, true, reply);
        } else {
            write_session(settings, &session, reply);
        }
        session_clear(&session);
        return OK;
    case ERR_ABSENT:
        cookie_clear(reply, settings, COOKIE_SESSION);
        write_nobody(settings, false, reply);
        return OK;
    case ERR_NO_COOKIE:
    case ERR_REPLACED:
        write_nobody(settings, false, reply);
        return OK;
    default:
        return err;
    }
}
