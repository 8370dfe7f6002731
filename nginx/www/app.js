// The page: who is logged in, and what Spotify has of them. It needs no token: calls to the Web API go through nginx,
// which puts one in. It is static and finds out by asking, since the session cookie (SameSite=Strict) does not come
// along on the page load that follows the login.
import {SpotifyAuth} from "./spotify-auth.js";

const LOGIN_ERRORS = {
  access_denied: "You declined at Spotify.",
  server_error: "Spotify reported an error. Please try again.",
  login_failed: "The login did not work. Please try again.",
  temporarily_unavailable: "Spotify cannot be reached right now. Please try again in a moment.",
};
const SCOPES = {
  "user-read-private": "Your country and subscription",
  "user-read-email": "Your e-mail address",
  "user-read-currently-playing": "What you are playing",
  "user-read-recently-played": "What you have played lately",
  "user-top-read": "Your favourite artists and tracks",
  "playlist-read-private": "Your private playlists",
};
const PLAYER_SCOPES = ["user-read-currently-playing", "user-read-recently-played"];
const EVERY_S = 30;
const TOKEN_LIFE_S = 3600;

const auth = new SpotifyAuth();

let view; // "out", "away" or "in"
let shown, told, soon; // the login whose data is in the page; the one that was heard of last; the one to be renewed
let tokenEnds = 0; // by performance.now(), as all that counts down here
let awayEnds = 0;
let playing = null; // {at_ms, length_ms, seen, isRunning}
let timer, looking;

// Small tools

const $ = (id) => document.getElementById(id);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const loginOf = ({authorized_at, user}) => `${authorized_at} ${user.account_id ?? user.id}`;
const secondsTo = (end) => Math.max(0, Math.ceil((end - performance.now()) / 1000));

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text) {
  $("message").textContent = text;
}

function note(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}

