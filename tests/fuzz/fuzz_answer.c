/* spotify/answer.c over any bytes: no crash, nothing past a limit, nothing that could not go into a
 * header or a log line. */
#include <stdlib.h>
#include <string.h>

#include "base/origin.h"
#include "spotify/answer.h"
#include "spotify/upstream.h"

#define NOW ((int64_t)1700000000)

static void require(bool what)
{
    if (!what) {
        abort();
    }
}

static void require_text(const char *text, size_t max)
{
    if (!text) {
        return;
    }
    require(strlen(text) <= max);
    for (; *text; text++) {
        require((unsigned char)*text >= 0x20 && *text != 0x7f);
    }
}

static void try_tokens(const char *body, size_t len)
{
    struct tokens tokens = {0};
    const char *problem = NULL;
    if (answer_parse_tokens(body, len, &tokens, &problem) != OK) {
        require(problem && !tokens.access_token && !tokens.refresh_token && !tokens.scope);
        return;
    }
    require(!problem && tokens.access_token && *tokens.access_token);
    require(!tokens.refresh_token || *tokens.refresh_token);
    require(tokens.expires_in >= 0 && tokens.expires_in <= 31536000);
    require_text(tokens.access_token, TOKEN_MAX);
    require_text(tokens.refresh_token, TOKEN_MAX);
    require_text(tokens.scope, SCOPE_MAX);
    tokens_clear(&tokens);
}

static void try_error(const char *body, size_t len)
{
    static const int statuses[] = {400, 401, 429, 503};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        const char *word = NULL;
        enum err err = answer_parse_error(statuses[i], body, len, &word);
        require(err == ERR_REFUSED || err == ERR_MISCONFIGURED || err == ERR_UPSTREAM);
        require(err == ERR_UPSTREAM || statuses[i] <= 401);
        require((err == ERR_REFUSED) == (strcmp(word, "invalid_grant") == 0));
    }
}

static void try_profile(const char *body, size_t len)
{
    struct profile profile = {0};
    struct origin origin = {0};
    if (answer_parse_profile(body, len, &profile) != OK) {
        return;
    }
    require_text(profile.id, PROFILE_TEXT_MAX);
    require_text(profile.account_id, PROFILE_TEXT_MAX);
    require_text(profile.display_name, PROFILE_TEXT_MAX);
    require_text(profile.image_url, PROFILE_TEXT_MAX);
    require_text(profile.product, PROFILE_TEXT_MAX);
    if (profile.image_url) {
        require(origin_of_url(profile.image_url, &origin) == OK);
        require(strncmp(origin.text, "https://", 8) == 0 || origin_is_loopback(&origin));
        origin_clear(&origin);
    }
    profile_clear(&profile);
}

static void try_retry_after(const char *bytes, size_t len)
{
    char *text = xstrndup(bytes, len);
    int64_t seconds = retry_after_parse(text, NOW);
    require(seconds >= -1 && seconds <= INT32_MAX);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *body = size > 0 ? (const char *)data : "";
    try_tokens(body, size);
    try_error(body, size);
    try_profile(body, size);
    try_retry_after(body, size);
    return 0;
}
