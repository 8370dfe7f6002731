/* The reply that a handler fills. Empty (all zero) at first; the front writes it out. */
#ifndef HTTP_REPLY_H
#define HTTP_REPLY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

struct reply {
    int status;
    struct buf headers; /* "Name: value\r\n" lines, without Status */
    struct buf body;
    int retry_after_s;      /* for a 503; 0: the default */
    struct buf login_scope; /* for insufficient_scope: what the login has to ask for */
    const char *param;      /* for an error: the parameter that is wrong; NULL: not known */
    const char *fault;      /* and what is wrong with it: "is missing" */
};

/* Add a header. value must hold no control characters: one that does is left out and logged, so
 * that no value can ever begin a header of its own. */
void reply_add_header(struct reply *reply, const char *name, const char *value);

/* 302 or 303 with Location. */
void reply_redirect(struct reply *reply, int status, const char *location);

/* Note which parameter an error is about, and what is wrong with it ("is missing"), for its text.
 * Both static, since nothing of a request is echoed. Returns ERR_INVALID_REQUEST. */
enum err reply_blame(struct reply *reply, const char *param, const char *fault);

/* Begin a JSON body with that status: sets Content-Type, opens the object. End with json_close. */
struct json_writer reply_open_json(struct reply *reply, int status);

/* Forget status, headers and body. */
void reply_reset(struct reply *reply);
void reply_clear(struct reply *reply);

#endif
