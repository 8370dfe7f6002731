/* What the store promises, against a real Redis: who gets what, what is fenced, what a dump shows.
 */
#include "store_server.h"

#include "base/log.h"
#include "store/store_impl.h"

#define TOKEN "access-token-in-clear"
#define REFRESH "refresh-token-in-clear"
#define VERIFIER "verifier-in-clear"
#define RETURN_TO "/return-to-in-clear"
#define USER "user-in-clear"

static int set_up(void **state)
{
    (void)state;
    static char client_id[] = "client";
    settings = (struct settings){.client_id = client_id,
                                 .session_idle_ttl_s = 1000,
                                 .session_max_age_s = 100000,
                                 .login_ttl_s = 600};
    store_start();
    return 0;
}

static int64_t ask_integer(const char *name, const char *a, const char *b)
{
    struct redis_value value = ask(name, a, b);
    int64_t integer = value.integer;
    redis_value_clear(&value);
    return integer;
}

/* The one key that matches pattern, "" when there is none or more. */
static void find_key(const char *pattern, char out[static 128])
{
    struct redis_value keys = ask("KEYS", pattern, NULL);
    out[0] = '\0';
    if (keys.item_count == 1) {
        snprintf(out, 128, "%s", buf_str(&keys.items[0].text));
    }
    redis_value_clear(&keys);
}

static int64_t count_keys(const char *pattern)
{
    struct redis_value keys = ask("KEYS", pattern, NULL);
    int64_t count = (int64_t)keys.item_count;
    redis_value_clear(&keys);
    return count;
}

static struct session new_session(const char *user)
{
    return (struct session){
        .generation = 1,
        .access_token = xstrdup(TOKEN),
        .refresh_token = xstrdup(REFRESH),
        .scope = xstrdup("user-read-private"),
        .expires_at = clock_unix_s() + 3600,
        .obtained_at = clock_unix_s(),
        .authorized_at = clock_unix_s(),
        .profile.id = xstrdup(user),
    };
}

/* Stores a session of its own for USER. */
static struct session begin_session(struct secret *secret)
{
    struct session session = new_session(USER);
    secret_new(secret);
    CHECK(store_put_session(store, secret, &session) == OK);
    return session;
}

static const char *trouble;

/* The ping makes sure that what the store only sends has arrived. */
static enum err get_and_forget(const struct secret *secret)
{
    struct session found = {0};
    enum err err = store_get_session(store, secret, STORE_USE, &found);
    session_clear(&found);
    if (err != ERR_STORE) {
        CHECK(store_ping(store, &trouble) == OK);
    }
    return err;
}

static void begin_login(struct secret *state, struct secret *binding)
{
    struct login login = {.verifier = xstrdup(VERIFIER),
                          .scope = xstrdup("user-read-private"),
                          .return_to = xstrdup(RETURN_TO),
                          .started_at = clock_unix_s()};
    secret_new(state);
    secret_new(binding);
    CHECK(store_put_login(store, state, binding, &login) == OK);
    login_clear(&login);
}

static enum err take_and_forget(const struct secret *state, const struct secret *binding)
{
    struct login login = {0};
    struct login_outcome outcome = {0};
    enum err err = store_take_login(store, state, binding, &login, &outcome);
    login_clear(&login);
    login_outcome_clear(&outcome);
    return err;
}

