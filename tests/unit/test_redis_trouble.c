/* Error replies of Redis, as real ones word them, and what they are taken for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/redis_trouble.h"

static const struct {
    const char *error;
    const char *word;
    bool ends_connection;
} table[] = {
    {"LOADING Redis is loading the dataset in memory", "loading", true},
    {"READONLY You can't write against a read only replica.", "readonly", true},
    {"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
     "masterdown", true},
    {"CLUSTERDOWN The cluster is down", "clusterdown", true},
    {"NOREPLICAS Not enough good replicas to write.", "noreplicas", true},
    {"MOVED 3999 127.0.0.1:6381", "cluster", false},
    {"ASK 3999 127.0.0.1:6381", "cluster", false},
    {"TRYAGAIN Multiple keys request during rehashing of slot", "cluster", false},
    {"CROSSSLOT Keys in request don't hash to the same slot", "cluster", false},
    {"IDONTKNOW", "nomaster", false},
    {"OOM command not allowed when used memory > 'maxmemory'.", "oom", false},
    {"MISCONF Redis is configured to save RDB snapshots", "misconf", false},
    {"BUSY Redis is busy running a script.", "busy", false},
    {"NOAUTH Authentication required.", "auth", false},
    {"WRONGPASS invalid username-password pair or user is disabled.", "auth", false},
    {"NOPERM this user has no permissions to run the 'set' command", "auth", false},
    {"ERR Error running script (call to f_0123): @user_script:1: @user_script: 1: "
     "-READONLY You can't write against a read only replica.",
     "readonly", true},
    {"ERR Error running script (call to f_0123): @user_script:1: -OOM command not allowed", "oom",
     false},
    {"ERR Error running script (call to f_0123): @user_script:1: attempt to index nil", "refused",
     false},
    {"ERR Error running script (call to f_0123): @user_script:1: The user executing the script "
     "can't run this command or subcommand",
     "auth", false},
    {"ERR The user executing the script can't access at least one of the keys mentioned in the "
     "command arguments script: 0123, on @user_script:1.",
     "auth", false},
    {"ERR ACL failure in script: User service has no permissions to run the 'hset' command script: "
     "0123, on @user_script:1.",
     "auth", false},
    {"OOM", "oom", false},
    {"OOM\r\n", "oom", false},
    {"OOMPH is no word", "refused", false},
    {"oom", "refused", false},
    {"WRONGTYPE Operation against a key holding the wrong kind of value", "refused", false},
    {"ERR max number of clients reached", "refused", false},
    {" LOADING", "refused", false},
    {"", "refused", false},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        enum redis_trouble trouble = redis_trouble_of(table[i].error);
        print_message("%s\n", table[i].error);
        assert_string_equal(redis_trouble_word(trouble), table[i].word);
        assert_int_equal(redis_trouble_ends_connection(trouble), table[i].ends_connection);
    }
}

static void test_only_what_was_not_done_is_sent_elsewhere(void **state)
{
    (void)state;
    static const enum redis_trouble elsewhere[] = {
        TROUBLE_LOADING, TROUBLE_READONLY, TROUBLE_MASTERDOWN, TROUBLE_CLUSTERDOWN,
        TROUBLE_MOVED,   TROUBLE_ASK,      TROUBLE_TRYAGAIN};
    for (int trouble = TROUBLE_NONE; trouble < TROUBLE__MAX; trouble++) {
        bool want = false;
        for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++) {
            want = want || (int)elsewhere[i] == trouble;
        }
        assert_int_equal(redis_trouble_is_elsewhere((enum redis_trouble)trouble), want);
    }
}

static void test_unknown_script_is_told_from_other_errors(void **state)
{
    (void)state;
    assert_int_equal(redis_trouble_of("NOSCRIPT No matching script. Please use EVAL."),
                     TROUBLE_NOSCRIPT);
}

static void test_every_trouble_has_a_word(void **state)
{
    (void)state;
    assert_string_equal(redis_trouble_word(TROUBLE_NONE), "");
    for (int trouble = TROUBLE_NONE + 1; trouble < TROUBLE__MAX; trouble++) {
        assert_non_null(redis_trouble_word((enum redis_trouble)trouble));
        assert_int_not_equal(redis_trouble_word((enum redis_trouble)trouble)[0], '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_only_what_was_not_done_is_sent_elsewhere),
        cmocka_unit_test(test_unknown_script_is_told_from_other_errors),
        cmocka_unit_test(test_every_trouble_has_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
