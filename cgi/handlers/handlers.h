/* One handler per route. A handler sees a validated request, fills the reply and returns OK; or it
 * returns an error, which the route layer answers from the table in err.c. All run in a fiber. */
#ifndef HANDLERS_HANDLERS_H
#define HANDLERS_HANDLERS_H

#include "flows/service.h"
#include "http/reply.h"
#include "http/request.h"

typedef enum err handler_fn(struct service *service, const struct request *request,
                            struct reply *reply);

handler_fn authorize_get;     /* authorize.c */
handler_fn callback_get;      /* callback.c */
handler_fn session_get;       /* session.c */
handler_fn token_get;         /* token.c */
handler_fn refresh_post;      /* token.c */
handler_fn sessions_get;      /* sessions.c */
handler_fn logout_post;       /* logout.c */
handler_fn api_token_post;    /* api_token.c */
handler_fn verify_get;        /* verify.c */
handler_fn verify_app_get;    /* verify_app.c */
handler_fn swap_post;         /* swap.c */
handler_fn swap_refresh_post; /* swap.c */
handler_fn device_get;        /* device.c */
handler_fn device_post;       /* device.c */
handler_fn device_token_post; /* device.c */
handler_fn healthz_get;       /* status.c */
handler_fn readyz_get;        /* status.c */
handler_fn metrics_get;       /* metrics.c */

#endif
