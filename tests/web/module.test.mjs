// nginx/www/spotify-auth.js against a service of a few lines, for what a real one does seldom: odd clocks, late
// answers, other tabs. node --test tests/web/module.test.mjs
import assert from "node:assert/strict";
import {afterEach, beforeEach, test} from "node:test";

const PAGE = "https://app.example/list?page=2#song";
const locks = []; // names, as they were asked for
let turn = Promise.resolve(), turns = 0, isHeld = false;

// The module looks at these when it is loaded.
globalThis.location = new URL(PAGE);
Object.defineProperty(globalThis, "navigator", {
  configurable: true,
  value: {
    locks: {
      async request(name, {ifAvailable, signal}, work) {
        if (ifAvailable && (isHeld || turns)) return work(null);
        locks.push(name);
        if (isHeld) return new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
        const begin = () => work({name});
        turns++;
        turn = turn.then(begin, begin).finally(() => turns--);
        return turn;
      },
    },
  },
});
const {AuthError, SpotifyAuth} = await import("../../nginx/www/spotify-auth.js");

const ADA = {authenticated: true, user: {id: "ada", account_id: "a1"}, scope: "one two", expires_in: 3600,
             authorized_at: 1000, reauth_by: 4e9};
const NOBODY = {authenticated: false, login_url: "https://app.example/auth/authorize"};
const LOGIN_REQUIRED = {error: "login_required", error_description: "Please log in.",
                        login_url: "https://app.example/auth/authorize"};

// performance.now itself cannot be replaced in Node 18.
const clock = {now: performance.now.bind(performance)};
Object.defineProperty(globalThis, "performance", {configurable: true, value: clock});

const own = {fetch: globalThis.fetch, now: Date.now, tick: clock.now};
let calls, answers, tabs = 0;

function json(status, body, headers) {
  return new Response(status === 204 ? null : JSON.stringify(body), {status, headers});
}

function token(name, expires_in = 3600, scope = "one two") {
  return json(200, {access_token: name, token_type: "Bearer", expires_in, scope});
}

/** Answers to come, in order, for "GET /auth/token"; the last one stays. */
function answer(call, ...list) {
  answers[call] = list;
}

beforeEach(() => {
  calls = [];
  answers = {};
  globalThis.fetch = async (url, init) => {
    const {origin, pathname, search} = new URL(url);
    const call = `${init.method ?? "GET"} ${origin === location.origin ? "" : origin}${pathname}${search}`;
    calls.push({call, init});
    const list = answers[call] ?? assert.fail(`nobody expected ${call}`);
    const next = list.length > 1 ? list.shift() : list[0];
    const got = await (typeof next === "function" ? next(init) : next);
    return got.clone();
  };
});

afterEach(() => {
  delete globalThis.document;
  globalThis.fetch = own.fetch;
  Date.now = own.now;
  clock.now = own.tick;
});

/** Each test has a mount of its own, and with it a channel of its own. */
function mount() {
  return `/auth${++tabs}`;
}

function log(auth) {
  const events = [];
  for (const type of ["login", "logout", "reauth-soon"])
    auth.addEventListener(type, (event) => events.push(event.detail ? [type, event.detail] : [type]));
  return events;
}

function passed(seconds, tick_seconds = seconds) {
  const now = Date.now(), tick = performance.now();
  Date.now = () => now + seconds * 1000;
  clock.now = () => tick + tick_seconds * 1000;
}

async function until(condition) {
  for (const end = own.now() + 5000; !condition(); await new Promise((done) => setTimeout(done, 2)))
    assert.ok(own.now() < end, `not within 5 s: ${condition}`);
}

function later() {
  let done;
  const promise = new Promise((resolve) => { done = resolve; });
  return {promise, done};
}

const count = (call) => calls.filter((made) => made.call === call).length;

// The address of a login

