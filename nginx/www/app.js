// The page is the same for everybody and finds out by asking: the session cookie is Strict, so it
// does not come with the redirect back from Spotify, but it does with these fetches.
"use strict";

const LOGIN_ERRORS = {
  access_denied: "You declined at Spotify, so you are not logged in.",
  server_error: "Spotify reported an error. Please try to log in again.",
  login_failed: "The login did not work. Please try again.",
  temporarily_unavailable: "Spotify cannot be reached right now. Please try again in a moment.",
};
const UNAVAILABLE = "The service is not available. If you were logged in, you still are; ";

let tokenEndsAt = null;
let retryTimer = null;

const element = (id) => document.getElementById(id);

function say(text) {
  element("message").textContent = text;
}

function call(method, path, form) {
  return fetch("auth/" + path, {
    method,
    body: form && new URLSearchParams(form),
    headers: { "X-Requested-With": "spotify-auth" },
    cache: "no-store",
  });
}

function showOut(loginUrl) {
  tokenEndsAt = null;
  element("in").hidden = true;
  element("out").hidden = false;
  if (loginUrl) {
    const url = new URL(loginUrl, location.href);
    if (url.origin === location.origin) {
      url.searchParams.set("return_to", "/");
      element("login").href = url.href;
    }
  }
}

function showIn(session) {
  const user = session.user || {};
  element("who").textContent = user.display_name || user.id || "Somebody at Spotify";
  element("product").textContent = user.product ? "Spotify " + user.product : "";
  element("scope").textContent = session.scope || "none";
  element("due").textContent = new Date(session.reauth_by * 1000).toLocaleDateString();
  if (/^https:/.test(user.image_url || "")) {
    element("picture").src = user.image_url;
  } else {
    element("picture").hidden = true;
  }
  element("out").hidden = true;
  element("in").hidden = false;
}

function showSeconds() {
  if (tokenEndsAt === null) {
    element("seconds").textContent = "none";
    return;
  }
  const left = Math.max(0, Math.ceil((tokenEndsAt - performance.now()) / 1000));
  element("seconds").textContent =
    left > 0 ? `${left} seconds left` : "run out, renewed at next use";
}

function retryAfter(answer) {
  const seconds = Math.min(60, Math.max(1, Number(answer.headers.get("Retry-After")) || 5));
  clearTimeout(retryTimer);
  retryTimer = setTimeout(guarded(show), seconds * 1000);
  return seconds;
}

// The page keeps the seconds only; the token itself is for code that calls Spotify.
async function takeToken(answer) {
  if (answer.status === 200) {
    const token = await answer.json();
    tokenEndsAt = performance.now() + token.expires_in * 1000;
    showSeconds();
    return true;
  }
  if (answer.status === 401) {
    showOut((await answer.json()).login_url);
    say("Your session has ended. Please log in again.");
  } else if (answer.status >= 500) {
    say(`${UNAVAILABLE}trying again in ${retryAfter(answer)} s.`);
  } else {
    say(`The service refused the request (${answer.status}).`);
  }
  return false;
}

async function show() {
  const answer = await call("GET", "session");
  if (!answer.ok) {
    say(answer.status >= 500
      ? `${UNAVAILABLE}trying again in ${retryAfter(answer)} s.`
      : `The service refused the request (${answer.status}).`);
    return;
  }
  if (element("message").textContent.startsWith(UNAVAILABLE)) {
    say("");
  }
  const session = await answer.json();
  if (!session.authenticated) {
    showOut(session.login_url);
    if (session.reauth_required) {
      say("Spotify asks you to log in again.");
    }
    return;
  }
  showIn(session);
  await takeToken(await call("GET", "token"));
}

// Where Spotify does not renew a token that is still valid, the service hands that one out.
async function renew() {
  const endedAt = tokenEndsAt;
  if (await takeToken(await call("POST", "refresh"))) {
    const isNewer = endedAt === null || tokenEndsAt > endedAt + 1000;
    say(isNewer ? "The access token is fresh." : "The access token is the same, and still valid.");
  }
}

async function logout(everywhere) {
  const answer = await call("POST", "logout", everywhere ? { all: "true" } : undefined);
  if (answer.ok) {
    showOut();
    say(everywhere ? "You are logged out everywhere." : "You are logged out.");
  } else {
    say(`${UNAVAILABLE}please try again.`);
  }
}

function guarded(action) {
  return async () => {
    const buttons = document.querySelectorAll("button");
    buttons.forEach((button) => { button.disabled = true; });
    try {
      await action();
    } catch {
      say(UNAVAILABLE + "please try again.");
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
    }
  };
}

const error = new URLSearchParams(location.search).get("error");
if (error !== null) {
  say(Object.hasOwn(LOGIN_ERRORS, error) ? LOGIN_ERRORS[error] : LOGIN_ERRORS.login_failed);
  history.replaceState(null, "", location.pathname);
}

element("picture").addEventListener("load", (event) => { event.target.hidden = false; });
element("picture").addEventListener("error", (event) => { event.target.hidden = true; });
element("renew").addEventListener("click", guarded(renew));
element("logout").addEventListener("click", guarded(() => logout(false)));
element("logout-all").addEventListener("click", guarded(() => logout(true)));
// The back button may bring the page back as it was before a login or logout.
addEventListener("pageshow", (event) => { if (event.persisted) guarded(show)(); });
setInterval(() => { if (!element("in").hidden) showSeconds(); }, 1000);
guarded(show)();
