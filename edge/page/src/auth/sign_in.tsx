// The view without a credential: a field for a key, and a button for each issuer.

import { useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { listModels } from "../api/server";
import type { Settings } from "../api/types";
import { texts } from "../texts";
import { Field } from "../ui/field";
import { Notice } from "../ui/notice";
import type { Credential } from "./credential";
import { startSignIn } from "./pkce";

interface Props {
  settings: Settings | null;
  failure: string | null;
  onSignedIn(credential: Credential, remember: boolean): void;
}

export function SignInView({ settings, failure, onSignedIn }: Props) {
  const [message, setMessage] = useState(failure);
  const [isBusy, setBusy] = useState(false);

  const attempt = async (action: () => Promise<void>) => {
    setBusy(true);
    setMessage(null);
    await action().catch((error: unknown) => setMessage(explain(error)));
    setBusy(false);
  };
  return (
    <main class="sign-in" id="main" tabIndex={-1}>
      <h1>{texts.signIn.title}</h1>
      <p>{texts.signIn.intro}</p>
      <KeyForm isBusy={isBusy} onKey={(key, remember) => attempt(() => check(key, remember, onSignedIn))} />
      {settings?.sign_in.map((one) => (
        <button type="button" key={one.issuer} disabled={isBusy} onClick={() => attempt(() => startSignIn(one))}>
          {texts.signIn.at(new URL(one.issuer).host)}
        </button>
      ))}
      {message && <Notice kind="error">{message}</Notice>}
      <p class="hint">
        {texts.signIn.hint} <code>{texts.signIn.command}</code>
      </p>
    </main>
  );
}

async function check(key: string, remember: boolean, onSignedIn: Props["onSignedIn"]): Promise<void> {
  await listModels(key);
  onSignedIn({ value: key, kind: "key" }, remember);
}

function explain(error: unknown): string {
  if (error instanceof ApiError && error.status === 401) return texts.signIn.wrongKey;
  return error instanceof Error ? error.message : String(error);
}

function KeyForm({ isBusy, onKey }: { isBusy: boolean; onKey(key: string, remember: boolean): void }) {
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(false);
  const submit = (event: Event) => {
    event.preventDefault();
    if (key.trim()) onKey(key.trim(), remember);
  };
  return (
    <form onSubmit={submit}>
      <Field label={texts.signIn.key}>
        {(id) => (
          <input
            id={id}
            type="password"
            name="key"
            autocomplete="current-password"
            spellcheck={false}
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
        )}
      </Field>
      <label class="check">
        <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
        {texts.signIn.remember}
      </label>
      <button type="submit" class="primary" disabled={isBusy || !key.trim()}>
        {texts.signIn.use}
      </button>
    </form>
  );
}
