/* Redis by meaning. Every record is sealed under the key ring and the secret that its browser
 * holds; key names hold hashes. Keys, after REDIS_PREFIX (the part in braces is the Cluster hash
 * tag):
 *   login:{h}     hash: binding (a hash), taken (when); sealed: login (gone once taken), return,
 *                 outcome
 *   session:{h}   string: generation (8 bytes, big endian), then the sealed record
 *   replaced:{h}  "1" for a minute after a newer login of the same browser ended session {h}
 *   lease:{h}     string: owner of the renewal under way, or "!" and the owner of one that failed
 *   app-token:{h} string: when it came (unix ms, 8 bytes, big endian), then the sealed app token;
 *                 {h} is a hash of the app's client id and client secret. No browser holds a secret
 *                 for it: beside the key ring it is sealed under another hash of those two, so that
 *                 Redis alone, or with the key ring, opens nothing
 *   user:{h}      sorted set: names of a user's sessions, scored by when they end at the latest
 *   shown:{h}     hash: for each of these names what the user's other sessions may show of it
 *   verdicts:{all}:renewed:{m}, verdicts:{all}:refused:{m}
 *                 HyperLogLogs: names of the sessions whose renewals ended so in unix minute m
 *   backoff       string: unix ms until which Spotify asked not to be called
 *
 * An entry of shown:{h} cannot be sealed under one browser's secret, since any session of the same
 * user has to open it: it is sealed under the key ring and a hash of the user. It tells when a
 * session began, was last used and by what kind of browser, and opens nothing.
 *
 * All functions wait, so they run in a fiber only; all give ERR_STORE when Redis was not reached in
 * time, which says nothing about the record. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <uv.h>

#include "base/model.h"
#include "base/settings.h"

struct store;

/* Write to problems, one a line, what settings have wrong that settings_load does not see: what
 * this build cannot do, and, where are_sound says that it found nothing, what the files for Redis
 * hold. Returns how many. */
int store_check(const struct settings *settings, bool are_sound, FILE *problems);

/* Owned by the caller; settings is borrowed for its life. */
struct store *store_new(uv_loop_t *loop, const struct settings *settings);
void store_free(struct store *store);

/* OK when Redis answers and stores what it is given. ERR_STORE: *trouble is one static word that
 * says why not: "unreachable", "slow", "garbled", "loading", "readonly", "masterdown",
 * "clusterdown", "cluster", "nomaster", "noreplicas", "oom", "misconf", "busy", "auth", "tls" or
 * "refused". */
enum err store_ping(struct store *store, const char **trouble);

/* How Redis may lose sessions although it stores them, as far as it says. */
struct store_risks {
    bool evicts;  /* maxmemory, and a policy that makes room by dropping keys */
    bool forgets; /* neither an append-only file nor snapshots */
};

/* The risks as they were read within the last half minute; asks Redis when that is longer ago, and
 * logs what has changed. */
struct store_risks store_get_risks(struct store *store);

/* L4: store login under the hash of state, sealed under binding, for LOGIN_TTL. */
enum err store_put_login(struct store *store, const struct secret *state,
                         const struct secret *binding, const struct login *login);

/* C2: take the login stored under state, if binding is the browser's that began it; it leaves a
 * tombstone for LOGIN_TTL. OK: *out is filled, and it was taken just now. ERR_USED: taken before;
 * out->return_to alone is set, and *outcome when it has ended (outcome->location NULL: still under
 * way). ERR_INVALID_STATE: unknown, expired or another browser's, and nothing was changed. */
enum err store_take_login(struct store *store, const struct secret *state,
                          const struct secret *binding, struct login *out,
                          struct login_outcome *outcome);

/* A callback that is delivered again gets the session's cookie for so long after the login. */
#define REPLAY_SESSION_S ((int64_t)60)

/* The longest that taking a login to its outcome can take while its worker lives. */
int64_t store_login_longest_ms(const struct settings *settings);

/* Note in the tombstone how the login ended, sealed under binding; is_first: only where nothing is
 * noted yet. ERR_INVALID_STATE: there is no tombstone any more, it is another browser's, or
 * something is. */
enum err store_put_login_outcome(struct store *store, const struct secret *state,
                                 const struct secret *binding, const struct login_outcome *outcome,
                                 bool is_first);

/* Key name of a session, to show (its start) and to end it by. */
void session_name(const struct secret *secret, char out[static SECRET_NAME_LEN + 1]);

/* C5: store a new session, and its name with its user's others. */
enum err store_put_session(struct store *store, const struct secret *secret,
                           const struct session *session);

/* Look a session up: ERR_ABSENT, ERR_REPLACED, ERR_UNREADABLE (it does not open with the keys of
 * this process), or ERR_STORE (also for a replica, which may not know it yet). STORE_USE lets its
 * idle time begin anew, STORE_LOOK has no effect. */
enum store_use { STORE_USE, STORE_LOOK };
enum err store_get_session(struct store *store, const struct secret *secret, enum store_use use,
                           struct session *out);

/* Let a session that nobody holds yet end in life_ms, unless it is used before. */
enum err store_limit_session(struct store *store, const struct secret *secret, int64_t life_ms);