FIBER_TEST(test_login_is_taken_once_by_its_browser)
{
    struct secret state, binding, other;
    struct login login = {0};
    struct login_outcome outcome = {0};
    char key[128];
    begin_login(&state, &binding);
    secret_new(&other);
    CHECK(take_and_forget(&other, &binding) == ERR_INVALID_STATE);
    for (int i = 0; i < 3; i++) {
        CHECK(take_and_forget(&state, &other) == ERR_INVALID_STATE);
    }
    CHECK(store_take_login(store, &state, &binding, &login, &outcome) == OK);
    CHECK(login.verifier && strcmp(login.verifier, VERIFIER) == 0);
    CHECK(login.return_to && strcmp(login.return_to, RETURN_TO) == 0);
    login_clear(&login);
    CHECK(take_and_forget(&state, &other) == ERR_INVALID_STATE);

    CHECK(store_take_login(store, &state, &binding, &login, &outcome) == ERR_USED);
    CHECK(login.return_to && strcmp(login.return_to, RETURN_TO) == 0);
    CHECK(!login.verifier && !outcome.location);
    login_clear(&login);

    struct login_outcome ended = {
        .location = xstrdup("/done"), .has_session = true, .ended_at = clock_unix_s()};
    secret_new(&ended.session);
    CHECK(store_put_login_outcome(store, &state, &other, &ended, false) == ERR_INVALID_STATE);
    CHECK(store_put_login_outcome(store, &state, &binding, &ended, true) == OK);
    CHECK(store_put_login_outcome(store, &state, &binding, &ended, true) == ERR_INVALID_STATE);
    CHECK(store_put_login_outcome(store, &state, &binding, &ended, false) == OK);
    CHECK(store_take_login(store, &state, &binding, &login, &outcome) == ERR_USED);
    CHECK(outcome.location && strcmp(outcome.location, "/done") == 0);
    CHECK(outcome.has_session && secret_equal(&outcome.session, &ended.session));
    login_clear(&login);
    login_outcome_clear(&outcome);
    login_outcome_clear(&ended);

    find_key("test:login:*", key);
    int64_t ttl = ask_integer("TTL", key, NULL);
    CHECK(ttl > 595 && ttl <= 600);
    CHECK(ask_integer("HEXISTS", key, "login") == 0);
}

static int taken;

static void body_take(void *argument)
{
    struct secret *secrets = argument;
    taken += take_and_forget(&secrets[0], &secrets[1]) == OK;
}

static void body_race(void *argument)
{
    (void)argument;
    struct secret secrets[2];
    begin_login(&secrets[0], &secrets[1]);
    for (int i = 0; i < 50; i++) {
        fiber_spawn(body_take, secrets);
    }
    for (int i = 0; i < 100 && fiber_count() > 1; i++) {
        fiber_sleep(20);
    }
    CHECK(taken == 1);
}

static void test_of_many_takes_one_wins(void **state)
{
    (void)state;
    taken = 0;
    run_body(body_race, NULL);
}

/* One part of a login put in place of another does not open. */
FIBER_TEST(test_login_parts_are_not_exchanged)
{
    struct secret state, binding;
    char key[128];
    begin_login(&state, &binding);
    find_key("test:login:*", key);
    struct redis_value part = ask("HGET", key, "return");
    const struct redis_arg set[] = {REDIS_TEXT("HSET"), REDIS_TEXT(key), REDIS_TEXT("login"),
                                    REDIS_BUF(&part.text)};
    CHECK(redis_command(redis, set, 4, NULL) == OK);
    redis_value_clear(&part);
    CHECK(take_and_forget(&state, &binding) == ERR_INVALID_STATE);
}

FIBER_TEST(test_session_is_put_found_and_ended)
{
    struct secret secret, other;
    struct session session = begin_session(&secret);
    struct session found = {0};
    char key[128], user[128];
    CHECK(store_get_session(store, &secret, STORE_USE, &found) == OK);
    CHECK(found.generation == 1 && strcmp(found.access_token, TOKEN) == 0);
    CHECK(strcmp(found.refresh_token, REFRESH) == 0 && strcmp(found.profile.id, USER) == 0);
    CHECK(found.authorized_at == session.authorized_at);
    session_clear(&found);
    secret_new(&other);
    CHECK(get_and_forget(&other) == ERR_ABSENT);
    find_key("test:session:*", key);
    find_key("test:user:*", user);
    int64_t ttl = ask_integer("TTL", key, NULL);
    CHECK(ttl > 995 && ttl <= 1000);
    ttl = ask_integer("TTL", user, NULL);
    CHECK(ttl > 99990 && ttl <= 100000);
    CHECK(ask_integer("ZCARD", user, NULL) == 1);
    bool ended = false;
    CHECK(store_end_session(store, &secret, &session, &ended) == OK && ended);
    CHECK(store_end_session(store, &secret, &session, &ended) == OK && !ended);
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    CHECK(count_keys("test:user:*") == 0);
    session_clear(&session);
}

