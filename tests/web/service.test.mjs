// nginx/www/spotify-auth.js against the running service: SITE is its origin, SPOTIFY the simulated Spotify's.
import assert from "node:assert/strict";
import {beforeEach, test} from "node:test";
import {AuthError, SpotifyAuth} from "../../nginx/www/spotify-auth.js";
import {Person} from "./person.mjs";

const {SITE, SPOTIFY} = process.env;
const own = globalThis.fetch;

async function control(name, fields) {
  const answer = await own(`${SPOTIFY}/_control/${name}`, {method: "POST", body: JSON.stringify(fields)});
  assert.equal(answer.status, 200, await answer.text());
}

const behave = (set, where = {}) => control("behaviour", {set, ...where});
const grants = async (kind) => (await (await own(`${SPOTIFY}/_control/counters`)).json()).grants[kind] ?? 0;

beforeEach(() => control("reset", {only: ["behaviour", "counters"]}));

/** A page of somebody who is logged in: the module, and the person for more of it. */
async function page({scope} = {}) {
  const person = new Person();
  globalThis.fetch = person.fetch;
  const auth = new SpotifyAuth({base: SITE + "/auth"});
  assert.equal(await person.logIn(auth.loginUrl({returnTo: SITE + "/", scope})), SITE + "/");
  return {auth, person};
}

test("a life: login, session, token, Web API, sessions, logout", async () => {
  const {auth} = await page();
  const session = await auth.session();
  assert.equal(session.user.display_name, "Ada Lovelace");
  assert.ok(Math.abs(session.reauth_in - 15552000) < 60);
  const token = await auth.token();
  assert.ok(token.access_token.length > 80 && token.expires_in > 3500);
  assert.equal((await auth.token()).access_token, token.access_token);
  assert.equal((await (await auth.fetch("me")).json()).id, "ada");
  assert.equal((await auth.sessions())[0].current, true);
  await auth.logout();
  assert.equal((await auth.session()).authenticated, false);
  await assert.rejects(auth.token(), (error) => error instanceof AuthError && error.code === "login_required" &&
                                                error.status === 401 && error.loginUrl === SITE + "/auth/authorize");
  await assert.rejects(auth.fetch("me"), {code: "login_required"});
});

test("tokens that end are renewed, by one call to Spotify for all who ask", async () => {
  await behave({expires_in: 4}, {endpoint: "token"});
  const {auth, person} = await page();
  const first = (await auth.token()).access_token;
  globalThis.fetch = person.fetch;
  const tabs = Array.from({length: 5}, () => new SpotifyAuth({base: SITE + "/auth"}));
  const before = await grants("refresh_token");
  for (let end = Date.now() + 8000, now = first; now === first; now = (await auth.token()).access_token) {
    assert.ok(Date.now() < end, "the token is never renewed");
    await new Promise((done) => setTimeout(done, 100));
  }
  const all = await Promise.all(tabs.flatMap((tab) => [tab.token(), tab.token()]));
  assert.equal(new Set(all.map((token) => token.access_token)).size, 1);
  assert.equal(await grants("refresh_token"), before + 1);
});

test("a scope that was not granted is asked for by a login, which leads to a token that has it", async () => {
  const {auth, person} = await page();
  const error = await auth.token({scope: "playlist-read-private"}).catch((reason) => reason);
  assert.equal(error.code, "insufficient_scope");
  assert.equal((await auth.fetch("me/playlists")).status, 403);
  await person.logIn(error.loginUrl);
  const token = await auth.token({scope: "playlist-read-private"});
  assert.ok(token.scope.includes("playlist-read-private") && token.scope.includes("user-read-email"));
  const playlists = await (await auth.fetch("me/playlists")).json();
  assert.equal(playlists.items[0].name, "Playlist of ada");
});

test("while Spotify is away nobody is logged out, and the error says when to try again", async () => {
  await behave({expires_in: 1}, {endpoint: "token", grant: "authorization_code"});
  const {auth} = await page();
  await behave({status: 503}, {endpoint: "token"});
  await new Promise((done) => setTimeout(done, 1100));
  let loggedOut = 0;
  auth.addEventListener("logout", () => { loggedOut++; });
  const error = await auth.token().catch((reason) => reason);
  assert.equal(error.code, "temporarily_unavailable");
  assert.ok(error.retryAfter >= 1);
  assert.equal((await auth.session()).authenticated, true);
  assert.equal(loggedOut, 0);
});

test("all: true ends this user's sessions in every browser", async () => {
  const one = await page();
  const other = await page();
  await other.auth.logout({all: true});
  globalThis.fetch = one.person.fetch;
  await assert.rejects(one.auth.token(), {code: "login_required"});
});

test("where the service is not, it is away", async () => {
  const {auth} = await page();
  const nobody = new SpotifyAuth({base: "http://127.0.0.1:9/auth"});
  await assert.rejects(nobody.session(), {code: "temporarily_unavailable", status: 0});
  assert.equal((await auth.session()).authenticated, true);
});
