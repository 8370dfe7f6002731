/* The small HTML pages that a person sees of the service: no script, nothing from elsewhere. */
#ifndef HTTP_PAGE_H
#define HTTP_PAGE_H

#include <stdbool.h>

#include "http/reply.h"

/* Begin a page: status, headers, and title (plain text of ours) as its heading. has_form: it holds
 * a form, whose answer may be a redirect to another site; browsers apply form-action to that, too,
 * so such a page goes without. */
void page_open(struct reply *reply, int status, const char *title, bool has_form);

/* Append text, escaped for HTML content and attributes in quotes. */
void page_add_text(struct reply *reply, const char *text);

/* Append markup of ours as it is. */
void page_add(struct reply *reply, const char *markup);

void page_close(struct reply *reply);

#endif
