// For the Web Playback SDK. Types are in web-playback-sdk.d.ts.
export const SCOPE = "streaming user-read-email user-read-private";

// The SDK waits until it is given a token, and cannot be told that there is none.
export function getOAuthToken(auth, onError = console.error) {
  return function give(done) {
    auth.token({scope: SCOPE}).then(({access_token}) => done(access_token), (error) => {
      const {code, retryAfter = 5} = error;
      if (code === "temporarily_unavailable" || code === "rate_limited") setTimeout(give, retryAfter * 1000, done);
      else onError(error);
    });
  };
}
