/* What kind of browser it is, for the list of a user's sessions: a few families are enough to find
 * one's own phone in it, and no version is kept, which would tell more than is needed. */
#include "http/user_agent.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct mark {
    const char *text;
    const char *name;
};

/* The first that is found counts: browsers name those that they descend from, too. */
static const struct mark browsers[] = {
    {"Edg", "Edge"},         {"OPR/", "Opera"},         {"SamsungBrowser/", "Samsung Internet"},
    {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},     {"CriOS/", "Chrome"},
    {"Chrome/", "Chrome"},   {"Chromium/", "Chromium"}, {"Safari/", "Safari"},
    {"curl/", "curl"},
};

static const struct mark systems[] = {
    {"iPhone", "iPhone"},   {"iPad", "iPad"},       {"Android", "Android"}, {"CrOS", "ChromeOS"},
    {"Windows", "Windows"}, {"Macintosh", "macOS"}, {"Linux", "Linux"},
};

static const char *find(const struct mark *marks, size_t count, const char *header)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(header, marks[i].text)) {
            return marks[i].name;
        }
    }
    return "";
}

void user_agent_family(const char *header, char out[static USER_AGENT_MAX + 1])
{
    header = header ? header : "";
    const char *browser = find(browsers, sizeof(browsers) / sizeof(browsers[0]), header);
    const char *system = find(systems, sizeof(systems) / sizeof(systems[0]), header);
    snprintf(out, USER_AGENT_MAX + 1, "%s%s%s", browser, browser[0] && system[0] ? " on " : "",
             system);
}
