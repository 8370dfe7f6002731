/* Owning, copying and wiping the plain data, and the one rule about it that must hold everywhere:
 * how new tokens go into a session. */
#include "base/model.h"

#include <string.h>

#include "base/buf.h"

void profile_clear(struct profile *profile)
{
    xfree_secret(profile->id);
    xfree_secret(profile->account_id);
    xfree_secret(profile->display_name);
    xfree_secret(profile->image_url);
    xfree_secret(profile->product);
    *profile = (struct profile){0};
}

void tokens_clear(struct tokens *tokens)
{
    xfree_secret(tokens->access_token);
    xfree_secret(tokens->refresh_token);
    xfree_secret(tokens->scope);
    *tokens = (struct tokens){0};
}

void login_clear(struct login *login)
{
    xfree_secret(login->verifier);
    xfree_secret(login->scope);
    xfree_secret(login->return_to);
    *login = (struct login){0};
}

void device_clear(struct device *device)
{
    xfree_secret(device->scope);
    *device = (struct device){0};
}

void login_outcome_clear(struct login_outcome *outcome)
{
    xfree_secret(outcome->location);
    secret_wipe(&outcome->session);
    *outcome = (struct login_outcome){0};
}

void session_clear(struct session *session)
{
    xfree_secret(session->access_token);
    xfree_secret(session->refresh_token);
    xfree_secret(session->scope);
    xfree_secret(session->agent);
    profile_clear(&session->profile);
    *session = (struct session){0};
}

void app_token_clear(struct app_token *token)
{
    xfree_secret(token->access_token);
    *token = (struct app_token){0};
}

void listing_clear(struct listing *listing)
{
    xfree_secret(listing->agent);
    *listing = (struct listing){0};
}

void session_copy(const struct session *from, struct session *out)
{
    *out = *from;
    out->access_token = xstrdup(from->access_token);
    out->refresh_token = xstrdup(from->refresh_token);
    out->scope = xstrdup(from->scope);
    out->agent = xstrdup(from->agent);
    out->profile = (struct profile){
        .id = xstrdup(from->profile.id),
        .account_id = xstrdup(from->profile.account_id),
        .display_name = xstrdup(from->profile.display_name),
        .image_url = xstrdup(from->profile.image_url),
        .product = xstrdup(from->profile.product),
    };
}

static void replace(char **text, const char *with)
{
    char *old = *text;
    *text = xstrdup(with);
    xfree_secret(old);
}

void session_take_tokens(struct session *session, const struct tokens *tokens, int64_t now)
{
    replace(&session->access_token, tokens->access_token);
    /* RFC 6749 6: without a new refresh token the old one stays. Spotify also sends an empty one.
     */
    if (tokens->refresh_token && tokens->refresh_token[0]) {
        replace(&session->refresh_token, tokens->refresh_token);
    }
    /* RFC 6749 5.1: not said means as it was. By 3.3 a scope has a word at least, so an empty one
     * says nothing either. */
    if (tokens->scope && tokens->scope[0]) {
        replace(&session->scope, tokens->scope);
    }
    session->obtained_at = now;
    session->expires_at = now + tokens->expires_in;
    session->suspect_since = 0;
    session->suspect_tried_at = 0;
    session->generation++;
}