test("a login leads back to the page it began on", () => {
  const url = new URL(new SpotifyAuth().loginUrl());
  assert.equal(url.origin + url.pathname, "https://app.example/auth/authorize");
  assert.deepEqual([...url.searchParams], [["return_to", PAGE]]);
});

test("a login after one that failed does not bring the old error back", () => {
  const back = (page) => new URL(new SpotifyAuth().loginUrl({returnTo: page})).searchParams.get("return_to");
  location.search = "?page=2&error=access_denied";
  const after = back();
  location.href = PAGE;
  assert.equal(after, PAGE);
  assert.equal(back("/list?error=login_failed#song"), "https://app.example/list#song");
  assert.equal(back("/list?q=a%20b"), "https://app.example/list?q=a%20b", "as it was written");
});

test("a login takes a way back, scopes and the dialog", () => {
  const auth = new SpotifyAuth({base: "https://auth.example/auth"});
  const query = (options) => Object.fromEntries(new URL(auth.loginUrl(options)).searchParams);
  assert.deepEqual(query({returnTo: "/done", scope: ["one", "two"], showDialog: true}),
                   {return_to: "https://app.example/done", scope: "one two", show_dialog: "true"});
  assert.equal(query({scope: "one two"}).scope, "one two");
  assert.equal(query({scope: []}).scope, undefined);
  assert.ok(auth.loginUrl().startsWith("https://auth.example/auth/authorize?"));
});

test("login() goes there", () => {
  location.assign = (url) => { location.went = url; };
  new SpotifyAuth().login({scope: "one"});
  assert.match(location.went, /^https:\/\/app\.example\/auth\/authorize\?scope=one&return_to=/);
});

// Tokens

test("a token is asked for once, with cookies and the header, until shortly before its end", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first"), token("second"));
  const first = {access_token: "first", token_type: "Bearer", expires_in: 3600, scope: "one two"};
  assert.deepEqual(await auth.token(), first);
  const {init} = calls[0];
  assert.equal(init.credentials, "include");
  assert.equal(init.headers.get("X-Requested-With"), "spotify-auth");
  passed(3560);
  const late = await auth.token();
  assert.equal(late.access_token, "first");
  assert.ok(late.expires_in >= 39 && late.expires_in <= 40);
  passed(15);
  assert.equal((await auth.token()).access_token, "second");
});

test("a token that lives shorter than the margin is kept for half of its life", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first", 10), token("second", 10));
  await auth.token();
  passed(4);
  assert.equal((await auth.token()).access_token, "first");
  passed(2);
  assert.equal((await auth.token()).access_token, "second");
});

for (const [what, wall, tick] of [["was set back by a day", -86400 + 3600, 3600], ["stood still in sleep", 3600, 5]]) {
  test(`a clock that ${what} keeps no token alive`, async () => {
    const base = mount();
    const auth = new SpotifyAuth({base});
    answer(`GET ${base}/token`, token("first"), token("second"));
    await auth.token();
    passed(wall, tick);
    assert.equal((await auth.token()).access_token, "second");
  });
}

test("the time that an answer took counts as lived", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, () => { passed(20); return token("slow", 60); }, token("second", 60));
  await auth.token();
  passed(15);
  assert.equal((await auth.token()).access_token, "second");
});

test("many callers are one request, and hear of one failure", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, json(503, {error: "temporarily_unavailable"}, {"Retry-After": "7"}), token("first"));
  const failed = await Promise.allSettled([auth.token(), auth.token(), auth.token()]);
  assert.deepEqual(failed.map(({reason}) => [reason.code, reason.status, reason.retryAfter]),
                   Array(3).fill(["temporarily_unavailable", 503, 7]));
  const got = await Promise.all([auth.token(), auth.token(), auth.token()]);
  assert.deepEqual(got.map((one) => one.access_token), Array(3).fill("first"));
  assert.equal(calls.length, 2);
});

