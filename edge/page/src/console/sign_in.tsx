// The view without a credential: a field for an admin key, and with mTLS a button for the certificate of the browser.

import { useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { consoleTexts, texts } from "../texts";
import { Field } from "../ui/field";
import { Notice } from "../ui/notice";
import { caller } from "./admin";

interface Props {
  hasCertificates: boolean;
  failure: string | null;
  onSignedIn(key: string, isKept: boolean): void;
}

export function SignIn({ hasCertificates, failure, onSignedIn }: Props) {
  const { signIn: words } = consoleTexts;
  const [key, setKey] = useState("");
  const [isKept, setKept] = useState(false);
  const [message, setMessage] = useState(failure);
  const [isBusy, setBusy] = useState(false);
  const attempt = async (found: string) => {
    setBusy(true);
    setMessage(null);
    const problem = await caller(found)("Accounts/ListPlans").then(() => null, explain);
    if (problem === null) onSignedIn(found, isKept);
    else {
      setMessage(problem);
      setBusy(false);
    }
  };
  const submit = (event: Event) => {
    event.preventDefault();
    if (key.trim()) void attempt(key.trim());
  };
  return (
    <main class="sign-in" id="main" tabIndex={-1}>
      <h1>{texts.signIn.title}</h1>
      <p>{words.intro}</p>
      <form onSubmit={submit}>
        <Field label={words.key}>
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
          <input type="checkbox" checked={isKept} onChange={(event) => setKept(event.currentTarget.checked)} />
          {texts.signIn.remember}
        </label>
        <button type="submit" class="primary" disabled={isBusy || !key.trim()}>
          {texts.signIn.use}
        </button>
      </form>
      {hasCertificates && (
        <button type="button" disabled={isBusy} onClick={() => void attempt("")}>
          {words.certificate}
        </button>
      )}
      {message && <Notice kind="error">{message}</Notice>}
      <p class="hint">
        {words.hint} <code>admin.keys</code>
      </p>
    </main>
  );
}

function explain(error: unknown): string {
  if (error instanceof ApiError && error.status === 401) return consoleTexts.signIn.wrong;
  return error instanceof Error ? error.message : String(error);
}
