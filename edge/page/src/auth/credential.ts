// The caller's key or access token. It is kept for the tab, or in the browser if the caller chooses so.

const NAME = "parley.credential";

export interface Credential {
  value: string;
  kind: "key" | "token";
  /** Unix time in milliseconds after which a token is not valid. */
  expires?: number;
}

function stores(): Storage[] {
  return [sessionStorage, localStorage];
}

export function loadCredential(now: number = Date.now()): Credential | null {
  for (const store of stores()) {
    const text = store.getItem(NAME);
    if (!text) continue;
    const found = parse(text);
    if (found && (found.expires === undefined || found.expires > now)) return found;
    store.removeItem(NAME);
  }
  return null;
}

function parse(text: string): Credential | null {
  try {
    const found = JSON.parse(text) as Credential;
    return typeof found.value === "string" ? found : null;
  } catch {
    return null;
  }
}

export function saveCredential(credential: Credential, remember: boolean): void {
  removeCredential();
  (remember ? localStorage : sessionStorage).setItem(NAME, JSON.stringify(credential));
}

export function removeCredential(): void {
  for (const store of stores()) store.removeItem(NAME);
}
