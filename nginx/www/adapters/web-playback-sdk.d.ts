// Types of web-playback-sdk.js, for the Web Playback SDK (https://sdk.scdn.co/spotify-player.js):
//
//     const player = new Spotify.Player({name: "Kitchen", getOAuthToken: getOAuthToken(auth, ask)});
//     function ask(error) {                                  // nobody is logged in, or not for playing
//       if (error.loginUrl) location.assign(error.loginUrl);
//     }
import type {AuthError, SpotifyAuth} from "../spotify-auth.js";

/** What playing takes; has to be in SPOTIFY_SCOPE_ALLOWED. */
export const SCOPE: string;

/** Called by the SDK at each connect() and when its token has run out. While the service or Spotify is away, or
 *  wants a pause, it tries again by itself; any other error goes to `onError`. */
export function getOAuthToken(
  auth: SpotifyAuth,
  onError?: (error: AuthError) => void,
): (done: (token: string) => void) => void;
