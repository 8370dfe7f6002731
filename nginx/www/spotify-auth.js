// A web frontend's side of spotify-auth. What everything takes and gives is in spotify-auth.d.ts.
const {location, navigator, BroadcastChannel} = globalThis;

const EARLY_S = 30; // no token with less of its life left is given out of the cache
const SOON_S = 14 * 86400;
const WAIT_MAX_S = 10;
const ANSWER_MS = 20000;
const TURN_MS = 3000;
const NEWS_S = 0.2;
const AWAY = {error: "temporarily_unavailable", error_description: "The service cannot be reached."};

const words = (scope) => String(scope ?? "").split(/[ ,]+/).filter(Boolean);

function andBack(url, page = location?.href) {
  if (!page) return url.href;
  const back = new URL(page, location?.href);
  if (back.searchParams.has("error")) back.searchParams.delete("error"); // of the login before this one
  url.searchParams.set("return_to", back);
  return url.href;
}

export class AuthError extends Error {
  name = "AuthError";

  constructor({error, error_description, login_url}, {status, headers}, cause) {
    super(error_description ?? error, {cause});
    this.code = error;
    this.status = status;
    this.retryAfter = Number(headers?.get("Retry-After")) || undefined;
    this.loginUrl = login_url && andBack(new URL(login_url));
  }
}

function pause(seconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    });
  });
}

export class SpotifyAuth extends EventTarget {
  #base; #api; #tabs; #token; #warned;
  #who; // undefined while that is not known, null for nobody
  #turn = 0; // counts those who come and go
  #calls = {}; // that are under way