FIBER_TEST(test_idle_time_begins_anew_at_each_use)
{
    struct secret secret;
    char key[128];
    settings.session_idle_ttl_s = 2;
    struct session session = begin_session(&secret);
    find_key("test:session:*", key);
    for (int i = 0; i < 6; i++) {
        fiber_sleep(500);
        CHECK(get_and_forget(&secret) == OK);
        CHECK(ask_integer("PTTL", key, NULL) > 1850);
    }
    fiber_sleep(2200);
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    session_clear(&session);
}

FIBER_TEST(test_session_ends_at_its_max_age)
{
    struct secret secret;
    char key[128];
    settings.session_max_age_s = 3;
    struct session session = begin_session(&secret);
    find_key("test:session:*", key);
    CHECK(get_and_forget(&secret) == OK);
    int64_t left_ms = ask_integer("PTTL", key, NULL);
    CHECK(left_ms > 0 && left_ms <= 3000);
    /* As if the setting had been larger when the key got its expiry. */
    ask_integer("EXPIRE", key, "1000");
    settings.session_max_age_s = 0;
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    CHECK(count_keys("test:session:*") == 0);
    session_clear(&session);
}

static void set_value(const char *key, const struct buf *value)
{
    const struct redis_arg args[] = {REDIS_TEXT("SET"), REDIS_TEXT(key), REDIS_BUF(value)};
    CHECK(redis_command(redis, args, 3, NULL) == OK);
}

static void name_key(const struct secret *secret, char out[static 128])
{
    char name[SECRET_NAME_LEN + 1];
    session_name(secret, name);
    snprintf(out, 128, "test:session:{%s}", name);
}

FIBER_TEST(test_tampered_and_exchanged_records_do_not_open)
{
    struct secret one, two;
    struct session first = begin_session(&one);
    struct session second = begin_session(&two);
    char key_one[128], key_two[128];
    name_key(&one, key_one);
    name_key(&two, key_two);
    struct redis_value value_one = ask("GET", key_one, NULL);
    struct redis_value value_two = ask("GET", key_two, NULL);
    set_value(key_one, &value_two.text);
    set_value(key_two, &value_one.text);
    CHECK(get_and_forget(&one) == ERR_UNREADABLE);
    CHECK(get_and_forget(&two) == ERR_UNREADABLE);

    static const size_t kept[] = {0, 1, 7, 8, 9, 20, 40};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        const struct buf cut = {.data = value_one.text.data, .len = kept[i]};
        set_value(key_one, &cut);
        enum err err = get_and_forget(&one);
        CHECK(err == ERR_UNREADABLE);
    }
    /* The generation is sealed in, too. */
    for (size_t at = 0; at < value_one.text.len; at += at < 8 ? 7 : 40) {
        value_one.text.data[at] ^= 1;
        set_value(key_one, &value_one.text);
        enum err err = get_and_forget(&one);
        CHECK(err == ERR_UNREADABLE);
        value_one.text.data[at] ^= 1;
    }
    set_value(key_one, &value_one.text);
    CHECK(get_and_forget(&one) == OK);
    redis_value_clear(&value_one);
    redis_value_clear(&value_two);
    session_clear(&first);
    session_clear(&second);
}

FIBER_TEST(test_record_under_an_unknown_key_is_not_absent)
{
    struct secret secret;
    struct session session = begin_session(&secret);
    struct session found = {0};
    struct lease lease = {0};
    strcpy(settings.keys.keys[0].kid, "k2");
    CHECK(get_and_forget(&secret) == ERR_UNREADABLE);
    CHECK(store_take_lease(store, &secret, 1, 5000, &lease, &found) == ERR_UNREADABLE);
    strcpy(settings.keys.keys[0].kid, "k1");
    CHECK(get_and_forget(&secret) == OK);
    CHECK(store_take_lease(store, &secret, 1, 5000, &lease, &found) == OK);
    session_clear(&found);
    session_clear(&session);
}