/* End one session. OK also when there is none: *ended says whether there was one (NULL: not asked).
 * session says whose it is; NULL when unknown. */
enum err store_end_session(struct store *store, const struct secret *secret,
                           const struct session *session, bool *ended);

/* C6: end a session by its name because the same browser has logged in anew, with the session by.
 * "" does nothing. *ended as above. */
enum err store_replace_session(struct store *store, const char *name, const struct session *by,
                               bool *ended);

/* End all sessions of the user this session belongs to, itself included. */
enum err store_end_user_sessions(struct store *store, const struct secret *secret,
                                 const struct session *session);

/* A user's sessions, newest first, as they may be shown to any of them. id is safe to show: it
 * opens nothing, and is no part of a key's name. */
#define LISTED_ID_LEN 22
#define LISTED_MAX 64
struct listed_session {
    char name[SECRET_NAME_LEN + 1];
    char id[LISTED_ID_LEN + 1];
    bool is_current;
    struct listing listing; /* all zero where its entry does not open here */
};
struct session_list {
    struct listed_session *items; /* owned */
    size_t count;
};
void session_list_clear(struct session_list *list);

/* The sessions of the user this session belongs to: itself always, LISTED_MAX others at most. */
enum err store_list_sessions(struct store *store, const struct secret *secret,
                             const struct session *session, struct session_list *out);

/* End one that store_list_sessions gave for this session. *ended as above. */
enum err store_end_listed_session(struct store *store, const struct session *session,
                                  const struct listed_session *listed, bool *ended);

/* A renewal's lease: who may call Spotify for this session. All zero before the first take. */
#define LEASE_OWNER_LEN 22
struct lease {
    char owner[LEASE_OWNER_LEN + 1];      /* random, set by store_take_lease */
    char waited_for[LEASE_OWNER_LEN + 1]; /* who had it at the last ERR_HELD */
};

/* R2 and R3 in one script. OK: the lease is ours for lease_ms and *out is the record as it stands.
 * ERR_STALE: no lease, the generation is no longer seen_generation, *out is the newer record.
 * ERR_HELD: another has it; call again with the same *lease. ERR_UPSTREAM: that one has failed, and
 * its failure is the result of all who waited for it. ERR_ABSENT, ERR_REPLACED, ERR_UNREADABLE. */
enum err store_take_lease(struct store *store, const struct secret *secret,
                          uint64_t seen_generation, int64_t lease_ms, struct lease *lease,
                          struct session *out);

/* R5: write session in place of the record of expected_generation, and release the lease if it is
 * ours. ERR_STALE: not written, since somebody else wrote; or since somebody else holds the lease
 * and session is only the old tokens with a mark, its generation expected_generation. ERR_ABSENT,
 * ERR_REPLACED: the session was ended meanwhile. Safe to repeat after ERR_STORE: OK when the first
 * try was done. */
enum err store_commit_session(struct store *store, const struct secret *secret,
                              const struct lease *lease, uint64_t expected_generation,
                              const struct session *session);

/* Release a lease without a write. failed: let others see for a second that the renewal failed. */
enum err store_release_lease(struct store *store, const struct secret *secret,
                             const struct lease *lease, bool failed);

/* End a session that Spotify refused for good, if its generation is unchanged and the lease is
 * ours. ERR_STALE: somebody wrote since, or holds the lease. ERR_ABSENT, ERR_REPLACED: it was ended
 * before. */
enum err store_end_refused_session(struct store *store, const struct secret *secret,
                                   const struct lease *lease, const struct session *session);

/* A3 of flows/app_token.h, one script: OK: the lease is ours for lease_ms. ERR_STALE: no lease,
 * there is another token than the one that came at seen_at_ms (0: none), *out is that one, without
 * access_token where it does not open here. ERR_HELD, ERR_UPSTREAM: as store_take_lease. */
enum err store_take_app_lease(struct store *store, int64_t seen_at_ms, int64_t lease_ms,
                              struct lease *lease, struct app_token *out);

/* A5: store the token until it expires, in place of the one that came at seen_at_ms, and release
 * the lease if it is ours. ERR_STALE: another one was stored since, or this one before, and stays.
 */
enum err store_put_app_token(struct store *store, const struct lease *lease, int64_t seen_at_ms,
                             const struct app_token *token);

/* Release a lease without a token. failed: let others see for a second that there is none. */
enum err store_release_app_lease(struct store *store, const struct lease *lease, bool failed);

/* Note that a renewal of the session was refused by Spotify, or else good. Not waited for; what is
 * counted afterwards has it. */
void store_note_verdict(struct store *store, const struct secret *secret, bool is_refused);

/* The last ten minutes' renewals over all workers, by different sessions, one in a hundred off. */
struct verdicts {
    int64_t sessions; /* with any */
    int64_t refused;  /* with a refused one, whatever came before or after it */
};
enum err store_count_verdicts(struct store *store, struct verdicts *out);

/* Spotify's Retry-After, shared by all workers: unix ms, 0 when there is none. */
enum err store_get_backoff(struct store *store, int64_t *until_unix_ms);
enum err store_put_backoff(struct store *store, int64_t until_unix_ms);

#endif