function ago(unix_s) {
  const seconds = Date.now() / 1000 - unix_s;
  for (const [word, length] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (seconds >= length) return plural(Math.floor(seconds / length), word) + " ago";
  return "just now";
}

function date(unix_s) {
  return new Date(unix_s * 1000).toLocaleDateString("en-GB", {day: "numeric", month: "long", year: "numeric"});
}

/** Of one id always the same colour: pictures would be requests to another host. */
function paint(element, id) {
  let hue = 0;
  for (const letter of String(id)) hue = (hue * 31 + letter.charCodeAt()) % 360;
  element.style.setProperty("--hue", hue);
}

// Spotify's Web API

async function ask(path) {
  const answer = await auth.fetch(path);
  if (answer.status === 204) return null;
  if (answer.ok) return answer.json();
  const words = await answer.clone().json().then(({error}) => error.message).catch(() => answer.text());
  throw Object.assign(new Error(words.slice(0, 200)), {
    status: answer.status,
    retryAfter: Number(answer.headers.get("Retry-After")),
  });
}

function explain(error) {
  if (error.code === "temporarily_unavailable") return `${error.message} You are still logged in.`;
  if (error.code) return error.message;
  if (error.status === 403)
    return "Spotify let you log in, but gives this app nothing of yours. While an app is in Development Mode, its " +
      `owner has to add you under User Management on the dashboard. Spotify says: “${error.message}”`;
  if (error.status === 429) return "Spotify asks this app to wait, since it has asked too often.";
  if (error.status) return `Spotify answered with an error (${error.status}).`;
  return "Something went wrong on this page.";
}

// What is seen

function switchTo(wanted) {
  if (view === wanted) return;
  const hadFocus = view && $(view).contains(document.activeElement);
  for (const id of ["out", "away", "in"]) $(id).hidden = id !== wanted;
  view = wanted;
  for (const link of document.querySelectorAll("a.button")) link.href = auth.loginUrl();
  if (hadFocus) $(view).querySelector("h1").focus();
}

function showOut(reason) {
  shown = null;
  switchTo("out");
  say(reason);
}

function showAway(seconds) {
  awayEnds = performance.now() + seconds * 1000;
  if (view === "in") {
    say("The service does not answer. If you were logged in, you still are.");
  } else {
    switchTo("away");
  }
}

function showIn(session) {
  const {user, authorized_at, reauth_by, reauth_in} = session;
  tokenEnds = performance.now() + session.expires_in * 1000;
  if (shown !== loginOf(session)) forget();
  shown = loginOf(session);
  $("who").textContent = user.display_name ?? user.id ?? "Somebody at Spotify";
  $("initials").textContent = $("who").textContent.split(/\s+/, 2).map((word) => [...word][0]).join("").toUpperCase();
  paint($("initials"), user.account_id ?? user.id);

  const days = Math.floor(reauth_in / 86400);
  $("days").textContent = days > 0 ? `in ${plural(days, "day")}` : `in ${plural(Math.floor(reauth_in / 3600), "hour")}`;
  $("until").max = reauth_by - authorized_at;
  $("until").value = reauth_in;
  $("until-text").textContent = `Until ${date(reauth_by)}. Then Spotify wants you to agree again.`;
  $("until-ask").hidden = soon !== shown;
  showScopes(session.scope.split(" "));
  switchTo("in");
}

/** What is one user's is not to be seen by the next one. */
function forget() {
  for (const id of ["granted", "more", "played", "sessions"]) $(id).replaceChildren();
  for (const id of ["track", "played", "played-title"]) $(id).hidden = true;
  for (const id of ["trouble", "play-note", "sessions-note"]) note(id, "");
  $("profile").textContent = "Asking Spotify …";
  playing = null;
}

function showScopes(granted) {
  const line = (name) => make("span", {}, SCOPES[name] ?? name, " ", make("code", {}, name));
  $("granted").replaceChildren(...granted.filter(Boolean).map((name) => make("li", {}, line(name))));
  const missing = Object.keys(SCOPES).filter((name) => !granted.includes(name));
  $("more").replaceChildren(...missing.map((name) => {
    const button = make("button", {type: "button", ariaLabel: `Ask for: ${SCOPES[name]}`}, "Ask");
    act(button, () => askFor([name]));
    return make("li", {}, line(name), button);
  }));
  $("more-title").hidden = $("more").hidden = !missing.length;
}

async function showProfile() {
  const {email, country, product, followers} = await ask("me");
  const followed = followers?.total === undefined ? null : plural(followers.total, "follower");
  $("profile").textContent = [product && `Spotify ${product}`, country, email, followed].filter(Boolean).join(" · ");
}

async function showPlayer(granted) {
  const [current, recent] = PLAYER_SCOPES.map((name) => granted.includes(name));
  $("play-ask").hidden = current || recent;
  if (!current && !recent) return note("play-note", "You have not allowed this page to see that yet.");
  const now = current && await ask("me/player/currently-playing");
  const items = recent ? (await ask("me/player/recently-played?limit=4")).items : [];
  showTrack(now);
  $("played").replaceChildren(...items.map(({track, played_at}) => make("li", {},
    make("span", {}, make("strong", {}, track.name), " ", make("span", {className: "soft"}, by(track))),
    make("span", {className: "soft"}, ago(Date.parse(played_at) / 1000)))));
  $("played").hidden = !items.length;
  $("played-title").hidden = !items.length || !now?.item;
  const title = recent ? "Recently played" : "Now playing";
  $("play-title").textContent = now?.item ? (now.is_playing ? "Now playing" : "Paused") : title;
  note("play-note", now?.item || items.length ? "" : "Nothing.");
}

function by(track) {
  return (track.artists ?? [track.show]).map((artist) => artist?.name).filter(Boolean).join(", ");
}

function showTrack(now) {
  const track = now?.item;
  $("track").hidden = !track;
  playing = track && {at_ms: now.progress_ms, length_ms: track.duration_ms, seen: performance.now(),
    isRunning: now.is_playing && now.progress_ms < track.duration_ms};
  if (!track) return;
  $("track-name").textContent = track.name;
  $("track-by").textContent = [by(track), track.album?.name].filter(Boolean).join(" · ");
  paint($("cover"), track.id);
  $("cover").classList.toggle("running", now.is_playing);
}

async function showSessions() {
  $("sessions").replaceChildren(...(await auth.sessions()).map((session) => {
    const {id, current, user_agent, begun_at, last_used_at} = session;
    const name = user_agent ?? "Some browser";
    const times = [begun_at && `begun ${ago(begun_at)}`, last_used_at && `used ${ago(last_used_at)}`].filter(Boolean);
    const line = make("span", {}, make("strong", {}, name), " ", make("span", {className: "soft"}, times.join(" · ")));
    if (current) return make("li", {}, line, make("span", {className: "badge"}, "this one"));
    const button = make("button", {type: "button", ariaLabel: `End the session of ${name}`}, "End");
    act(button, async () => {
      await auth.logout({id});
      $("sessions-title").focus();
      await showSessions();
      say("That session has ended.");
    });
    return make("li", {}, line, button);
  }));
}

// What happens

/** Asks for everything, again and again while the page is seen; once at a time. */
function look() {
  clearTimeout(timer);
  looking ??= lookNow().catch((error) => {
    say(explain(error));
    return EVERY_S;
  }).then((wait_s) => {
    looking = null;
    timer = setTimeout(() => document.hidden || look(), wait_s * 1000);
  });
  return looking;
}

async function lookNow() {
  let session;
  try {
    session = await auth.session();
  } catch (error) {
    const wait_s = Math.min(60, error.retryAfter ?? 5);
    showAway(wait_s);
    return wait_s;
  }
  if (awayEnds) say("");
  awayEnds = 0;
  if (!session.authenticated) {
    const word = wordOfLogin();
    if (view !== "out") showOut(session.reauth_required ? "Spotify asks you to log in again." : word);
    return EVERY_S;
  }
  const word = wordOfLogin("You are logged in as before.");
  showIn(session);
  if (word) say(word);
  const wait_s = await showSpotify(session.scope.split(" "));
  await showSessions().catch((error) => note("sessions-note", explain(error)));
  if (session.expires_in < 60) await showRenewed();
  return told === loginOf(session) ? wait_s : 0;
}

/** The token that was about to end was renewed on the way to Spotify. */
async function showRenewed() {
  const session = await auth.session();
  if (session.authenticated) showIn(session);
}

async function showSpotify(granted) {
  try {
    await showProfile();
    await showPlayer(granted);
    note("trouble", "");
    $("play").hidden = false;
    return EVERY_S;
  } catch (error) {
    note("trouble", explain(error));
    $("profile").textContent = "";
    $("play").hidden = $("track").hidden && $("played").hidden;
    return Math.min(60, error.retryAfter || 5);
  }
}

/** Why the login that ended here went wrong, if it did. To be said once, also when the page is loaded again. */
function wordOfLogin(but = "You are not logged in.") {
  const url = new URL(location.href);
  const error = url.searchParams.get("error");
  if (error === null) return "";
  url.searchParams.delete("error");
  history.replaceState(null, "", url);
  return `${Object.hasOwn(LOGIN_ERRORS, error) ? LOGIN_ERRORS[error] : LOGIN_ERRORS.login_failed} ${but}`;
}

/** Goes to Spotify for scopes, if the service may ask for them: then its refusal of a token says where a login does. */
async function askFor(scope) {
  try {
    await auth.token({scope});
    await look();
  } catch (error) {
    if (error.code !== "insufficient_scope") throw error;
    if (error.loginUrl) location.assign(error.loginUrl);
    else say("This service may not ask for that. Its operator can allow it, in SPOTIFY_SCOPE_ALLOWED.");
  }
}

async function renew() {
  const left_s = secondsTo(tokenEnds);
  const {expires_in} = await auth.refresh();
  tokenEnds = performance.now() + expires_in * 1000;
  tick();
  say(expires_in > left_s + 1 ? "The access token is fresh." : "The access token is the same, and still valid.");
}

async function logout(everywhere) {
  await auth.logout({all: everywhere});
  say(everywhere ? "You are logged out everywhere." : "You are logged out.");
}

function act(button, work) {
  button.addEventListener("click", async () => {
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    try {
      await work();
    } catch (error) {
      if (error.code !== "login_required") say(explain(error));
    } finally {
      button.ariaBusy = "false";
    }
  });
}

/** Every second. */
function tick() {
  $("away-in").textContent = ` in ${secondsTo(awayEnds)} s`;
  if (view !== "in") return;
  const left_s = secondsTo(tokenEnds);
  $("left").textContent = minutes(left_s);
  $("ring").setAttribute("stroke-dashoffset", 1 - Math.min(1, left_s / TOKEN_LIFE_S));
  if (!playing) return;
  const {at_ms, length_ms, seen, isRunning} = playing;
  const now_ms = Math.min(length_ms, at_ms + (isRunning ? performance.now() - seen : 0));
  $("track-progress").max = length_ms;
  $("track-progress").value = now_ms;
  $("track-at").textContent = minutes(now_ms / 1000);
  $("track-length").textContent = minutes(length_ms / 1000);
  if (isRunning && now_ms === length_ms) {
    playing = null;
    look();
  }
}

auth.addEventListener("login", ({detail}) => {
  told = loginOf(detail);
  look();
});
auth.addEventListener("logout", () => showOut("Your session has ended. Please log in again."));
auth.addEventListener("reauth-soon", ({detail}) => {
  soon = loginOf(detail);
  say("Spotify will soon want to be asked again.");
});
document.addEventListener("visibilitychange", () => document.hidden || look());

act($("again"), look);
act($("renew"), renew);
act($("logout"), () => logout(false));
act($("logout-all"), () => logout(true));
act($("play-ask").firstElementChild, () => askFor(PLAYER_SCOPES));
setInterval(tick, 1000);
look().then(tick);