FIBER_TEST(test_replaced_is_told_from_absent)
{
    struct secret secret;
    struct session session = begin_session(&secret);
    struct session found = {0};
    struct lease lease = {0};
    char name[SECRET_NAME_LEN + 1], key[128];
    session_name(&secret, name);
    bool ended = true;
    CHECK(store_replace_session(store, "", &session, &ended) == OK && !ended);
    CHECK(get_and_forget(&secret) == OK);
    CHECK(store_replace_session(store, name, &session, &ended) == OK && ended);
    CHECK(store_replace_session(store, name, &session, &ended) == OK && !ended);
    CHECK(get_and_forget(&secret) == ERR_REPLACED);
    CHECK(store_take_lease(store, &secret, 1, 1000, &lease, &found) == ERR_REPLACED);
    find_key("test:replaced:*", key);
    int64_t ttl = ask_integer("TTL", key, NULL);
    CHECK(ttl > 55 && ttl <= 60);
    ask_integer("DEL", key, NULL);
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    session_clear(&session);
}

FIBER_TEST(test_all_sessions_of_a_user_end)
{
    struct secret secrets[100], other;
    for (int i = 0; i < 100; i++) {
        struct session session = begin_session(&secrets[i]);
        session_clear(&session);
    }
    struct session foreign = new_session("somebody-else");
    secret_new(&other);
    CHECK(store_put_session(store, &other, &foreign) == OK);
    struct session session = new_session(USER);
    CHECK(store_end_user_sessions(store, &secrets[50], &session) == OK);
    for (int i = 0; i < 100; i++) {
        CHECK(get_and_forget(&secrets[i]) == ERR_ABSENT);
    }
    CHECK(get_and_forget(&other) == OK);
    CHECK(count_keys("*") == 3); /* the session, and its user's set and list */

    /* Nobody knows whose it is: it alone ends. */
    struct session anonymous = new_session(NULL);
    CHECK(store_put_session(store, &secrets[0], &anonymous) == OK);
    CHECK(count_keys("test:user:*") == 1);
    CHECK(store_end_user_sessions(store, &secrets[0], &anonymous) == OK);
    CHECK(get_and_forget(&secrets[0]) == ERR_ABSENT);
    session_clear(&anonymous);
    session_clear(&foreign);
    session_clear(&session);
}

FIBER_TEST(test_session_that_could_not_be_ended_can_still_be_found)
{
    struct secret secret;
    struct session session = new_session(USER);
    secret_new(&secret);
    CHECK(store_put_session(store, &secret, &session) == OK);
    const struct redis_arg forbid[] = {REDIS_TEXT("ACL"), REDIS_TEXT("SETUSER"),
                                       REDIS_TEXT("default"), REDIS_TEXT("-del")};
    const struct redis_arg allow[] = {REDIS_TEXT("ACL"), REDIS_TEXT("SETUSER"),
                                      REDIS_TEXT("default"), REDIS_TEXT("+del")};
    CHECK(redis_command(redis, forbid, 4, NULL) == OK);
    CHECK(store_end_user_sessions(store, &secret, &session) == ERR_STORE);
    CHECK(count_keys("test:user:*") == 1 && count_keys("test:shown:*") == 1);
    CHECK(redis_command(redis, allow, 4, NULL) == OK);
    CHECK(store_end_user_sessions(store, &secret, &session) == OK);
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    session_clear(&session);
}

static size_t count_listed(const struct secret *secret, const struct session *session)
{
    struct session_list list = {0};
    CHECK(store_list_sessions(store, secret, session, &list) == OK);
    size_t count = list.count;
    session_list_clear(&list);
    return count;
}

