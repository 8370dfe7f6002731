/* The login, between the two requests that a browser makes for it. The steps, cited in the code:
 *   L1  return_to, scope, fetch metadata (the route table)
 *   L2  browser binding: keep the cookie's or make one (the handler)
 *   L3  state and verifier from the CSPRNG
 *   L4  store the sealed login under the hash of state
 *   L5  the URL of Spotify's page
 * and, when the browser comes back:
 *   C1  parameters (the route table and the handler)
 *   C2  take the login
 *   C3  redeem the code
 *   C4  profile
 *   C5  new session, stored before its cookie is sent
 *   C6  end the session that was there
 *   C7  redirect (the handler)
 * A login for a device goes the same way; in place of C5 and C6 stands D6 of device.h. */
#ifndef FLOWS_LOGIN_H
#define FLOWS_LOGIN_H

#include "flows/service.h"

struct login_wish {
    const char *return_to; /* checked */
    const char *scope;     /* checked */
    bool show_dialog;
    const struct secret *binding;  /* the login cookie's */
    const struct secret *previous; /* the session the browser has now, or NULL */
    const char *device;            /* name of the device that it is for, or NULL: this browser */
};

/* L3 to L5: append the URL of Spotify's authorization page to url. ERR_STORE: nothing was stored.
 */
enum err login_begin(struct service *service, const struct login_wish *wish, struct buf *url);

struct login_callback {
    const struct secret *state;
    const struct secret *binding;
    const char *code;  /* NULL: error is set (RFC 6749 4.1.2.1) */
    const char *error; /* NULL: code is set */
    const char *agent; /* what kind of browser this is, for its user to see; "": unknown */
};

/* C2 to C6. OK: out->location is where the browser goes, whether the login was good
 * (out->has_session) or not. The same callback again gets the same outcome without a call to
 * Spotify: it waits for the first if that is under way; the session only within a minute of the
 * login. ERR_INVALID_STATE, ERR_STORE: nothing was changed. out is cleared by the caller on OK. */
enum err login_finish(struct service *service, const struct login_callback *callback,
                      struct login_outcome *out);

#endif
