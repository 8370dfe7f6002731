/* What all pages have in common: frame, style, and the headers that keep others out of them. What
 * they say is up to problem.c and the handlers. */
#include "http/page.h"

#include <string.h>

/* Follows the reader's choice of light or dark by the system's own colours. */
#define STYLE                                                                                      \
    ":root{color-scheme:light dark;font:1.125rem/1.5 system-ui,sans-serif}"                        \
    "body{margin:0}"                                                                               \
    "main{max-width:32rem;margin:15vh auto 0;padding:0 1.5rem}"                                    \
    "h1{font-size:1.5rem;line-height:1.25}"                                                        \
    "a,button{display:inline-block;padding:.6em 1.4em;border:0;border-radius:2em;"                 \
    "background:#1ed760;color:#000;font:inherit;font-weight:600;text-decoration:none;"             \
    "cursor:pointer}"                                                                              \
    "button.no{background:none;color:inherit;text-decoration:underline}"                           \
    "a:focus-visible,button:focus-visible,input:focus-visible{outline:3px solid CanvasText;"       \
    "outline-offset:3px}"                                                                          \
    "input{display:block;width:11ch;margin:.3em 0 1em;padding:.4em;font:1.5rem ui-monospace,"      \
    "monospace;text-transform:uppercase}"                                                          \
    ".support{font-size:.8rem}"
/* base64 of SHA-256 of STYLE: the one thing that the page may use. */
#define STYLE_HASH "sha256-mhVFvPJ8sSc4SihsnxEvFZ7duQxNXijh/JWUrpDQkqQ="

#define POLICY                                                                                     \
    "default-src 'none'; style-src '" STYLE_HASH "'; frame-ancestors 'none'; base-uri 'none'"

void page_open(struct reply *reply, int status, const char *title, bool has_form)
{
    reply->status = status;
    reply_add_header(reply, "Content-Type", "text/html; charset=utf-8");
    reply_add_header(reply, "Content-Security-Policy",
                     has_form ? POLICY : POLICY "; form-action 'none'");
    reply_add_header(reply, "X-Frame-Options", "DENY");
    buf_addf(&reply->body,
             "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<meta name=\"robots\" content=\"noindex\">\n"
             "<title>%s</title>\n<style>" STYLE "</style>\n</head>\n<body>\n<main>\n<h1>%s</h1>\n",
             title, title);
}

void page_add_text(struct reply *reply, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (strchr("&<>\"'", *p)) {
            buf_addf(&reply->body, "&#%d;", *p);
        } else {
            buf_addc(&reply->body, *p);
        }
    }
}

void page_add(struct reply *reply, const char *markup)
{
    buf_adds(&reply->body, markup);
}

void page_close(struct reply *reply)
{
    page_add(reply, "</main>\n</body>\n</html>\n");
}
