/* The session that a request comes with. */
#ifndef FLOWS_SESSION_H
#define FLOWS_SESSION_H

#include "flows/service.h"
#include "http/reply.h"
#include "http/request.h"

/* Look up the session of the request's cookie (R1). On OK *out is cleared by the caller; secret is
 * its id. ERR_NO_COOKIE: none came. ERR_ABSENT: there is no such session, or the cookie is not one
 * of ours. ERR_REPLACED. ERR_STORE, ERR_UNREADABLE: unknown. */
enum err session_load(struct service *service, const struct request *request, struct secret *secret,
                      struct session *out);

/* SESSION_AHEAD: renew when fewer than REFRESH_AHEAD seconds are left. SESSION_NOW: renew, unless
 * the token is younger than 10 s. SESSION_NOW_OR_AHEAD: when either says so. SESSION_NEVER: as it
 * is (HEAD has no side effect). */
enum freshness { SESSION_AHEAD, SESSION_NOW, SESSION_NOW_OR_AHEAD, SESSION_NEVER };

/* Renew a session that was loaded (R1) where its token needs it. Errors of renewal_renew; the
 * session is cleared then. */
enum err session_freshen(struct service *service, const struct secret *secret,
                         enum freshness freshness, struct reply *reply, struct session *session);

/* session_load, then a renewal where the token needs one. Errors of session_load and renewal_renew;
 * on a 503 reply->retry_after_s is set. */
enum err session_load_fresh(struct service *service, const struct request *request,
                            enum freshness freshness, struct reply *reply, struct session *out);

/* Answer with the session's access token (RFC 6749 5.1), and with refresh_token unless NULL. */
void session_write_token(const struct session *session, const char *refresh_token,
                         struct reply *reply);

#endif
