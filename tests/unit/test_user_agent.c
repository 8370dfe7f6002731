/* What is kept of a User-Agent header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/user_agent.h"

#define WEBKIT " AppleWebKit/605.1.15 (KHTML, like Gecko) "
#define CHROME " AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "

static void families_are_told_apart(void **state)
{
    static const struct {
        const char *header;
        const char *want;
    } cases[] = {
        {NULL, ""},
        {"", ""},
        {"scripted-browser", ""},
        {"curl/7.88.1", "curl"},
        {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
         "Firefox on Linux"},
        {"Mozilla/5.0 (Windows NT 10.0; Win64; x64)" CHROME "Safari/537.36 Edg/142.0",
         "Edge on Windows"},
        {"Mozilla/5.0 (Windows NT 10.0; Win64; x64)" CHROME "Safari/537.36", "Chrome on Windows"},
        {"Mozilla/5.0 (Linux; Android 14)" CHROME "Mobile Safari/537.36", "Chrome on Android"},
        {"Mozilla/5.0 (Linux; Android 14) SamsungBrowser/28.0" CHROME "Safari/537.36",
         "Samsung Internet on Android"},
        {"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)" WEBKIT
         "Version/18.0 Mobile/15E148 Safari/604.1",
         "Safari on iPhone"},
        {"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)" WEBKIT
         "CriOS/142.0 Mobile/15E148 Safari/604.1",
         "Chrome on iPhone"},
        {"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)" WEBKIT "Version/18.0 Safari/605.1.15",
         "Safari on macOS"},
        {"Some app for Windows", "Windows"},
        {"<script>alert(1)</script> Firefox/1", "Firefox"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[USER_AGENT_MAX + 1];
        user_agent_family(cases[i].header, out);
        assert_string_equal(out, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
