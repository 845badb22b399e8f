// An OpenID provider, `oidc-provider`, on a free port of 127.0.0.1: clients for users with PKCE, of which the page is one, and one for services. Its
// access tokens for the resource in argument 1 are JWTs. Prints its URL. Each line of stdin replaces its key.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";

const [audience] = process.argv.slice(-1);
const clients = [
  {
    client_id: "web",
    token_endpoint_auth_method: "none",
    application_type: "native",
    redirect_uris: ["http://127.0.0.1/callback"],
  },
  {
    client_id: "page",
    token_endpoint_auth_method: "none",
    application_type: "native",
    redirect_uris: ["http://127.0.0.1/"],
  },
  {
    client_id: "robot",
    client_secret: "robot-secret",
    grant_types: ["client_credentials"],
    response_types: [],
    redirect_uris: [],
  },
];
const resource = {
  scope: "parley:chat email profile",
  audience: "parley",
  accessTokenFormat: "jwt",
  accessTokenTTL: 600,
  jwt: { sign: { alg: "ES256" } },
};

function provider(issuer) {
  const kid = `key-${Math.random().toString(36).slice(2)}`;
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = { ...privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "ES256" };
  return new Provider(issuer, {
    clients,
    jwks: { keys: [key] },
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    clientBasedCORS: () => true,
    cookies: { keys: ["secret"] },
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: () => resource,
        useGrantedResource: () => true,
      },
    },
  }).callback();
}

let serve;
const server = createServer((request, response) => serve(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const publish = () => {
    serve = provider(issuer);
    process.stdout.write(`${issuer}\n`);
  };
  publish();
  const lines = createInterface({ input: process.stdin });
  lines.on("line", publish);
  lines.on("close", () => process.exit(0));
});
