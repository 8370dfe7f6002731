/* POST /device: codes for a device that has no browser. GET /device, and POST from its page: where
 * a person enters such a code (steps D1 to D5 of flows/device.h). The grant at the token endpoint
 * is the device's third request (D7, D8). */
#include "flows/device.h"

#include <string.h>

#include "flows/login.h"
#include "handlers/handlers.h"
#include "http/cookie.h"
#include "http/page.h"

#define UNKNOWN_CODE                                                                               \
    "This code is unknown, was used already or has expired. Look at the device again: perhaps it " \
    "shows a newer one."
#define TOO_MANY "Too many wrong codes were entered. Please try again in ten minutes."
#define NOT_COMPLETED                                                                              \
    "Spotify could not complete the login. The code on the device is still good: please enter it " \
    "again."
#define NOT_OURS "This page was open for too long. Please try again."

/* ---- D1, D2 ---- */

static enum err give_codes(struct service *service, const struct request *request,
                           struct reply *reply)
{
    const char *scope = request_param(request, "scope");
    struct device_codes codes;
    struct buf url = {0};
    enum err err = device_begin(service, scope ? scope : service->settings->scope, &codes);
    if (err != OK) {
        return err;
    }
    struct json_writer json = reply_open_json(reply, 200); /* RFC 8628 3.2 */
    device_add_url(service->settings, &url);
    json_add_string(&json, "device_code", codes.device_code);
    json_add_string(&json, "user_code", codes.user_code);
    json_add_string(&json, "verification_uri", buf_str(&url));
    buf_addf(&url, "?user_code=%s", codes.user_code);
    json_add_string(&json, "verification_uri_complete", buf_str(&url));
    json_add_integer(&json, "expires_in", service->settings->login_ttl_s);
    json_add_integer(&json, "interval", DEVICE_INTERVAL_S);
    json_close(&json);
    buf_clear(&url);
    explicit_bzero(&codes, sizeof(codes));
    return OK;
}

/* ---- the pages ---- */

static void add_line(struct reply *reply, const char *text)
{
    page_add(reply, "<p>");
    page_add_text(reply, text);
    page_add(reply, "</p>\n");
}

/* What a page without a form has to say. */
static enum err write_end(struct reply *reply, const char *title, const char *text)
{
    page_open(reply, 200, title, false);
    add_line(reply, text);
    page_close(reply);
    return OK;
}

/* RFC 8628 5.4: a person who was sent here by somebody else has to see what this is. */
static void add_explanation(struct reply *reply, const char *scope)
{
    page_add(reply,
             "<p>A program on another device asks to use <strong>your Spotify account</strong>. "
             "Go on only if that device is yours and shows this very code. Nobody who "
             "calls or writes to you needs it.</p>\n");
    if (!scope) {
        add_line(reply,
                 "What it will be allowed to do, Spotify tells you next. It keeps that until "
                 "you take it away.");
        return;
    }
    page_add(reply, "<p>Until you take it away, it will be allowed:</p>\n<ul>\n");
    for (const char *word = scope; *word;) {
        size_t len = strcspn(word, " ");
        char *text = xstrndup(word, len);
        page_add(reply, "<li><code>");
        page_add_text(reply, text);
        page_add(reply, "</code></li>\n");
        xfree_secret(text);
        word += len + (word[len] == ' ');
    }
    page_add(reply, *scope ? "</ul>\n" : "<li>what is public</li>\n</ul>\n");
}

/* What ties the form to this browser (D4): nobody else's page can know it. */
static void name_form(const struct secret *binding, char out[static SECRET_NAME_LEN + 1])
{
    secret_name("device form", binding->bytes, SECRET_LEN, out);
}

/* The page with the form: empty, or with a code to confirm and what it is for. */
static enum err write_form(struct service *service, const struct request *request, int status,
                           const char *notice, const char *user_code, const struct device *device,
                           struct reply *reply)
{
    struct secret binding;
    char form[SECRET_NAME_LEN + 1];
    if (cookie_get(request, service->settings, COOKIE_LOGIN, &binding) != COOKIE_IS_GOOD) {
        secret_new(&binding);
    }
    cookie_set(reply, service->settings, COOKIE_LOGIN, &binding);
    name_form(&binding, form);
    secret_wipe(&binding);
    page_open(reply, status, "Connect a device to Spotify", true);
    if (notice) {
        page_add(reply, "<p role=\"alert\"><strong>");
        page_add_text(reply, notice);
        page_add(reply, "</strong></p>\n");
    }
    add_explanation(reply, device ? device->scope : NULL);
    page_add(
        reply,
        "<form method=\"post\" action=\"device\">\n<input type=\"hidden\" name=\"form\" value=\"");
    page_add(reply, form);
    page_add(reply, "\">\n<label>The code on the device\n<input name=\"user_code\" value=\"");
    page_add_text(reply, user_code ? user_code : "");
    page_add(reply, "\" placeholder=\"XXXX-XXXX\" maxlength=\"16\" autocomplete=\"off\" "
                    "autocapitalize=\"characters\" spellcheck=\"false\" required></label>\n"
                    "<button name=\"action\" value=\"connect\">Log in with Spotify</button>\n");
    if (device) {
        page_add(reply,
                 "<button class=\"no\" name=\"action\" value=\"decline\">No, not mine</button>\n");
    }
    page_add(reply, "</form>\n");
    page_close(reply);
    return OK;
}