FIBER_TEST(test_a_users_sessions_are_listed_for_each_of_them)
{
    struct secret first, second, foreign, nobody;
    struct session a = new_session(USER), b = new_session(USER), c = new_session("somebody-else");
    struct session d = new_session(NULL);
    a.agent = xstrdup("Firefox on Linux");
    b.authorized_at -= 50;
    secret_new(&first);
    secret_new(&second);
    secret_new(&foreign);
    secret_new(&nobody);
    CHECK(store_put_session(store, &first, &a) == OK);
    CHECK(store_put_session(store, &second, &b) == OK);
    CHECK(store_put_session(store, &foreign, &c) == OK);
    CHECK(store_put_session(store, &nobody, &d) == OK);
    CHECK(count_listed(&foreign, &c) == 1 && count_listed(&nobody, &d) == 1);

    /* The asking one first, then what the other's entry says. */
    struct session_list list = {0};
    CHECK(store_list_sessions(store, &second, &b, &list) == OK);
    CHECK(list.count == 2 && list.items[0].is_current && !list.items[1].is_current);
    CHECK(list.items[0].listing.begun_at == b.authorized_at && !list.items[0].listing.agent);
    CHECK(list.items[1].listing.begun_at == a.authorized_at);
    CHECK(strcmp(list.items[1].listing.agent, "Firefox on Linux") == 0);
    CHECK(strlen(list.items[1].id) == LISTED_ID_LEN &&
          !strstr(list.items[1].name, list.items[1].id));

    /* Entries do not open elsewhere: at another session's place, or under another key. */
    char shown[128];
    struct redis_value keys = ask("KEYS", "test:shown:*", NULL);
    CHECK(keys.item_count == 2);
    redis_value_clear(&keys);
    CHECK(store_end_user_sessions(store, &foreign, &c) == OK);
    find_key("test:shown:*", shown);
    struct redis_value entry = ask("HGET", shown, list.items[0].name);
    const struct redis_arg swap[] = {REDIS_TEXT("HSET"), REDIS_TEXT(shown),
                                     REDIS_TEXT(list.items[1].name), REDIS_BUF(&entry.text)};
    CHECK(redis_command(redis, swap, 4, NULL) == OK);
    redis_value_clear(&entry);
    session_list_clear(&list);
    CHECK(store_list_sessions(store, &second, &b, &list) == OK);
    CHECK(list.count == 2 && list.items[1].listing.begun_at == 0 && !list.items[1].listing.agent);

    /* One that has ended is not shown, and its name and entry go. */
    bool ended = false;
    CHECK(store_end_listed_session(store, &b, &list.items[1], &ended) == OK && ended);
    CHECK(store_end_listed_session(store, &b, &list.items[1], &ended) == OK && !ended);
    CHECK(get_and_forget(&first) == ERR_ABSENT);
    CHECK(count_listed(&second, &b) == 1 && ask_integer("HLEN", shown, NULL) == 1);
    CHECK(store_replace_session(store, list.items[0].name, &b, &ended) == OK && ended);
    CHECK(store_ping(store, &trouble) == OK && count_keys("test:shown:*") == 0);
    CHECK(count_keys("test:user:*") == 0);
    session_list_clear(&list);
    session_clear(&a);
    session_clear(&b);
    session_clear(&c);
    session_clear(&d);
}

/* The entry is written anew when the idle time begins anew, but not for one that was taken out. */
FIBER_TEST(test_the_list_follows_the_use_of_a_session)
{
    struct secret secrets[2];
    struct session sessions[2] = {begin_session(&secrets[0]), begin_session(&secrets[1])};
    struct session_list list = {0};
    char name[SECRET_NAME_LEN + 1], shown[128];
    settings.session_idle_ttl_s = 6; /* so that each use counts that is 100 ms after another */
    session_name(&secrets[0], name);
    find_key("test:shown:*", shown);
    ask_integer("HDEL", shown, name);
    fiber_sleep(150);
    CHECK(get_and_forget(&secrets[0]) == OK);
    CHECK(store_list_sessions(store, &secrets[1], &sessions[1], &list) == OK);
    CHECK(list.count == 2 && clock_unix_s() - list.items[1].listing.used_at <= 1);
    session_list_clear(&list);
    find_key("test:user:*", shown);
    ask_integer("ZREM", shown, name);
    fiber_sleep(150);
    CHECK(get_and_forget(&secrets[0]) == OK);
    find_key("test:shown:*", shown);
    ask_integer("HDEL", shown, name);
    fiber_sleep(150);
    CHECK(get_and_forget(&secrets[0]) == OK);
    CHECK(ask_integer("HEXISTS", shown, name) == 0);
    session_clear(&sessions[0]);
    session_clear(&sessions[1]);
}

static enum err take_lease(const struct secret *secret, uint64_t seen, int64_t lease_ms,
                           struct lease *lease)
{
    struct session found = {0};
    enum err err = store_take_lease(store, secret, seen, lease_ms, lease, &found);
    CHECK((err == OK || err == ERR_STALE) == (found.access_token != NULL));
    session_clear(&found);
    return err;
}

static void renew(struct session *session, const char *token)
{
    session->generation++;
    xfree_secret(session->access_token);
    session->access_token = xstrdup(token);
}

