/* POST /swap and POST /swap/refresh: the token swap of Spotify's iOS and Android SDKs. They read
 * nothing but the body, whatever its status, so every answer is one flat JSON object (contract
 * B.2). No cookie is read or set. */
#include "flows/handle.h"
#include "handlers/handlers.h"

enum err swap_post(struct service *service, const struct request *request, struct reply *reply)
{
    const char *redirect_uri = request_param(request, "redirect_uri");
    struct code_grant grant = {
        .code = request_param(request, "code"),
        .redirect_uri =
            redirect_uri ? redirect_uri : service->settings->swap_redirect_uris.items[0],
        .verifier = request_param(request, "code_verifier"),
        .scope = "", /* the phone knows what it asked for */
        .agent = "Phone app",
    };
    return grant.code ? handle_swap(service, &grant, reply)
                      : reply_blame(reply, "code", "is missing");
}

enum err swap_refresh_post(struct service *service, const struct request *request,
                           struct reply *reply)
{
    const char *handle = request_param(request, "refresh_token");
    return handle ? handle_refresh(service, handle, reply)
                  : reply_blame(reply, "refresh_token", "is missing");
}