  constructor({base = "/auth", api = "/spotify"} = {}) {
    super();
    this.#base = new URL(base, location?.href).href;
    this.#api = new URL(api, this.#base).href;
    if (BroadcastChannel) {
      this.#tabs = new BroadcastChannel(this.#base);
      this.#tabs.onmessage = ({data}) => this.#hear(data);
      this.#tabs.unref?.(); // Node would not end
    }
    // Out of the back-forward cache, where no tab was heard; and back in this tab, perhaps after days.
    globalThis.addEventListener?.("pageshow", ({persisted}) => persisted && this.#hear({who: ""}));
    globalThis.document?.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#who) this.session().catch(() => {});
    });
  }

  loginUrl({returnTo, scope, showDialog} = {}) {
    const url = new URL(this.#base + "/authorize");
    if (words(scope)[0]) url.searchParams.set("scope", words(scope).join(" "));
    if (showDialog) url.searchParams.set("show_dialog", true);
    return andBack(url, returnTo);
  }

  login(options) {
    location.assign(this.loginUrl(options));
  }

  session() {
    return this.#once("/session", async (path) => {
      const {body, now} = await this.#ask(path);
      const {authenticated, user, authorized_at, reauth_by} = body;
      if (!authenticated) {
        this.#become(null);
        return body;
      }
      const session = {...body, reauth_in: reauth_by - Math.floor(now / 1000)};
      this.#become(`${authorized_at} ${user.account_id ?? user.id}`, session);
      if (session.reauth_in < SOON_S && this.#warned !== this.#who) {
        this.#warned = this.#who;
        this.#emit("reauth-soon", session);
      }
      return session;
    });
  }

  async sessions() {
    return (await this.#ask("/sessions")).body.sessions;
  }

  async token({scope} = {}) {
    const wanted = words(scope);
    const path = "/token" + (wanted[0] ? "?scope=" + encodeURIComponent(wanted.join(" ")) : "");
    return this.#cached(wanted) ?? this.#once(path, () => this.#inTurn(async (hasWaited) => {
      if (hasWaited && !this.#cached(wanted)) await this.#news();
      return this.#cached(wanted) ?? this.#keep(await this.#ask(path));
    }));
  }

  refresh() {
    return this.#once("/refresh", async (path) => this.#keep(await this.#ask(path, {method: "POST"})));
  }

  async logout({all, id} = {}) {
    await this.#ask("/logout", {method: "POST", body: new URLSearchParams(all ? {all} : id ? {id} : {})});
    if (id) {
      await this.session(); // it may have been this one
    } else {
      this.#who ??= "?";
      this.#become(null);
    }
  }

  async fetch(path, init = {}) {
    const {pathname, search} = new URL(path, "https://api.spotify.com/v1/");
    const url = this.#api + pathname.replace(/^\/spotify\//, "/") + search;
    for (let renewed, waited; ;) {
      const answer = await this.#send(url, init);
      const {status, headers} = answer;
      const wait_s = Number(headers.get("Retry-After"));
      // A PUT may be no safer than a POST: one that reorders a playlist moves tracks by where they are.
      const wasNotDone = status === 429 || (status === 503 && /^(GET|HEAD)$/i.test(init.method ?? "GET"));
      if (status === 401 && !renewed) {
        renewed = await this.refresh();
      } else if (wasNotDone && !waited && wait_s > 0 && wait_s <= WAIT_MAX_S) {
        waited = true;
        await pause(wait_s, init.signal);
      } else {
        // The service's errors are flat, Spotify's are objects, if they are JSON at all.
        const body = answer.ok || await answer.clone().json().catch(() => null);
        if (typeof body?.error === "string") throw new AuthError(body, answer);
        return answer;
      }
    }
  }

  async #send(url, init, signal = init.signal) {
    const headers = new Headers(init.headers);
    headers.set("X-Requested-With", "spotify-auth");
    try {
      return await fetch(url, {credentials: "include", ...init, headers, signal});
    } catch (cause) {
      throw init.signal?.aborted ? cause : new AuthError(AWAY, {status: 0}, cause);
    }
  }

  async #ask(path, init = {}) {
    const turn = this.#turn;
    const at = Date.now(), tick = performance.now();
    const answer = await this.#send(this.#base + path, init, AbortSignal.timeout(ANSWER_MS));
    const body = answer.status === 204 ? {} : Object(await answer.json().catch(() => AWAY));
    // That was about another login. A logout is not sent again: it would end that one.
    if (turn !== this.#turn && path !== "/logout") return this.#ask(path, init);
    if (body.error === "login_required") this.#become(null);
    if (!answer.ok || body.error) throw new AuthError(typeof body.error === "string" ? body : AWAY, answer);
    return {body, at, tick, now: Date.parse(answer.headers.get("Date")) || at};
  }

  // One tab after the other: whoever comes second finds what the first one shared. But nobody waits long for another.
  async #inTurn(work) {
    let begun;
    const request = (options, hasWaited) =>
      navigator?.locks?.request(this.#base, options, (lock) => lock && (begun = work(hasWaited)));
    try {
      await request({ifAvailable: true});
      if (!begun) await request({signal: AbortSignal.timeout(TURN_MS)}, true);
    } catch {} // of the work: told below; of the lock: it is done without
    return begun ?? work();
  }

  // What the tab before shared may come a moment later than our turn.
  async #news() {
    const end = new AbortController();
    await Promise.race([pause(NEWS_S), new Promise((done) => {
      this.#tabs?.addEventListener("message", ({data}) => data.token && done(), end);
    })]);
    end.abort();
  }

  #once(path, work) {
    return this.#calls[path] ??= work(path).finally(() => delete this.#calls[path]);
  }

  #keep({body, at, tick}) {
    this.#who ??= undefined; // whoever it is, it is not nobody
    this.#token = {body, at, tick};
    this.#tabs?.postMessage({who: this.#who, token: {body, at}});
    return body;
  }

  #cached(wanted) {
    if (!this.#token) return;
    const {body, at, tick} = this.#token;
    // The one clock may be set, the other may stand still while the machine sleeps.
    const left_s = body.expires_in - Math.max(Date.now() - at, performance.now() - tick) / 1000;
    if (left_s > Math.min(EARLY_S, body.expires_in / 2) && wanted.every((word) => words(body.scope).includes(word)))
      return {...body, expires_in: Math.floor(left_s)};
  }

  #become(who, session) {
    const was = this.#who, hadToken = this.#token;
    if (who === was) return;
    this.#who = who;
    if (was !== undefined || !who) this.#forget();
    this.#tabs?.postMessage({who});
    if (who) this.#emit("login", session);
    else if (was || hadToken) this.#emit("logout");
  }

  // What another tab says is a reason to look, not to believe: its answer may be older than ours.
  #hear({who, token}) {
    if (token) {
      if (who === this.#who) this.#token = {...token, tick: performance.now()};
    } else if (who !== this.#who) {
      this.#forget();
      this.session().catch(() => {});
    }
  }

  #forget() {
    this.#turn++;
    this.#token = null;
  }

  #emit(type, detail) {
    this.dispatchEvent(Object.assign(new Event(type), {detail}));
  }
}
