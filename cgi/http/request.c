/* Looking things up in a request: CGI variables (RFC 3875 4.1), parameters, and the two headers
 * that say what kind of answer is wanted. Reading requests off the wire is the front's, deciding
 * what they may do the route table's. */
#include "http/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const method_names[METHOD__MAX] = {
    [METHOD_GET] = "GET",         [METHOD_HEAD] = "HEAD",   [METHOD_POST] = "POST",
    [METHOD_OPTIONS] = "OPTIONS", [METHOD_OTHER] = "OTHER",
};

enum method method_parse(const char *text)
{
    for (enum method method = METHOD_GET; text && method < METHOD_OTHER; method++) {
        if (strcmp(text, method_names[method]) == 0) {
            return method;
        }
    }
    return METHOD_OTHER;
}

const char *method_name(enum method method)
{
    return method_names[method];
}

const char *request_variable_at(const struct request *request, const char *name, size_t n)
{
    /* Compared in place: some ten look-ups over some thirty variables are made for each request. */
    for (const char *const *p = request->variables; p && *p; p++) {
        size_t i = 0;
        while (name[i] && (*p)[i] == name[i]) {
            i++;
        }
        if (!name[i] && (*p)[i] == '=' && n-- == 0) {
            return *p + i + 1;
        }
    }
    return NULL;
}

const char *request_variable(const struct request *request, const char *name)
{
    return request_variable_at(request, name, 0);
}

bool request_variable_repeated(const struct request *request, const char *name)
{
    return request_variable_at(request, name, 1) != NULL;
}

const char *request_param(const struct request *request, const char *name)
{
    for (size_t i = 0; i < REQUEST_PARAMS_MAX && request->params[i].name; i++) {
        if (strcmp(request->params[i].name, name) == 0) {
            return request->params[i].value;
        }
    }
    return NULL;
}

/* How one media type fares with an Accept header: the most specific range that covers it decides
 * (RFC 9110 12.5.1). */
struct preference {
    const char *exact;  /* "text/html" */
    const char *family; /* "text/" and a star */
    int specificity;    /* of the range that decides: 0 none, 1 any type, 2 family, 3 exact */
    int weight;         /* in thousandths (12.4.2) */
};

static bool span_equals(const char *span, size_t len, const char *word)
{
    return len == strlen(word) && strncasecmp(span, word, len) == 0;
}

static void consider_range(struct preference *preference, const char *range, size_t len, int weight)
{
    int specificity = 0;
    if (span_equals(range, len, preference->exact)) {
        specificity = 3;
    } else if (span_equals(range, len, preference->family)) {
        specificity = 2;
    } else if (span_equals(range, len, "*/*")) {
        specificity = 1;
    }
    if (specificity == 0 || specificity < preference->specificity) {
        return;
    }
    if (specificity > preference->specificity || weight > preference->weight) {
        preference->weight = weight;
    }
    preference->specificity = specificity;
}

/* "0", "0.25", "1.000" (RFC 9110 12.4.2) in thousandths; -1 when it is none of that. */
static int parse_weight(const char *text, size_t len)
{
    if (len < 1 || len > 5 || (text[0] != '0' && text[0] != '1') || (len > 1 && text[1] != '.')) {
        return -1;
    }
    int weight = (text[0] - '0') * 1000;
    int unit = 100;
    for (size_t i = 2; i < len; i++, unit /= 10) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        weight += (text[i] - '0') * unit;
    }
    return weight <= 1000 ? weight : -1;
}

static void trim(const char **span, size_t *len)
{
    while (*len > 0 && (**span == ' ' || **span == '\t')) {
        (*span)++;
        (*len)--;
    }
    while (*len > 0 && ((*span)[*len - 1] == ' ' || (*span)[*len - 1] == '\t')) {
        (*len)--;
    }
}

/* The weight among the parameters of one range, which begin with ';' and end at end: 1000 without
 * one, -1 for a malformed one. */
static int find_weight(const char *parameters, const char *end)
{
    int weight = 1000;
    while (parameters < end) {
        const char *span = parameters + 1;
        const char *next = memchr(span, ';', (size_t)(end - span));
        if (!next) {
            next = end;
        }
        size_t len = (size_t)(next - span);
        trim(&span, &len);
        if (len >= 2 && strncasecmp(span, "q=", 2) == 0) {
            weight = parse_weight(span + 2, len - 2);
        }
        parameters = next;
    }
    return weight;
}

static void consider_accept(const char *accept, struct preference *json, struct preference *html)
{
    while (*accept) {
        const char *end = accept + strcspn(accept, ",");
        const char *range = accept;
        const char *parameters = accept + strcspn(accept, ",;");
        size_t len = (size_t)(parameters - range);
        trim(&range, &len);
        int weight = find_weight(parameters, end);
        if (weight >= 0) {
            consider_range(json, range, len, weight);
            consider_range(html, range, len, weight);
        }
        accept = *end ? end + 1 : end;
    }
}

bool request_prefers_json(const struct request *request)
{
    struct preference json = {.exact = "application/json", .family = "application/*"};
    struct preference html = {.exact = "text/html", .family = "text/*"};
    const char *accept;
    for (size_t n = 0; (accept = request_variable_at(request, "HTTP_ACCEPT", n)); n++) {
        consider_accept(accept, &json, &html);
    }
    return json.weight > html.weight;
}

/* True when word stands in text as a word of its own, in any case. */
static bool has_word(const char *text, const char *word)
{
    const char *separators = " \t,;=\"";
    while (*text) {
        text += strspn(text, separators);
        size_t len = strcspn(text, separators);
        if (span_equals(text, len, word)) {
            return true;
        }
        text += len;
    }
    return false;
}

bool request_is_prefetch(const struct request *request)
{
    static const char *const names[] = {
        "HTTP_SEC_PURPOSE",
        "HTTP_PURPOSE",
        "HTTP_X_PURPOSE",
        "HTTP_X_MOZ",
    };
    static const char *const words[] = {"prefetch", "prerender", "preview"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value;
        for (size_t n = 0; (value = request_variable_at(request, names[i], n)); n++) {
            for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
                if (has_word(value, words[k])) {
                    return true;
                }
            }
        }
    }
    return false;
}