test("a scope that the kept token has costs no request, another one is asked for by name", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first"));
  answer(`GET ${base}/token?scope=two%20three`,
         json(403, {error: "insufficient_scope", error_description: "The user has not granted this scope.",
                    login_url: "https://app.example/auth/authorize?scope=three"}));
  await auth.token();
  assert.equal((await auth.token({scope: "two"})).access_token, "first");
  assert.equal((await auth.token({scope: ["one", "two"]})).access_token, "first");
  const error = await auth.token({scope: ["two", "three"]}).catch((reason) => reason);
  assert.ok(error instanceof AuthError && error instanceof Error);
  assert.equal(error.name, "AuthError");
  assert.equal(error.code, "insufficient_scope");
  assert.equal(error.status, 403);
  assert.equal(error.message, "The user has not granted this scope.");
  const url = new URL(error.loginUrl);
  assert.deepEqual(Object.fromEntries(url.searchParams), {scope: "three", return_to: PAGE});
  assert.equal((await auth.token()).access_token, "first", "nobody was logged out");
});

test("refresh() is a POST, and its token the one that is kept", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first"));
  answer(`POST ${base}/refresh`, token("second"));
  await auth.token();
  const [one, two] = await Promise.all([auth.refresh(), auth.refresh()]);
  assert.equal(one.access_token + two.access_token, "secondsecond");
  assert.equal((await auth.token()).access_token, "second");
  assert.equal(calls.length, 2);
});

// Errors

const ODD = [
  ["nothing answers", () => { throw new TypeError("fetch failed"); }, 0],
  ["a proxy answers with a page", () => new Response("<h1>Bad gateway</h1>", {status: 502}), 502],
  ["a hotel answers with a page", () => new Response("<h1>Welcome</h1>"), 200],
  ["somebody answers with other JSON", () => json(500, {error: {message: "no"}}), 500],
  ["somebody answers with null", () => json(500, null), 500],
];
for (const [what, got, status] of ODD) {
  test(`when ${what}, the service is away and nobody is logged out`, async () => {
    const base = mount();
    const auth = new SpotifyAuth({base});
    const events = log(auth);
    answer(`GET ${base}/session`, json(200, ADA), got);
    await auth.session();
    const error = await auth.session().catch((reason) => reason);
    assert.ok(error instanceof AuthError);
    assert.deepEqual([error.code, error.status], ["temporarily_unavailable", status]);
    assert.deepEqual(events.map(([type]) => type), ["login"]);
  });
}

// Who comes and goes

test("login is told once, with the session; nobody at the start is no logout", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  answer(`GET ${base}/session`, json(200, NOBODY), json(200, ADA));
  assert.deepEqual(await auth.session(), NOBODY);
  assert.deepEqual(events, []);
  await auth.session();
  await auth.session();
  assert.equal(events.length, 1);
  assert.equal(events[0][0], "login");
  assert.equal(events[0][1].user.id, "ada");
});

test("a session that ends elsewhere is a logout, whichever request finds it", async () => {
  for (const path of ["session", "token"]) {
    const base = mount();
    const auth = new SpotifyAuth({base});
    const events = log(auth);
    answer(`GET ${base}/session`, json(200, ADA), json(200, NOBODY));
    answer(`GET ${base}/token`, json(401, LOGIN_REQUIRED));
    await auth.session();
    const error = await auth[path]().catch((reason) => reason);
    assert.deepEqual(events.map(([type]) => type), ["login", "logout"]);
    if (path === "token")
      assert.deepEqual([error.code, new URL(error.loginUrl).searchParams.get("return_to")], ["login_required", PAGE]);
  }
});

test("logout() says what to end, drops the token and is told", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  answer(`GET ${base}/token`, token("first"), json(401, LOGIN_REQUIRED));
  answer(`POST ${base}/logout`, json(204));
  await auth.token();
  await auth.logout();
  assert.deepEqual(events, [["logout"]]);
  await assert.rejects(auth.token(), {code: "login_required"});
  await auth.logout({all: true});
  const bodies = calls.filter(({call}) => call.endsWith("logout")).map(({init}) => String(init.body));
  assert.deepEqual(bodies, ["", "all=true"]);
});

