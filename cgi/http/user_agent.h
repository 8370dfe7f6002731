/* The User-Agent header (RFC 9110 10.1.5), reduced to what a person tells browsers apart by. */
#ifndef HTTP_USER_AGENT_H
#define HTTP_USER_AGENT_H

#define USER_AGENT_MAX 31

/* The family of browser and system of header: "Firefox on Linux", "Safari on iPhone", "Chrome",
 * "Windows". "" where neither is known, and for NULL. Nothing of header itself is in it. */
void user_agent_family(const char *header, char out[static USER_AGENT_MAX + 1]);

#endif
