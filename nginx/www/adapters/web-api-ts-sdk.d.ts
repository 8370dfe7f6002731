// Types of web-api-ts-sdk.js, for @spotify/web-api-ts-sdk:
//
//     import {SpotifyApi} from "@spotify/web-api-ts-sdk";
//     const api = new SpotifyApi(authStrategy(auth));       // with the access token of spotify-auth.js
//     const api = new SpotifyApi(...throughProxy(auth));    // or with no token in the browser
//
// A call without a login rejects with spotify-auth.js's AuthError: log in with `auth.login()`. `api.logOut()` is
// `auth.logout()`.
import type {IAuthStrategy, SdkOptions} from "@spotify/web-api-ts-sdk";
import type {SpotifyAuth} from "../spotify-auth.js";

/** Always a token that is good for half a minute at least, where Spotify's live that long. */
export function authStrategy(auth: SpotifyAuth): IAuthStrategy;

/** nginx puts the token in, renews it, and passes on what its operator allows; see `auth.fetch()`. */
export function throughProxy(auth: SpotifyAuth): [IAuthStrategy, SdkOptions];
