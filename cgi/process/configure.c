/* Reads the settings for a start, a reload or --check. What a single setting may hold is the base
 * floor's business (settings.c); here is what only a higher floor can judge. */
#include "process/configure.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "http/return_to.h"
#include "store/store.h"

static int check_return_to(const struct settings *settings, FILE *problems)
{
    const char *return_to = settings->return_to;
    /* A path is judged alike on every origin; for a URL the own origin must be known. */
    struct origin stand_in = {.text = "https://origin.invalid"};
    const struct origin *own = settings->origin.text != NULL ? &settings->origin : &stand_in;

    if (return_to == NULL || (own == &stand_in && return_to[0] != '/')) {
        return 0;
    }
    if (return_to_is_ours(return_to, own, &settings->allowed_origins)) {
        return 0;
    }
    fputs(
        "RETURN_TO: is neither a path on the own origin nor a URL on an allowed one; write a path "
        "such as /, or add its origin to ALLOWED_ORIGINS\n",
        problems);
    return 1;
}

int configure_load(struct settings *out, FILE *problems)
{
    int count = settings_load(out, problems);

    count += check_return_to(out, problems);
    return count + store_check(out, count == 0, problems);
}

int configure_load_logged(struct settings *out)
{
    char *text = NULL, *rest, *line;
    size_t len = 0;
    FILE *problems = open_memstream(&text, &len);
    int count;

    if (problems == NULL) {
        abort();
    }
    count = configure_load(out, problems);
    fclose(problems);
    rest = text;
    while ((line = strsep(&rest, "\n")) != NULL) {
        if (*line != '\0') {
            log_error("bad setting", LOG_TEXT("problem", line));
        }
    }
    free(text);
    return count;
}
