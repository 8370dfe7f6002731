// For @spotify/web-api-ts-sdk. Types are in web-api-ts-sdk.d.ts.

function strategy(auth, getOrCreateAccessToken) {
  return {
    setConfiguration() {},
    getOrCreateAccessToken,
    getAccessToken: () => getOrCreateAccessToken().catch((error) => {
      if (error.code === "login_required") return null;
      throw error;
    }),
    removeAccessToken: () => void auth.logout().catch(() => {}), // whether it succeeded, the event `logout` tells
  };
}

// The SDK asks before each call, so it keeps no token; and it never gets anything to renew one with.
export function authStrategy(auth) {
  return strategy(auth, async () => {
    const token = await auth.token();
    return {...token, refresh_token: "", expires: Date.now() + token.expires_in * 1000};
  });
}

export function throughProxy(auth) {
  const nothing = {access_token: "", token_type: "Bearer", expires_in: 3600, refresh_token: ""};
  return [strategy(auth, async () => ({...nothing, expires: Date.now() + 3600000})), {
    fetch(url, {headers: {Authorization, ...headers}, ...init}) {
      return auth.fetch(url, {...init, headers});
    },
  }];
}
