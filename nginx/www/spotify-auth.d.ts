// Types of spotify-auth.js, a web frontend's side of spotify-auth. One object does for a page:
//
//     import {SpotifyAuth} from "/spotify-auth.js";
//     const auth = new SpotifyAuth();

export interface Options {
  /** Where the service is mounted: "/auth", or "https://auth.example.com/auth" from a listed origin. */
  base?: string;
  /** Where nginx passes the Web API on, on the same origin: "/spotify". */
  api?: string;
}

export interface LoginOptions {
  /** Where the login ends, relative to the page or a whole URL; the page itself if not said. It gets `?error=` when the
   *  login failed: `access_denied`, `server_error`, `login_failed` or `temporarily_unavailable`; the next try starts
   *  without it. */
  returnTo?: string | URL;
  /** To be asked for besides what was granted before; the service's own default if not said. */
  scope?: string | string[];
  /** Let Spotify ask the user again, and offer another account. */
  showDialog?: boolean;
}

export interface User {
  id: string | null;
  /** The stable one, to link accounts by. */
  account_id: string | null;
  display_name: string | null;
  image_url: string | null;
  product: string | null;
}

export interface LoggedIn {
  authenticated: true;
  user: User;
  /** What was granted, separated by spaces. */
  scope: string;
  /** Seconds that the access token lives. The service renews it by itself when it is asked for. */
  expires_in: number;
  /** When the user agreed, and until when Spotify lets that hold, in seconds since 1970. */
  authorized_at: number;
  reauth_by: number;
  /** Seconds until then, by the service's clock where it can be seen (the own origin), else by the browser's. */
  reauth_in: number;
}

export interface LoggedOut {
  authenticated: false;
  /** Spotify does not accept this login any more. */
  reauth_required?: true;
  login_url: string;
}

export type Session = LoggedIn | LoggedOut;

export interface Token {
  access_token: string;
  token_type: "Bearer";
  /** Seconds left at this moment. */
  expires_in: number;
  scope: string;
}

export interface ListedSession {
  /** For `logout({id})`. */
  id: string;
  current: boolean;
  /** Seconds since 1970; these are null where they are not known. */
  begun_at: number | null;
  last_used_at: number | null;
  /** Such as "Firefox on Linux". */
  user_agent: string | null;
}

export type Code =
  | "login_required"
  | "insufficient_scope"
  | "temporarily_unavailable"
  | "rate_limited"
  | "forbidden"
  | "invalid_request"
  | "not_found"
  | "method_not_allowed"
  | "request_too_large"
  | "invalid_scope"
  | "server_error";

/** Why the service did not do it. After `temporarily_unavailable` nobody is logged out, nothing is lost: try again. */
export class AuthError extends Error {
  readonly name: "AuthError";
  readonly code: Code | (string & {});
  /** Of HTTP; 0 when nothing answered. */
  readonly status: number;
  /** In so many seconds another try makes sense, where the service said so. */
  readonly retryAfter?: number;
  /** Where a login helps (`login_required`, `insufficient_scope`): go there, and it leads back to this page. */
  readonly loginUrl?: string;
}

export interface Events {
  /** Somebody is logged in who was not before, found by `session()` or told by another tab. */
  login: Event & {detail: LoggedIn};
  /** Whoever was logged in is so no more: by `logout()`, in another tab, or by a request that was refused. */
  logout: Event;
  /** Spotify will want a new login within two weeks. Once for each login, by `session()`. */
  "reauth-soon": Event & {detail: LoggedIn};
}

export class SpotifyAuth extends EventTarget {
  constructor(options?: Options);

  /** Leaves the page for Spotify. */
  login(options?: LoginOptions): void;

  /** The same as the address of a link. */
  loginUrl(options?: LoginOptions): string;

  /** Who is logged in. Rejects only when that cannot be known. */
  session(): Promise<Session>;

  /** All sessions of this user, the asking one first. */
  sessions(): Promise<ListedSession[]>;

  /** An access token that is good for half a minute at least, where Spotify's live that long. It is kept in memory and
   *  shared with other tabs of this origin, and asked for anew when it runs out: call this before each use. With a
   *  scope that was not granted it rejects with `insufficient_scope`. */
  token(options?: {scope?: string | string[]}): Promise<Token>;

  /** A new token; one that is younger than ten seconds stays. For when Spotify has refused the other. */
  refresh(): Promise<Token>;

  /** Ends this session, all of this user's, or the one with that id. */
  logout(options?: {all?: boolean; id?: string}): Promise<void>;

  /** Calls the Web API without a token in the browser: `fetch("me/playlists?limit=5")`; "/v1/me" and Spotify's own
   *  `next` links do as well. Resolves to what Spotify said, errors included; rejects with an AuthError when Spotify was
   *  not asked. A 401 is tried once more after a renewal. After a 429, or a 503 that is safe to repeat, it waits once,
   *  for at most 10 seconds of `Retry-After`, and tries again. */
  fetch(path: string | URL, init?: RequestInit): Promise<Response>;

  addEventListener<T extends keyof Events>(
    type: T,
    listener: ((event: Events[T]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