test("logout() is told also where nobody had asked who is there", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  answer(`POST ${base}/logout`, json(204));
  await auth.logout();
  assert.deepEqual(events, [["logout"]]);
});

test("a logout that fails changes nothing", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  answer(`GET ${base}/token`, token("first"));
  answer(`POST ${base}/logout`, json(503, {error: "temporarily_unavailable"}));
  await auth.token();
  await assert.rejects(auth.logout(), {code: "temporarily_unavailable"});
  assert.equal((await auth.token()).access_token, "first");
  assert.deepEqual(events, []);
});

test("another session that is ended by its id leaves this one", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  const sessions = [{id: "x", current: true}, {id: "y", current: false}];
  answer(`GET ${base}/sessions`, json(200, {sessions}));
  answer(`GET ${base}/session`, json(200, ADA), json(200, ADA), json(200, NOBODY));
  answer(`POST ${base}/logout`, json(204));
  await auth.session();
  assert.deepEqual(await auth.sessions(), sessions);
  await auth.logout({id: "y"});
  assert.equal(String(calls.find(({call}) => call.endsWith("logout")).init.body), "id=y");
  assert.deepEqual(events.map(([type]) => type), ["login"]);
  await auth.logout({id: "x"});
  assert.deepEqual(events.map(([type]) => type), ["login", "logout"]);
});

test("a token that was under way while its user logged out is not handed out", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const late = later();
  answer(`GET ${base}/session`, json(200, ADA));
  answer(`GET ${base}/token`, late.promise, json(401, LOGIN_REQUIRED));
  answer(`POST ${base}/logout`, json(204));
  await auth.session();
  const asked = auth.token();
  await auth.logout();
  late.done(token("of before"));
  await assert.rejects(asked, {code: "login_required"});
});

test("a logout during which another user logs in is not sent again for that one", async () => {
  const {base, here, there, events} = await pair();
  const late = later();
  answer(`POST ${base}/logout`, late.promise);
  const gone = here.logout({all: true});
  answer(`GET ${base}/session`, json(200, {...ADA, user: {id: "bob", account_id: null}, authorized_at: 2000}));
  await there.session();
  await until(() => events.some(([type, session]) => type === "login" && session.user.id === "bob"));
  late.done(json(204));
  await gone;
  assert.equal(count(`POST ${base}/logout`), 1);
});

test("reauth-soon is told once for a login, by the service's clock", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  const at = (unix, session) => json(200, session, {Date: new Date(unix * 1000).toUTCString()});
  answer(`GET ${base}/session`, at(ADA.reauth_by - 15 * 86400, ADA), at(ADA.reauth_by - 13 * 86400, ADA));
  assert.equal((await auth.session()).reauth_in, 15 * 86400);
  assert.deepEqual(events.map(([type]) => type), ["login"]);
  assert.equal((await auth.session()).reauth_in, 13 * 86400);
  await auth.session();
  assert.deepEqual(events.map(([type]) => type), ["login", "reauth-soon"]);
  assert.equal(events[1][1].reauth_in, 13 * 86400);
});

/** A page around the module, and what the module listens to there. */
function around(base) {
  const heard = {};
  const addEventListener = (type, listener) => { heard[type] = listener; };
  Object.assign(globalThis, {addEventListener, document: {addEventListener, hidden: false}});
  const auth = new SpotifyAuth({base});
  delete globalThis.addEventListener;
  return {auth, heard, events: log(auth)};
}

test("a page out of the back-forward cache drops its token and asks who is there", async () => {
  const base = mount();
  const {auth, heard, events} = around(base);
  answer(`GET ${base}/session`, json(200, ADA), json(200, NOBODY));
  answer(`GET ${base}/token`, token("first"), json(401, LOGIN_REQUIRED));
  await auth.session();
  await auth.token();
  heard.pageshow({persisted: false});
  assert.equal((await auth.token()).access_token, "first");
  heard.pageshow({persisted: true});
  await assert.rejects(auth.token(), {code: "login_required"});
  await until(() => events.length === 2);
  assert.equal(events[1][0], "logout");
});

