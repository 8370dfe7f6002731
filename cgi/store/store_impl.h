/* What the files store*.c share. Nobody else includes it. */
#ifndef STORE_STORE_IMPL_H
#define STORE_STORE_IMPL_H

#include "store/redis.h"
#include "store/store.h"

/* To when a session's expiry was last moved by this worker, so that not every look-up has to move
 * it. */
#define STORE_SLIDES 1024
struct store_slide {
    uint64_t id; /* of the session: the first bytes of its secret */
    int64_t end_ms;
};

struct store {
    struct redis *redis;             /* owned */
    const struct settings *settings; /* borrowed */
    struct store_slide slides[STORE_SLIDES];
    struct store_risks risks;
    uint64_t risks_read_ms; /* 0: not yet */
};

/* Room for a key with a prefix of ordinary length. */
#define STORE_KEY_ROOM 128

/* The key "<prefix><kind>:{<name>}", appended to out. */
void store_key(const struct store *store, const char *kind, const char *name, struct buf *out);

/* An integer as an argument of a command. */
struct store_number {
    char text[24];
};
struct store_number store_number(int64_t number);

/* Whether a script's reply begins with word, and has count items. */
bool store_is_reply(const struct redis_value *value, const char *word, size_t count);

/* Open a sealed record of that kind (for the log). OK: plain is filled, the caller clears it.
 * ERR_SEAL: cut, changed, exchanged, another secret's, or under a key of the same kid with other
 * bytes. ERR_STORE: under a kid that this process does not have. Logs both. */
enum err store_open(const struct store *store, const char *kind, const struct secret *secret,
                    const struct buf *aad, const void *sealed, size_t len, struct buf *plain);

/* What a script said about a session, ERR_ABSENT or ERR_REPLACED too: those are believed only of a
 * master that is one still, else they become ERR_STORE. A master that Sentinels have replaced goes
 * on for a while, and knows nothing of the sessions that have begun since. */
enum err store_confirm(struct store *store, enum err err);

/* Release the lease under key if it is still that owner's. failed: let others see for a second that
 * what it was taken for failed. */
enum err store_release_key(struct store *store, const struct buf *key, const struct lease *lease,
                           bool failed);

/* A session in the value of its key: store_session.c's, used by store_lease.c. */

/* The generation as it stands before the sealed record: big endian. */
#define GENERATION_LEN 8
struct store_generation {
    uint8_t bytes[GENERATION_LEN];
};
struct store_generation store_generation(uint64_t generation);
/* The generation before a record of at least GENERATION_LEN bytes. */
uint64_t store_read_generation(const struct buf *value);

void store_seal_session(const struct store *store, const struct secret *secret,
                        const struct buf *key, const struct session *session, struct buf *out);

/* OK: *out is filled. ERR_UNREADABLE: it does not open here, which does not say that it never will.
 * ERR_ABSENT: it is past SESSION_MAX_AGE. */
enum err store_open_session(const struct store *store, const struct secret *secret,
                            const struct buf *key, const struct buf *value, struct session *out);

/* When a session that is used now ends, unix ms. */
int64_t store_session_end_ms(const struct store *store, const struct session *session,
                             int64_t now_ms);

/* A hash of the user this session belongs to, for one purpose. False without a user. */
bool store_user_name(const struct store *store, const struct session *session, const char *purpose,
                     char out[static SECRET_NAME_LEN + 1]);

/* Append the key of that kind ("user", "shown") of the user this session belongs to. False without
 * a user: then there is nothing to find sessions by. */
bool store_user_key(const struct store *store, const struct session *session, const char *kind,
                    struct buf *out);

/* A session's entry in its user's list, sealed for any session of that user; appended to out. shown
 * is the list's key. */
void store_seal_listing(const struct store *store, const struct buf *shown, const char *name,
                        const struct session *session, struct buf *out);

/* Note, for its user's list, that this session is used now. Not waited for. */
void store_note_use(const struct store *store, const char *name, const struct session *session);

/* Take a session's name from its user's others. Not waited for: a name left over ends by itself. */
void store_forget_name(const struct store *store, const char *name, const struct session *session);

/* Delete that key. *was_there may be NULL. */
enum err store_delete_key(struct store *store, const struct buf *key, bool *was_there);

/* A new owner for a lease: random. */
void store_new_owner(struct lease *lease);

#endif
