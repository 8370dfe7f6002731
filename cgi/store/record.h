/* The records as bytes, before they are sealed: what store keeps in Redis. Reading one is reading
 * foreign bytes once the seal is open: every member is checked. */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "base/model.h"

void record_format_login(const struct login *login, struct buf *out);
void record_format_device(const struct device *device, struct buf *out);
void record_format_outcome(const struct login_outcome *outcome, struct buf *out);
/* The generation is not part of it: it stands in clear before the sealed record, and in its
 * associated data. */
void record_format_session(const struct session *session, struct buf *out);
void record_format_app_token(const struct app_token *token, struct buf *out);
void record_format_listing(const struct listing *listing, struct buf *out);

/* ERR_FORMAT when it is not such a record; out is all zero then. */
enum err record_parse_login(const char *text, size_t len, struct login *out);
enum err record_parse_device(const char *text, size_t len, struct device *out);
enum err record_parse_outcome(const char *text, size_t len, struct login_outcome *out);
enum err record_parse_session(const char *text, size_t len, struct session *out);
enum err record_parse_app_token(const char *text, size_t len, struct app_token *out);
enum err record_parse_listing(const char *text, size_t len, struct listing *out);

#endif
