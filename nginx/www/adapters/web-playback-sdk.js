// For the Web Playback SDK. Types are in web-playback-sdk.d.ts.
export const SCOPE = "streaming user-read-email user-read-private";

// The SDK waits until it is given a token, and cannot be told that there is none.
export function getOAuthToken(auth, onError = console.error) {
  return function give(done) {
    auth.token({scope: SCOPE}).then(({access_token}) => done(access_token), (error) => {
      if (error.code === "temporarily_unavailable") setTimeout(give, (error.retryAfter ?? 5) * 1000, done);
      else onError(error);
    });
  };
}