FIBER_TEST(test_lease_fences_late_writers)
{
    struct secret secret, nobody;
    struct session session = begin_session(&secret);
    struct session found = {0};
    struct lease lease = {0}, other = {0};
    secret_new(&nobody);
    CHECK(take_lease(&nobody, 1, 1000, &lease) == ERR_ABSENT);
    CHECK(take_lease(&secret, 1, 5000, &lease) == OK);
    CHECK(strlen(lease.owner) == LEASE_OWNER_LEN);
    CHECK(take_lease(&secret, 1, 5000, &other) == ERR_HELD);
    CHECK(store_release_lease(store, &secret, &other, true) == OK);
    CHECK(take_lease(&secret, 1, 5000, &other) == ERR_HELD);

    /* A mark on the old tokens is the holder's to make. */
    session.suspect_since = 5;
    CHECK(store_commit_session(store, &secret, &other, 1, &session) == ERR_STALE);
    renew(&session, "second");
    CHECK(store_commit_session(store, &secret, &lease, 1, &session) == OK);
    /* Its own write again is no failure; another's is. */
    CHECK(store_commit_session(store, &secret, &lease, 1, &session) == OK);
    xfree_secret(session.access_token);
    session.access_token = xstrdup("late");
    CHECK(store_commit_session(store, &secret, &lease, 1, &session) == ERR_STALE);

    CHECK(store_get_session(store, &secret, STORE_USE, &found) == OK);
    CHECK(found.generation == 2 && strcmp(found.access_token, "second") == 0);
    session_clear(&found);
    CHECK(count_keys("test:lease:*") == 0);
    CHECK(take_lease(&secret, 1, 5000, &lease) == ERR_STALE);
    CHECK(take_lease(&secret, 2, 5000, &lease) == OK);
    CHECK(store_release_lease(store, &secret, &lease, false) == OK);
    /* A failure is the result of those who waited for it; who comes anew tries again. */
    struct lease waiter = {0}, newcomer = {0};
    CHECK(take_lease(&secret, 2, 5000, &lease) == OK);
    CHECK(take_lease(&secret, 2, 5000, &waiter) == ERR_HELD);
    CHECK(store_release_lease(store, &secret, &lease, true) == OK);
    CHECK(take_lease(&secret, 2, 5000, &waiter) == ERR_UPSTREAM);
    CHECK(take_lease(&secret, 2, 5000, &newcomer) == OK);
    CHECK(take_lease(&secret, 2, 5000, &waiter) == ERR_HELD);
    session_clear(&session);
}

FIBER_TEST(test_lease_that_ran_out)
{
    struct secret secret;
    struct session session = begin_session(&secret);
    struct lease slow = {0}, quick = {0};
    /* The lease ran out and nobody took it: what Spotify answered is kept. */
    CHECK(take_lease(&secret, 1, 50, &slow) == OK);
    fiber_sleep(80);
    renew(&session, "second");
    CHECK(store_commit_session(store, &secret, &slow, 1, &session) == OK);
    /* The next holder failed: the same. */
    CHECK(take_lease(&secret, 2, 50, &slow) == OK);
    fiber_sleep(80);
    CHECK(take_lease(&secret, 2, 5000, &quick) == OK);
    CHECK(store_release_lease(store, &secret, &quick, true) == OK);
    renew(&session, "third");
    CHECK(store_commit_session(store, &secret, &slow, 2, &session) == OK);
    /* The next holder is at work: the late tokens are kept all the same, since under rotation they
     * are the only ones that work; neither a mark nor an end is taken, and the lease stays. */
    CHECK(take_lease(&secret, 3, 50, &slow) == OK);
    fiber_sleep(80);
    CHECK(take_lease(&secret, 3, 5000, &quick) == OK);
    CHECK(store_commit_session(store, &secret, &slow, 3, &session) == ERR_STALE);
    CHECK(store_end_refused_session(store, &secret, &slow, &session) == ERR_STALE);
    renew(&session, "fourth");
    CHECK(store_commit_session(store, &secret, &slow, 3, &session) == OK);
    CHECK(count_keys("test:lease:*") == 1);
    /* What the holder brings then comes too late. */
    xfree_secret(session.access_token);
    session.access_token = xstrdup("holder's");
    CHECK(store_commit_session(store, &secret, &quick, 3, &session) == ERR_STALE);
    CHECK(store_release_lease(store, &secret, &quick, false) == OK);
    /* A session that was ended is not brought back. */
    CHECK(take_lease(&secret, 4, 5000, &quick) == OK);
    CHECK(store_end_session(store, &secret, &session, NULL) == OK);
    renew(&session, "fifth");
    CHECK(store_commit_session(store, &secret, &quick, 4, &session) == ERR_ABSENT);
    CHECK(count_keys("test:session:*") == 0);
    session_clear(&session);
}