test("a page that is seen again asks who is there, if somebody was", async () => {
  const base = mount();
  const {auth, heard, events} = around(base);
  answer(`GET ${base}/session`, json(200, ADA), () => { throw new TypeError("fetch failed"); }, json(200, NOBODY));
  heard.visibilitychange();
  assert.equal(calls.length, 0);
  await auth.session();
  document.hidden = true;
  heard.visibilitychange();
  assert.equal(calls.length, 1);
  document.hidden = false;
  heard.visibilitychange(); // whose failure nobody hears of
  await until(() => calls.length === 2);
  await until(() => { heard.visibilitychange(); return events.length === 2; });
  assert.equal(events[1][0], "logout");
});

// Other tabs

/** Two tabs in which Ada is logged in; the first one has a token. */
async function pair() {
  const base = mount();
  const here = new SpotifyAuth({base}), there = new SpotifyAuth({base});
  answer(`GET ${base}/session`, json(200, ADA));
  answer(`GET ${base}/token`, token("first"));
  answer(`POST ${base}/logout`, json(204));
  await Promise.all([here.session(), there.session()]);
  await heard();
  await here.token();
  return {base, here, there, events: log(here)};
}

/** What the tabs tell each other has arrived. */
async function heard() {
  await new Promise((done) => setTimeout(done, 50));
}

test("a logout in another tab drops the token here", async () => {
  const {base, here, there, events} = await pair();
  answer(`GET ${base}/session`, json(200, NOBODY));
  answer(`GET ${base}/token`, json(401, LOGIN_REQUIRED));
  await there.logout();
  await until(() => events.length);
  assert.deepEqual(events, [["logout"]]);
  await assert.rejects(here.token(), {code: "login_required"});
});

test("a logout in another tab drops the token here, also when nobody can say who is logged in", async () => {
  const {base, here, there, events} = await pair();
  answer(`GET ${base}/session`, json(503, {error: "temporarily_unavailable"}));
  answer(`GET ${base}/token`, json(503, {error: "temporarily_unavailable"}));
  const before = count(`GET ${base}/session`);
  await there.logout();
  await until(() => count(`GET ${base}/session`) > before);
  await assert.rejects(here.token(), {code: "temporarily_unavailable"});
  assert.deepEqual(events, []);
});

test("another user's login in another tab is a login here, and the old token is dropped", async () => {
  const {base, here, there, events} = await pair();
  const bob = {...ADA, user: {id: "bob", account_id: null}, authorized_at: 2000};
  answer(`GET ${base}/session`, json(200, bob));
  answer(`GET ${base}/token`, token("bob's"));
  await there.session();
  await until(() => events.length);
  assert.equal(events[0][0], "login");
  assert.equal(events[0][1].user.id, "bob");
  assert.equal((await here.token()).access_token, "bob's");
});

test("what another tab got is not asked for again", async () => {
  const base = mount();
  const here = new SpotifyAuth({base}), there = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first"));
  await there.token();
  await heard();
  const one = await here.token();
  assert.equal(one.access_token, "first");
  assert.equal(count(`GET ${base}/token`), 1);
  assert.deepEqual(Object.keys(one).sort(), ["access_token", "expires_in", "scope", "token_type"]);
});

test("a token of a tab that does not know whose it is, is not taken for this user's", async () => {
  const base = mount();
  const here = new SpotifyAuth({base});
  answer(`GET ${base}/session`, json(200, ADA));
  answer(`GET ${base}/token`, token("somebody's"), token("ada's"));
  await here.session();
  await new SpotifyAuth({base}).token();
  await heard();
  assert.equal((await here.token()).access_token, "ada's");
});

