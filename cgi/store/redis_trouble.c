/* The one table of what Redis may say instead of an answer. Error replies are foreign text that may
 * quote a command's arguments, so that nothing but their first word is shown. */
#include "store/redis_trouble.h"

#include <stdint.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define WORD_MAX 24
#define WORDS_REMEMBERED 8
#define LOG_PAUSE_MS 10000

/* Before version 7, what a command inside a script said stands at the end: "ERR Error running
 * script (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't write …". */
#define SCRIPT_ERROR "ERR Error running script"
#define SCRIPT_ERROR_INNER ": -"

/* A user who may not do what a script does: Redis up to 7.0, and later ones. */
#define SCRIPT_USER "The user executing the script can't"
#define SCRIPT_ACL "ACL failure in script"

#define AUTH_MEANING                                                                               \
    "user or password in REDIS_URL are wrong, or the user may not do this: ACL LOG says what"
#define REFUSED_MEANING "something else; is it what REDIS_URL says: Redis, Sentinel, Cluster?"
#define CLUSTER_MEANING                                                                            \
    "it is a node of a Cluster, and REDIS_URL names it alone, or a slot is long on its way"

static const struct {
    const char *word;
    const char *meaning; /* for the operator */
    bool ends_connection;
    bool is_elsewhere;
} troubles[TROUBLE__MAX] = {
    [TROUBLE_NONE] = {"", "", false, false},
    [TROUBLE_UNREACHABLE] = {"unreachable", "it cannot be reached", false, false},
    [TROUBLE_SLOW] = {"slow", "it does not answer in time", false, false},
    [TROUBLE_GARBLED] = {"garbled", "what answers is no Redis", false, false},
    [TROUBLE_LOADING] = {"loading", "it is reading its data from disk", true, true},
    [TROUBLE_READONLY] = {"readonly", "it is a replica, and only its master takes writes", true,
                          true},
    [TROUBLE_MASTERDOWN] = {"masterdown", "it is a replica that has lost its master", true, true},
    [TROUBLE_CLUSTERDOWN] = {"clusterdown", "its Cluster is down, or nobody has this slot", true,
                             true},
    [TROUBLE_CLUSTER] = {"cluster", CLUSTER_MEANING, false, false},
    [TROUBLE_MOVED] = {"cluster", CLUSTER_MEANING, false, true},
    [TROUBLE_ASK] = {"cluster", CLUSTER_MEANING, false, true},
    [TROUBLE_TRYAGAIN] = {"cluster", CLUSTER_MEANING, false, true},
    [TROUBLE_NOMASTER] = {"nomaster", "no Sentinel names a master of the name in REDIS_URL", false,
                          false},
    [TROUBLE_NOREPLICAS] = {"noreplicas", "it has fewer replicas than min-replicas-to-write", true,
                            false},
    [TROUBLE_OOM] = {"oom", "maxmemory is reached: nothing more can be stored", false, false},
    [TROUBLE_MISCONF] = {"misconf", "it cannot save its data to disk", false, false},
    [TROUBLE_BUSY] = {"busy", "a script of somebody's keeps it busy", false, false},
    [TROUBLE_AUTH] = {"auth", AUTH_MEANING, false, false},
    [TROUBLE_TLS] = {"tls", "TLS fails", false, false},
    [TROUBLE_NOSCRIPT] = {"refused", "", false, false},
    [TROUBLE_REFUSED] = {"refused", REFUSED_MEANING, false, false},
};

static const struct {
    const char *word;
    enum redis_trouble trouble;
} replies[] = {
    {"LOADING", TROUBLE_LOADING},       {"READONLY", TROUBLE_READONLY},
    {"MASTERDOWN", TROUBLE_MASTERDOWN}, {"CLUSTERDOWN", TROUBLE_CLUSTERDOWN},
    {"MOVED", TROUBLE_MOVED},           {"ASK", TROUBLE_ASK},
    {"TRYAGAIN", TROUBLE_TRYAGAIN},     {"CROSSSLOT", TROUBLE_CLUSTER},
    {"NOREPLICAS", TROUBLE_NOREPLICAS}, {"OOM", TROUBLE_OOM},
    {"MISCONF", TROUBLE_MISCONF},       {"BUSY", TROUBLE_BUSY},
    {"NOAUTH", TROUBLE_AUTH},           {"WRONGPASS", TROUBLE_AUTH},
    {"NOPERM", TROUBLE_AUTH},           {"NOSCRIPT", TROUBLE_NOSCRIPT},
    {"IDONTKNOW", TROUBLE_NOMASTER},
};

static const char *find_word(const char *error)
{
    if (strncmp(error, SCRIPT_ERROR, strlen(SCRIPT_ERROR)) == 0) {
        const char *inner = strstr(error, SCRIPT_ERROR_INNER);
        return inner ? inner + strlen(SCRIPT_ERROR_INNER) : error;
    }
    return error;
}

static size_t word_len(const char *word)
{
    return strcspn(word, " \r\n");
}

enum redis_trouble redis_trouble_of(const char *error)
{
    const char *word = find_word(error);
    size_t len = word_len(word);
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        if (strlen(replies[i].word) == len && memcmp(replies[i].word, word, len) == 0) {
            return replies[i].trouble;
        }
    }
    return strstr(word, SCRIPT_USER) || strstr(word, SCRIPT_ACL) ? TROUBLE_AUTH : TROUBLE_REFUSED;
}

const char *redis_trouble_word(enum redis_trouble trouble)
{
    return troubles[trouble].word;
}

bool redis_trouble_ends_connection(enum redis_trouble trouble)
{
    return troubles[trouble].ends_connection;
}

bool redis_trouble_is_elsewhere(enum redis_trouble trouble)
{
    return troubles[trouble].is_elsewhere;
}

/* True when word was not logged a short time ago; the word seen longest ago is forgotten. */
static bool may_log(const char *word)
{
    static struct {
        char word[WORD_MAX];
        uint64_t logged_ms;
    } seen[WORDS_REMEMBERED];
    uint64_t now_ms = clock_mono_ms();
    size_t slot = 0;
    for (size_t i = 0; i < WORDS_REMEMBERED; i++) {
        if (strcmp(seen[i].word, word) == 0) {
            slot = i;
            break;
        }
        if (seen[i].logged_ms < seen[slot].logged_ms) {
            slot = i;
        }
    }
    if (strcmp(seen[slot].word, word) == 0 && now_ms - seen[slot].logged_ms < LOG_PAUSE_MS) {
        return false;
    }
    memcpy(seen[slot].word, word, WORD_MAX);
    seen[slot].logged_ms = now_ms;
    return true;
}

void redis_trouble_log(enum redis_trouble trouble, const char *node, const char *command,
                       const char *error)
{
    char word[WORD_MAX] = "";
    const char *shown = word;
    const char *from = find_word(error);
    size_t len = word_len(from);
    memcpy(word, from, len < WORD_MAX ? len : WORD_MAX - 1);
    if (may_log(word)) {
        log_error("redis refused", LOG_TEXT("node", node), LOG_TEXT("command", command),
                  LOG_TEXT("error", shown), LOG_TEXT("meaning", troubles[trouble].meaning));
    }
}
