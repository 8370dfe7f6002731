// What tsc --strict has to accept of the adapters' types, and to refuse.
import {SpotifyApi} from "@spotify/web-api-ts-sdk";
import {SpotifyAuth} from "../../nginx/www/spotify-auth.js";
import {authStrategy, throughProxy} from "../../nginx/www/adapters/web-api-ts-sdk.js";
import {SCOPE, getOAuthToken} from "../../nginx/www/adapters/web-playback-sdk.js";

const auth = new SpotifyAuth();

export const apis = [new SpotifyApi(authStrategy(auth)), new SpotifyApi(...throughProxy(auth))];
// @ts-expect-error the SDK takes a strategy, not the module
new SpotifyApi(auth);

// As the Web Playback SDK declares it.
declare class Player {
  constructor(options: {name: string; getOAuthToken: (done: (token: string) => void) => void});
}
const ask = getOAuthToken(auth, ({loginUrl}) => loginUrl && location.assign(loginUrl));
new Player({name: SCOPE, getOAuthToken: ask});
// @ts-expect-error it is called with the module first
new Player({name: SCOPE, getOAuthToken});