test("a token that came after nobody was found is dropped, too, when another tab logs out", async () => {
  const base = mount();
  const here = new SpotifyAuth({base}), there = new SpotifyAuth({base});
  answer(`GET ${base}/session`, json(200, NOBODY));
  answer(`GET ${base}/token`, token("first"), json(401, LOGIN_REQUIRED));
  answer(`POST ${base}/logout`, json(204));
  await Promise.all([here.session(), there.session()]);
  await heard();
  await here.token();
  await there.logout();
  await heard();
  await assert.rejects(here.token(), {code: "login_required"});
});

test("a token that a tab heard of late is as old as it is", async () => {
  const base = mount();
  const here = new SpotifyAuth({base}), there = new SpotifyAuth({base});
  answer(`GET ${base}/token`, token("first"), token("second"));
  await there.token();
  passed(3590, 0); // this tab was frozen: its message comes when an hour has passed
  await heard();
  assert.equal((await here.token()).access_token, "second");
});

test("tabs take turns at the service", async () => {
  const base = mount();
  locks.length = 0;
  const here = new SpotifyAuth({base}), there = new SpotifyAuth({base});
  const slow = async () => { await new Promise((done) => setTimeout(done, 20)); return token("first"); };
  answer(`GET ${base}/token`, slow);
  await Promise.all([here.token(), there.token(), here.token()]);
  assert.deepEqual(locks, Array(2).fill(location.origin + base));
  assert.equal(count(`GET ${base}/token`), 1, "the second one waited for what the first one shared");
});

test("a page that may have no locks does without", async (context) => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const {request} = navigator.locks;
  answer(`GET ${base}/token`, json(503, {error: "temporarily_unavailable"}), token("first"));
  context.after(() => { navigator.locks.request = request; });
  navigator.locks.request = async () => { throw new DOMException("a sandboxed frame", "SecurityError"); };
  await assert.rejects(auth.token(), {code: "temporarily_unavailable"});
  assert.equal((await auth.token()).access_token, "first");
  assert.equal(calls.length, 2);
});

test("a tab that never ends its turn holds nobody up for long", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`GET ${base}/token`, json(503, {error: "temporarily_unavailable"}), token("first"));
  isHeld = true;
  const alive = setInterval(() => {}, 1000); // Node does not wait for AbortSignal.timeout()
  await assert.rejects(auth.token(), {code: "temporarily_unavailable"});
  isHeld = false;
  clearInterval(alive);
  assert.equal((await auth.token()).access_token, "first");
  assert.equal(calls.length, 2);
});

// The Web API

test("paths of the Web API, as Spotify writes them, go to the proxy", async () => {
  const auth = new SpotifyAuth({base: "https://auth.example/auth"});
  const wanted = "GET https://auth.example/spotify/v1/me/playlists?limit=5";
  answer(wanted, json(200, {items: []}));
  for (const path of ["me/playlists?limit=5", "/v1/me/playlists?limit=5", "/spotify/v1/me/playlists?limit=5",
                      "https://api.spotify.com/v1/me/playlists?limit=5"])
    assert.equal((await auth.fetch(path)).status, 200);
  assert.equal(count(wanted), 4);
  assert.equal(calls[0].init.credentials, "include");
  assert.equal(calls[0].init.headers.get("X-Requested-With"), "spotify-auth");
});

test("headers, method and body of a call go through", async () => {
  const auth = new SpotifyAuth();
  answer("PUT /spotify/v1/me/player", json(204));
  const init = {method: "PUT", body: "{}", headers: {"Content-Type": "application/json"}};
  assert.equal((await auth.fetch("me/player", init)).status, 204);
  assert.equal(calls[0].init.body, "{}");
  assert.equal(calls[0].init.headers.get("Content-Type"), "application/json");
  assert.equal(init.headers["X-Requested-With"], undefined, "what the caller gave is the caller's");
});

