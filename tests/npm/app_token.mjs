// The app's token by openid-client: node app_token.mjs TOKEN_ENDPOINT NAME SECRET prints the answer, or the error.
import * as client from "openid-client";

const [endpoint, name, secret] = process.argv.slice(2);
const server = {issuer: new URL(endpoint).origin, token_endpoint: endpoint};
const configuration = new client.Configuration(server, name, secret, client.ClientSecretBasic(secret));
client.allowInsecureRequests(configuration); // plain http, on loopback
try {
  console.log(JSON.stringify(await client.clientCredentialsGrant(configuration)));
} catch (error) {
  console.log(JSON.stringify({error: error.error ?? error.code, status: error.status, challenges: error.cause}));
}
