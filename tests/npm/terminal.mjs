// A terminal program by openid-client: node terminal.mjs BASE FILE. It keeps the handle in FILE, shows the user code in
// FILE.code while it waits for a person, and prints the token.
import {existsSync, readFileSync, renameSync, writeFileSync} from "node:fs";
import * as client from "openid-client";

const [base, kept] = process.argv.slice(2);
const server = {issuer: new URL(base).origin, token_endpoint: base + "/api/token",
                device_authorization_endpoint: base + "/device"};
const configuration = new client.Configuration(server, "my-terminal", undefined, client.None());
client.allowInsecureRequests(configuration); // plain http, on loopback

async function logIn() {
  const codes = await client.initiateDeviceAuthorization(configuration, {});
  writeFileSync(kept + ".new", codes.user_code);
  renameSync(kept + ".new", kept + ".code");
  const token = await client.pollDeviceAuthorizationGrant(configuration, codes);
  writeFileSync(kept, token.refresh_token);
  return token;
}

async function renew() {
  return client.refreshTokenGrant(configuration, readFileSync(kept, "utf8"));
}

const token = existsSync(kept) ? await renew() : await logIn();
console.log(JSON.stringify({access_token: token.access_token, expires_in: token.expires_in}));