test("a 401 is tried once more after a renewal", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  answer(`POST ${base}/refresh`, token("fresh"));
  answer("GET /spotify/v1/me", json(401, {error: {status: 401}}), json(200, {id: "ada"}));
  assert.equal((await (await auth.fetch("me")).json()).id, "ada");
  answer("GET /spotify/v1/me", json(401, {error: {status: 401}}));
  assert.equal((await auth.fetch("me")).status, 401);
  assert.equal(count(`POST ${base}/refresh`), 2);
  answer("GET /spotify/v1/me", json(401, LOGIN_REQUIRED));
  await assert.rejects(auth.fetch("me"), {code: "login_required", status: 401});
});

test("a 401 of somebody who is logged out is a logout", async () => {
  const base = mount();
  const auth = new SpotifyAuth({base});
  const events = log(auth);
  answer(`GET ${base}/session`, json(200, ADA));
  answer(`POST ${base}/refresh`, json(401, LOGIN_REQUIRED));
  answer("GET /spotify/v1/me", json(401, LOGIN_REQUIRED));
  await auth.session();
  await assert.rejects(auth.fetch("me"), {code: "login_required"});
  assert.equal(count("GET /spotify/v1/me"), 1);
  assert.equal(events.at(-1)[0], "logout");
});

test("after a 429, and a 503 that is safe to repeat, it waits once, if not for long", async () => {
  const date = "Sun, 22 Nov 2026 10:00:00 GMT";
  const cases = [[429, "GET", "1", 2], [429, "POST", "1", 2], [503, "GET", "1", 2], [503, "PUT", "1", 1],
                 [503, "POST", "1", 1], [429, "GET", "11742", 1], [429, "GET", null, 1], [503, "GET", date, 1],
                 [500, "GET", "1", 1]];
  const auth = new SpotifyAuth();
  await Promise.all(cases.map(async ([status, method, wait, tries], number) => {
    const call = `${method} /spotify/v1/case/${number}`;
    answer(call, json(status, {error: {status, message: "no"}}, wait ? {"Retry-After": wait} : {}));
    const begun = own.now();
    assert.equal((await auth.fetch(`case/${number}`, {method})).status, status);
    assert.equal(count(call), tries, `${call}: ${status}, Retry-After ${wait}`);
    assert.ok(tries === 1 || own.now() - begun >= 950);
  }));
});

test("what the service itself refuses is an AuthError; what Spotify says is the answer", async () => {
  const auth = new SpotifyAuth();
  answer("GET /spotify/v1/none", json(404, {error: "not_found", error_description: "Not passed on."}));
  const refusal = {name: "AuthError", code: "not_found", status: 404, message: "Not passed on."};
  await assert.rejects(auth.fetch("none"), refusal);
  answer("GET /spotify/v1/me", json(503, {error: "temporarily_unavailable"}, {"Retry-After": "60"}));
  await assert.rejects(auth.fetch("me"), {code: "temporarily_unavailable", retryAfter: 60});
  answer("GET /spotify/v1/me", new Response("Active premium subscription required", {status: 403}));
  assert.equal(await (await auth.fetch("me")).text(), "Active premium subscription required");
});

test("an aborted call is an AbortError, also while it waits", async () => {
  const auth = new SpotifyAuth();
  answer("GET /spotify/v1/me", json(429, {}, {"Retry-After": "9"}), ({signal}) => { throw signal.reason; });
  const stop = new AbortController();
  const begun = own.now();
  const called = auth.fetch("me", {signal: stop.signal});
  setTimeout(() => stop.abort(), 30);
  await assert.rejects(called, {name: "AbortError"});
  assert.ok(own.now() - begun < 3000);
  await assert.rejects(auth.fetch("me", {signal: stop.signal}), {name: "AbortError"});
});

test("a call that reaches nobody is temporarily_unavailable, with its cause", async () => {
  const auth = new SpotifyAuth();
  answer("GET /spotify/v1/me", () => { throw new TypeError("fetch failed"); });
  const error = await auth.fetch("me").catch((reason) => reason);
  assert.deepEqual([error.code, error.status, error.cause.message], ["temporarily_unavailable", 0, "fetch failed"]);
});