FIBER_TEST(test_refused_session_ends_if_unchanged)
{
    struct secret secret;
    struct session session = begin_session(&secret);
    struct lease lease, other = {.owner = "somebody"};
    CHECK(take_lease(&secret, 1, 5000, &lease) == OK);
    CHECK(store_end_refused_session(store, &secret, &other, &session) == ERR_STALE);
    session.generation = 0;
    CHECK(store_end_refused_session(store, &secret, &lease, &session) == ERR_STALE);
    CHECK(get_and_forget(&secret) == OK);
    session.generation = 1;
    CHECK(store_end_refused_session(store, &secret, &lease, &session) == OK);
    CHECK(store_end_refused_session(store, &secret, &lease, &session) == ERR_ABSENT);
    CHECK(get_and_forget(&secret) == ERR_ABSENT);
    CHECK(count_keys("*") == 0);
    session_clear(&session);
}

FIBER_TEST(test_backoff_is_kept_until_its_time)
{
    int64_t until_ms = -1;
    CHECK(store_ping(store, &trouble) == OK);
    CHECK(store_get_backoff(store, &until_ms) == OK && until_ms == 0);
    int64_t wanted_ms = clock_unix_ms() + 5000;
    CHECK(store_put_backoff(store, wanted_ms) == OK);
    CHECK(store_get_backoff(store, &until_ms) == OK && until_ms == wanted_ms);
    int64_t left_ms = ask_integer("PTTL", "test:backoff", NULL);
    CHECK(left_ms > 4500 && left_ms <= 5000);
    CHECK(store_put_backoff(store, 1000) == OK);
    CHECK(store_get_backoff(store, &until_ms) == OK && until_ms == wanted_ms);
}

static void set_config(const char *name, const char *value)
{
    const struct redis_arg args[] = {REDIS_TEXT("CONFIG"), REDIS_TEXT("SET"), REDIS_TEXT(name),
                                     REDIS_TEXT(value)};
    CHECK(redis_command(redis, args, 4, NULL) == OK);
}

/* The server of these tests writes nothing to disk. */
FIBER_TEST(test_risks_are_read_again_after_a_while)
{
    CHECK(store_get_risks(store).forgets && !store_get_risks(store).evicts);
    set_config("maxmemory-policy", "allkeys-lfu");
    set_config("maxmemory", "100mb");
    set_config("appendonly", "yes");
    CHECK(store_get_risks(store).forgets && !store_get_risks(store).evicts);
    store->risks_read_ms -= 31000;
    CHECK(!store_get_risks(store).forgets && store_get_risks(store).evicts);
    set_config("maxmemory", "0");
    kill(server_pid, SIGSTOP);
    settings.store_timeout_ms = 50;
    store->risks_read_ms -= 31000;
    CHECK(store_get_risks(store).evicts); /* nothing new is known */
    kill(server_pid, SIGCONT);
    settings.store_timeout_ms = 500;
    CHECK(!store_get_risks(store).evicts);
}

FIBER_TEST(test_redis_away_says_nothing_of_a_session)
{
    struct secret secret, state, binding;
    struct session session = begin_session(&secret);
    struct lease lease = {0};
    int64_t until_ms;
    begin_login(&state, &binding);
    kill(server_pid, SIGSTOP);
    settings.store_timeout_ms = 50;
    CHECK(store_ping(store, &trouble) == ERR_STORE);
    CHECK(strcmp(trouble, "slow") == 0);
    CHECK(get_and_forget(&secret) == ERR_STORE);
    CHECK(take_and_forget(&state, &binding) == ERR_STORE);
    CHECK(take_lease(&secret, 1, 1000, &lease) == ERR_STORE);
    CHECK(store_commit_session(store, &secret, &lease, 1, &session) == ERR_STORE);
    CHECK(store_end_session(store, &secret, &session, NULL) == ERR_STORE);
    bool ended = true;
    CHECK(store_replace_session(store, "name", &session, &ended) == ERR_STORE && !ended);
    CHECK(store_end_user_sessions(store, &secret, &session) == ERR_STORE);
    CHECK(store_get_backoff(store, &until_ms) == ERR_STORE);
    settings.store_timeout_ms = 500;
    kill(server_pid, SIGCONT);
    fiber_sleep(100);
    CHECK(store_ping(store, &trouble) == OK);
    session_clear(&session);
}

