/* GET /sessions: where this user is logged in. Any of them can be ended by POST /logout with its
 * id. */
#include "base/clock.h"
#include "flows/session.h"
#include "handlers/handlers.h"

static void add_time(struct json_writer *json, const char *name, int64_t time)
{
    if (time > 0) {
        json_add_integer(json, name, time);
    } else {
        json_add_string(json, name, NULL);
    }
}

static void write_list(const struct session_list *list, struct reply *reply)
{
    struct json_writer json = reply_open_json(reply, 200);
    json_open_list(&json, "sessions");
    for (size_t i = 0; i < list->count; i++) {
        const struct listed_session *listed = &list->items[i];
        json_open_item(&json);
        json_add_string(&json, "id", listed->id);
        json_add_bool(&json, "current", listed->is_current);
        add_time(&json, "begun_at", listed->listing.begun_at);
        add_time(&json, "last_used_at", listed->listing.used_at);
        json_add_string(&json, "user_agent", listed->listing.agent);
        json_close(&json);
    }
    json_close_list(&json);
    json_close(&json);
}

enum err sessions_get(struct service *service, const struct request *request, struct reply *reply)
{
    struct secret secret;
    struct session session = {0};
    struct session_list list = {0};
    enum err err = session_load(service, request, &secret, &session);
    if (err == OK) {
        err = store_list_sessions(service->store, &secret, &session, &list);
        session_clear(&session);
    }
    secret_wipe(&secret);
    if (err == OK) {
        write_list(&list, reply);
        session_list_clear(&list);
    }
    return err;
}
