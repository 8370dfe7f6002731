// nginx/www/adapters/ with Spotify's own SDK of npm (SDK is its file), against the running service: SITE is its origin,
// SPOTIFY the simulated Spotify's. The Web Playback SDK is only a script of Spotify's site; Player stands in for it.
import assert from "node:assert/strict";
import {beforeEach, test} from "node:test";
import {AuthError, SpotifyAuth} from "../../nginx/www/spotify-auth.js";
import {authStrategy, throughProxy} from "../../nginx/www/adapters/web-api-ts-sdk.js";
import {SCOPE, getOAuthToken} from "../../nginx/www/adapters/web-playback-sdk.js";
import {Person} from "./person.mjs";

const {SITE, SPOTIFY, SDK} = process.env;
const {SpotifyApi} = await import(SDK);
const own = globalThis.fetch;

async function control(name, fields) {
  const answer = await own(`${SPOTIFY}/_control/${name}`, {method: "POST", body: JSON.stringify(fields)});
  assert.equal(answer.status, 200, await answer.text());
}

const tokensLive = (seconds) => control("behaviour", {set: {expires_in: seconds}, endpoint: "token"});

const renewals = async () => (await (await own(`${SPOTIFY}/_control/counters`)).json()).grants.refresh_token ?? 0;

/** Until Spotify does not take this token any more. */
async function ended(token) {
  for (let end = Date.now() + 10000; ; await new Promise((done) => setTimeout(done, 100))) {
    const answer = await own(SPOTIFY + "/v1/me", {headers: {Authorization: "Bearer " + token}});
    if (answer.status === 401) return;
    assert.ok(Date.now() < end, "the token never ends");
  }
}

async function page(scope = "playlist-read-private") {
  const person = new Person();
  const asked = [];
  globalThis.fetch = (url, init) => {
    asked.push({url: String(url), headers: new Headers(init?.headers)});
    return person.fetch(url, init);
  };
  const auth = new SpotifyAuth({base: SITE + "/auth"});
  await person.logIn(auth.loginUrl({returnTo: SITE + "/", scope}));
  return {auth, asked};
}

/** The Web API is at https://api.spotify.com for the SDK; here it is the simulated one. */
const simulated = {fetch: (url, init) => own(url.replace("https://api.spotify.com", SPOTIFY), init)};

const names = async (api) => (await api.currentUser.playlists.playlists()).items.map(({name}) => name);

beforeEach(() => control("reset", {only: ["behaviour", "counters"]}));

test("the SDK lists playlists, with a token that expires in between", async () => {
  await tokensLive(4);
  const {auth} = await page();
  const api = new SpotifyApi(authStrategy(auth), simulated);
  const first = await api.getAccessToken();
  assert.deepEqual(await names(api), ["Playlist of ada"]);
  await ended(first.access_token);
  const before = await renewals();
  assert.deepEqual(await names(api), ["Playlist of ada"]);
  assert.equal(await renewals(), before + 1);
  const second = await api.getAccessToken();
  assert.notEqual(second.access_token, first.access_token);
  assert.ok(second.expires > Date.now() && second.expires <= Date.now() + 4000);
});

test("the SDK has no refresh token and knows that it is authenticated", async () => {
  const {auth} = await page();
  const {authenticated, accessToken} = await new SpotifyApi(authStrategy(auth), simulated).authenticate();
  assert.equal(authenticated, true);
  assert.equal(accessToken.refresh_token, "");
});

test("without a login the SDK's calls say so", async () => {
  globalThis.fetch = new Person().fetch;
  const api = new SpotifyApi(authStrategy(new SpotifyAuth({base: SITE + "/auth"})), simulated);
  assert.equal(await api.getAccessToken(), null);
  await assert.rejects(names(api), (error) => error instanceof AuthError && error.code === "login_required" &&
                                              error.loginUrl.startsWith(SITE + "/auth/authorize"));
});

test("an outage is no missing login for the SDK", async () => {
  const api = new SpotifyApi(authStrategy(new SpotifyAuth({base: "http://127.0.0.1:9/auth"})), simulated);
  await assert.rejects(api.getAccessToken(), {code: "temporarily_unavailable"});
});

test("logOut of the SDK ends the session", async () => {
  const {auth} = await page();
  const out = new Promise((done) => auth.addEventListener("logout", done));
  await auth.session();
  new SpotifyApi(authStrategy(auth), simulated).logOut();
  await out;
  assert.equal((await auth.session()).authenticated, false);
});

test("through the proxy it lists playlists, with a token that expires in between and that nobody sees", async () => {
  await tokensLive(4);
  const {auth, asked} = await page();
  const api = new SpotifyApi(...throughProxy(auth));
  assert.deepEqual(await names(api), ["Playlist of ada"]);
  const before = await renewals();
  for (let end = Date.now() + 10000; await renewals() === before; await new Promise((done) => setTimeout(done, 200))) {
    assert.ok(Date.now() < end, "the token is never renewed");
    assert.deepEqual(await names(api), ["Playlist of ada"]);
  }
  const calls = asked.filter(({url}) => url.startsWith(SITE + "/spotify/v1/me/playlists"));
  assert.ok(calls.length > 1 && calls.every(({headers}) => !headers.has("Authorization")));
  assert.ok(asked.every(({url}) => !/\/auth\/(token|refresh)/.test(url)));
});

test("through the proxy the SDK hears that nobody is logged in", async () => {
  globalThis.fetch = new Person().fetch;
  const api = new SpotifyApi(...throughProxy(new SpotifyAuth({base: SITE + "/auth"})));
  await assert.rejects(names(api), {code: "login_required"});
});

/** Asks for a token at each connect(), and again when Spotify refuses the one it has. */
class Player {
  constructor({name, getOAuthToken: ask}) {
    assert.ok(name);
    this.ask = () => new Promise((done) => ask(done));
  }

  async connect() {
    this.token = await this.ask();
    return this.play();
  }

  async play() {
    const me = () => own(SPOTIFY + "/v1/me", {headers: {Authorization: "Bearer " + this.token}});
    let answer = await me();
    if (answer.status === 401) {
      this.token = await this.ask();
      answer = await me();
    }
    return answer.status === 200;
  }
}

test("a player gets a token, and another one when that has run out", async () => {
  await tokensLive(4);
  const {auth} = await page(SCOPE);
  const player = new Player({name: "Kitchen", getOAuthToken: getOAuthToken(auth)});
  assert.equal(await player.connect(), true);
  const first = player.token;
  await ended(first);
  assert.equal(await player.play(), true);
  assert.notEqual(player.token, first);
});

test("a player whose user has not agreed to playing is told where to", async () => {
  const {auth} = await page();
  const error = await new Promise((onError) => getOAuthToken(auth, onError)(() => assert.fail("a token")));
  assert.equal(error.code, "insufficient_scope");
  assert.equal(new URL(error.loginUrl).searchParams.get("scope"), SCOPE);
});

test("a player waits while Spotify is away, and gets its token then", async () => {
  const codes = ["temporarily_unavailable", "rate_limited", "temporarily_unavailable"];
  const refusal = () => Object.assign(new Error(), {code: codes.pop(), retryAfter: 0.05});
  const auth = {token: async () => codes.length ? Promise.reject(refusal()) : {access_token: "x"}};
  assert.equal(await new Promise((done) => getOAuthToken(auth, assert.fail)(done)), "x");
});