static bool contains(const struct buf *where, const char *what)
{
    return memmem(buf_str(where), where->len, what, strlen(what)) != NULL;
}

static void check_nothing_of(const struct buf *where, const struct secret *secrets, size_t count)
{
    static const char *const words[] = {TOKEN, REFRESH, VERIFIER, RETURN_TO, USER};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        CHECK(!contains(where, words[i]));
    }
    for (size_t i = 0; i < count; i++) {
        char text[SECRET_TEXT_LEN + 1];
        secret_format(&secrets[i], text);
        CHECK(!contains(where, text));
        CHECK(!memmem(buf_str(where), where->len, secrets[i].bytes, SECRET_LEN));
    }
}

FIBER_TEST(test_dump_shows_no_secret)
{
    static const char dump[] = "local out = {} "
                               "for _, key in ipairs(redis.call('KEYS', '*')) do "
                               "  out[#out + 1] = key "
                               "  local kind = redis.call('TYPE', key).ok "
                               "  local parts = kind == 'string' and {redis.call('GET', key)} "
                               "    or kind == 'hash' and redis.call('HGETALL', key) "
                               "    or redis.call('ZRANGE', key, 0, -1) "
                               "  for _, part in ipairs(parts) do out[#out + 1] = part end "
                               "end "
                               "return out";
    /* Of a session, a login with its binding, and one that has ended in a session. */
    struct secret secrets[6];
    struct session session = begin_session(&secrets[0]);
    struct lease lease = {0};
    begin_login(&secrets[1], &secrets[2]);
    begin_login(&secrets[3], &secrets[4]);
    CHECK(take_and_forget(&secrets[3], &secrets[4]) == OK);
    struct login_outcome ended = {
        .location = xstrdup(RETURN_TO), .has_session = true, .ended_at = clock_unix_s()};
    secret_new(&ended.session);
    secrets[5] = ended.session;
    CHECK(store_put_login_outcome(store, &secrets[3], &secrets[4], &ended, false) == OK);
    CHECK(take_lease(&secrets[0], 1, 5000, &lease) == OK);

    struct redis_value found = ask("EVAL", dump, "0");
    CHECK(found.item_count > 12);
    for (size_t i = 0; i < found.item_count; i++) {
        check_nothing_of(&found.items[i].text, secrets, 6);
    }
    redis_value_clear(&found);
    login_outcome_clear(&ended);
    session_clear(&session);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_login_is_taken_once_by_its_browser),
        TEST(test_of_many_takes_one_wins),
        TEST(test_login_parts_are_not_exchanged),
        TEST(test_session_is_put_found_and_ended),
        TEST(test_idle_time_begins_anew_at_each_use),
        TEST(test_session_ends_at_its_max_age),
        TEST(test_tampered_and_exchanged_records_do_not_open),
        TEST(test_record_under_an_unknown_key_is_not_absent),
        TEST(test_replaced_is_told_from_absent),
        TEST(test_all_sessions_of_a_user_end),
        TEST(test_session_that_could_not_be_ended_can_still_be_found),
        TEST(test_a_users_sessions_are_listed_for_each_of_them),
        TEST(test_the_list_follows_the_use_of_a_session),
        TEST(test_lease_fences_late_writers),
        TEST(test_lease_that_ran_out),
        TEST(test_refused_session_ends_if_unchanged),
        TEST(test_backoff_is_kept_until_its_time),
        TEST(test_risks_are_read_again_after_a_while),
        TEST(test_redis_away_says_nothing_of_a_session),
        TEST(test_dump_shows_no_secret),
    };
    seal_init();
    fiber_init(uv_default_loop());
    server_make_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_remove_dir();
    return failed;
}
