// What tsc --strict has to accept of spotify-auth.d.ts, and to refuse.
import {AuthError, SpotifyAuth, type Session, type Token} from "../../nginx/www/spotify-auth.js";

const auth = new SpotifyAuth({base: "https://auth.example.com/auth"});

export async function use(): Promise<string | null> {
  const session: Session = await auth.session();
  if (!session.authenticated) {
    auth.login({returnTo: "/", scope: ["user-read-private"], showDialog: true});
    // @ts-expect-error nobody has no name
    return session.user;
  }
  const token: Token = await auth.token({scope: "user-read-private"});
  const answer: Response = await auth.fetch("me", {method: "GET"});
  for (const one of await auth.sessions()) if (!one.current && one.id) await auth.logout({id: one.id});
  await auth.logout({all: true});
  // @ts-expect-error the refresh token is nobody's
  token.refresh_token;
  return answer.ok ? session.user.display_name : token.access_token;
}

auth.addEventListener("login", ({detail}) => detail.user.id);
auth.addEventListener("logout", () => auth.loginUrl());
auth.addEventListener("reauth-soon", ({detail}) => detail.reauth_in / 86400);
// @ts-expect-error there is no detail in a logout
auth.addEventListener("logout", ({detail}) => detail);

export function explain(error: unknown): string {
  if (!(error instanceof AuthError)) throw error;
  if (error.code === "temporarily_unavailable") return `again in ${error.retryAfter ?? 5} s`;
  // @ts-expect-error what happened is not to be changed
  error.status = 200;
  return error.loginUrl ?? error.message;
}
