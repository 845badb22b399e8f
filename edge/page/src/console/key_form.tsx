// The settings of a key, in a form.

import { useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { Field } from "../ui/field";
import { Notice } from "../ui/notice";
import { dayOf, expiryOf, type KeySettings } from "./key_change";
import { KEY_LIMITS, LimitFields, limitsOf, textsOf } from "./limit_fields";
import type { Key } from "./types";

const SCOPES = ["chat", "sessions:read", "sessions:write", "models"] as const;

/** Splits lines of text. */
function linesOf(text: string): string[] {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

interface Props {
  known: Key | null;
  onSave(settings: KeySettings, onRefused: (reason: string) => void): void;
}

export function KeyForm({ known, onSave }: Props) {
  const { keys: words } = consoleTexts;
  const [name, setName] = useState(known?.name ?? "");
  const [account, setAccount] = useState(known?.account ?? "default");
  const [models, setModels] = useState((known?.models ?? []).join("\n"));
  const [scopes, setScopes] = useState<string[]>(known?.scopes ?? []);
  const [day, setDay] = useState(dayOf(known?.expires));
  const [limits, setLimits] = useState(textsOf(known?.limits));
  const [refusal, setRefusal] = useState<string | null>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    const expires = expiryOf(day, known?.expires);
    const settings = { name, account, models: linesOf(models), scopes, limits: limitsOf(limits) };
    setRefusal(null);
    onSave(expires === undefined ? settings : { ...settings, expires }, setRefusal);
  };
  const toggle = (scope: string, isChosen: boolean) =>
    setScopes(SCOPES.filter((one) => (one === scope ? isChosen : scopes.includes(one))));
  return (
    <form class="stack" onSubmit={submit}>
      <div class="fields">
        <Field label={words.name}>
          {(id) => <input id={id} required maxLength={128} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label={words.account}>
          {(id) => (
            <input id={id} required maxLength={128} disabled={known !== null} value={account} onInput={(event) => setAccount(event.currentTarget.value)} />
          )}
        </Field>
        <Field label={words.expires} hint={words.expiresHint}>
          {(id, described) => (
            <input id={id} type="date" aria-describedby={described} value={day} onInput={(event) => setDay(event.currentTarget.value)} />
          )}
        </Field>
      </div>
      <fieldset>
        <legend>{words.scopes}</legend>
        <div class="row">
          {SCOPES.map((scope) => (
            <label key={scope} class="check">
              <input type="checkbox" checked={scopes.includes(scope)} onChange={(event) => toggle(scope, event.currentTarget.checked)} />
              {scope}
            </label>
          ))}
        </div>
        <small class="hint">{words.scopesHint}</small>
      </fieldset>
      <Field label={words.models} hint={words.modelsHint}>
        {(id, described) => (
          <textarea id={id} rows={3} aria-describedby={described} value={models} onInput={(event) => setModels(event.currentTarget.value)} />
        )}
      </Field>
      <LimitFields names={KEY_LIMITS} values={limits} otherwise={consoleTexts.limits.configured} onChange={setLimits} />
      {refusal && <Notice kind="error">{refusal}</Notice>}
      <button type="submit" class="primary">
        {known ? texts.sessions.save : words.create}
      </button>
    </form>
  );
}