/* The page again, when a code was not found. */
static enum err write_not_found(struct service *service, const struct request *request,
                                enum err err, struct reply *reply)
{
    if (err == ERR_ABSENT) {
        return write_form(service, request, 400, UNKNOWN_CODE, NULL, NULL, reply);
    }
    if (err == ERR_SLOW_DOWN) {
        return write_form(service, request, 429, TOO_MANY, NULL, NULL, reply);
    }
    return err;
}

static enum err write_denied(struct reply *reply)
{
    return write_end(reply, "The device is not connected",
                     "You said no, and the device is told so. You can close this page.");
}

/* Where a login for a device ends (C7). */
static enum err write_closing(struct service *service, const struct request *request,
                              const char *error, struct reply *reply)
{
    if (!error) {
        return write_end(reply, "The device is connected",
                         "You can close this page and go back to the device.");
    }
    if (strcmp(error, "access_denied") == 0) {
        return write_denied(reply);
    }
    bool is_late = strcmp(error, "expired_token") == 0;
    return write_form(service, request, 200, is_late ? UNKNOWN_CODE : NOT_COMPLETED, NULL, NULL,
                      reply);
}

enum err device_get(struct service *service, const struct request *request, struct reply *reply)
{
    const char *typed = request_param(request, "user_code");
    const char *error = request_param(request, "error");
    struct device device = {0};
    char user_code[DEVICE_USER_CODE_LEN + 1];
    if (request->method == METHOD_HEAD) {
        reply->status = 200;
        return OK;
    }
    if (error || request_param(request, "done")) {
        return write_closing(service, request, error, reply);
    }
    if (!typed) {
        return write_form(service, request, 200, NULL, NULL, NULL, reply);
    }
    enum err err = device_find(service, request, typed, &device, user_code);
    if (err != OK) {
        return write_not_found(service, request, err, reply);
    }
    err = write_form(service, request, 200, NULL, user_code, &device, reply);
    device_clear(&device);
    return err;
}

/* ---- D4, D5 ---- */

/* A page with Referrer-Policy: no-referrer sends its forms with Origin: null, so Origin alone says
 * little; what counts is the cookie, which no other site's form brings along, and its name in the
 * form. */
static bool is_from_our_page(const struct settings *settings, const struct request *request,
                             struct secret *binding)
{
    const char *site = request_variable(request, "HTTP_SEC_FETCH_SITE");
    const char *origin = request_variable(request, "HTTP_ORIGIN");
    const char *form = request_param(request, "form");
    char want[SECRET_NAME_LEN + 1];
    if ((site && strcmp(site, "same-origin") != 0) ||
        (origin && strcmp(origin, "null") != 0 && strcmp(origin, settings->origin.text) != 0) ||
        !form || cookie_get(request, settings, COOKIE_LOGIN, binding) != COOKIE_IS_GOOD) {
        return false;
    }
    struct secret got, wanted;
    name_form(binding, want);
    return secret_parse(form, &got) == OK && secret_parse(want, &wanted) == OK &&
           secret_equal(&got, &wanted);
}

static enum err begin_login(struct service *service, const struct device *device,
                            const struct secret *binding, struct reply *reply)
{
    const struct settings *settings = service->settings;
    struct buf return_to = {0}, url = {0};
    device_add_url(settings, &return_to);
    buf_adds(&return_to, "?done=true");
    struct login_wish wish = {
        .return_to = buf_str(&return_to) + strlen(settings->origin.text),
        .scope = device->scope,
        .show_dialog = true, /* the person shall see what is asked for, and as whom */
        .binding = binding,
        .device = device->name,
    };
    enum err err = login_begin(service, &wish, &url);
    if (err == OK) {
        cookie_set(reply, settings, COOKIE_LOGIN, binding);
        reply_redirect(reply, 303, buf_str(&url));
    }
    buf_clear(&return_to);
    buf_clear(&url);
    return err;
}

static enum err decline(struct service *service, const struct device *device, struct reply *reply)
{
    enum err err = device_refuse(service, device->name);
    return err == OK || err == ERR_ABSENT ? write_denied(reply) : err;
}

static enum err take_page(struct service *service, const struct request *request,
                          struct reply *reply)
{
    const char *action = request_param(request, "action");
    const char *typed = request_param(request, "user_code");
    struct device device = {0};
    struct secret binding;
    char user_code[DEVICE_USER_CODE_LEN + 1];
    if (!is_from_our_page(service->settings, request, &binding)) {
        return write_form(service, request, 403, NOT_OURS, NULL, NULL, reply);
    }
    enum err err = device_find(service, request, typed ? typed : "", &device, user_code);
    if (err != OK) {
        err = write_not_found(service, request, err, reply);
    } else if (action && strcmp(action, "decline") == 0) {
        err = decline(service, &device, reply);
    } else {
        err = begin_login(service, &device, &binding, reply);
    }
    device_clear(&device);
    secret_wipe(&binding);
    return err;
}

enum err device_post(struct service *service, const struct request *request, struct reply *reply)
{
    bool is_page = request_param(request, "action") || request_param(request, "user_code");
    return is_page ? take_page(service, request, reply) : give_codes(service, request, reply);
}

/* ---- D7, D8: the grant at the token endpoint ---- */

enum err device_token_post(struct service *service, const struct request *request,
                           struct reply *reply)
{
    const char *device_code = request_param(request, "device_code");
    if (!service->settings->device_login) {
        return ERR_GRANT_TYPE;
    }
    return device_code ? device_poll(service, device_code, reply)
                       : reply_blame(reply, "device_code", "is missing");
}
