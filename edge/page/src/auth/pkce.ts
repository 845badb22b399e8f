// Sign-in with an authorization code and PKCE (RFC 6749, RFC 7636), as a public client.

import type { SignIn } from "../api/types";
import { texts } from "../texts";
import type { Credential } from "./credential";

const PENDING = "parley.sign-in";

interface Pending {
  state: string;
  verifier: string;
  signIn: SignIn;
}

interface Metadata {
  issuer: string;
  authorization_endpoint: string;
  token_endpoint: string;
}

interface Tokens {
  access_token?: string;
  id_token?: string;
  expires_in?: number;
  error_description?: string;
}

function random(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

async function challenge(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

const redirectUri = () => `${location.origin}/`;

/** Reads an issuer's metadata, as an OpenID provider or as an authorization server (RFC 8414). */
async function metadataOf(issuer: string): Promise<Metadata> {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  const places = [
    `${origin}${path}/.well-known/openid-configuration`,
    `${origin}/.well-known/oauth-authorization-server${path}`,
  ];
  for (const place of places) {
    const response = await fetch(place).catch(() => null);
    if (!response?.ok) continue;
    const found = (await response.json()) as Metadata;
    if (found.issuer === issuer) return found;
  }
  throw new Error(texts.signIn.unreachable(issuer));
}

/** Leaves the page for the issuer, which sends the caller back to it. Throws if the issuer cannot be reached. */
export async function startSignIn(signIn: SignIn): Promise<void> {
  if (!window.isSecureContext) throw new Error(texts.signIn.insecure);
  const metadata = await metadataOf(signIn.issuer);
  const pending: Pending = { state: random(), verifier: random(), signIn };
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  const address = new URL(metadata.authorization_endpoint);
  const parameters: Record<string, string> = {
    ...signIn.parameters,
    response_type: "code",
    client_id: signIn.client_id,
    redirect_uri: redirectUri(),
    scope: signIn.scopes.join(" "),
    state: pending.state,
    code_challenge: await challenge(pending.verifier),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  location.assign(address);
}

/** Ends a sign-in if the caller comes back from an issuer; null otherwise. Throws if the sign-in has failed. */
export async function finishSignIn(): Promise<Credential | null> {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) return null;
  const text = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  history.replaceState(null, "", `/${location.hash}`); // the code stays in no history
  const pending = text ? (JSON.parse(text) as Pending) : null;
  if (pending?.state !== answer.get("state")) throw new Error(texts.signIn.unexpected);
  const code = answer.get("code");
  if (!code) throw new Error(answer.get("error_description") ?? answer.get("error") ?? texts.signIn.unexpected);
  return redeem(pending, code, answer.get("iss"));
}

async function redeem({ signIn, verifier }: Pending, code: string, issuer: string | null): Promise<Credential> {
  if (issuer !== null && issuer !== signIn.issuer) throw new Error(texts.signIn.unexpected); // RFC 9207
  const { token_endpoint } = await metadataOf(signIn.issuer);
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: redirectUri(),
    client_id: signIn.client_id,
    code_verifier: verifier,
    ...(signIn.parameters["resource"] && { resource: signIn.parameters["resource"] }),
  });
  const response = await fetch(token_endpoint, { method: "POST", body }).catch(() => null);
  const tokens = ((await response?.json().catch(() => null)) ?? {}) as Tokens;
  const value = signIn.id_token ? tokens.id_token : tokens.access_token;
  if (!value) throw new Error(tokens.error_description ?? texts.signIn.noToken(signIn.issuer));
  return { value, kind: "token", ...(tokens.expires_in && { expires: Date.now() + 1000 * tokens.expires_in }) };
}
