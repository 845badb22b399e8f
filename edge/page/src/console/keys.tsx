// API keys: list, create, change, rotate, revoke.

import { useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { CopyButton } from "../ui/copy";
import { Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { all } from "./admin";
import { Cut } from "./cut";
import { changeOf, type KeySettings } from "./key_change";
import { KeyForm } from "./key_form";
import { Table, Text, type Column } from "./table";
import type { Key } from "./types";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

/** What is open over the list: a form for a new key or a change, or a secret that is shown once. */
type Open = { kind: "form"; key: Key | null } | { kind: "secret"; name: string; secret: string } | null;

export function Keys({ call, onFailure, change }: ViewProps) {
  const { keys: words } = consoleTexts;
  const [filter, setFilter] = useState("");
  const [open, setOpen] = useState<Open>(null);
  const { value, reload } = useLoaded(() => all<Key>(call, "Keys/ListKeys", "keys"), [call], onFailure);
  if (!value) return <p class="loading">{texts.loading}</p>;
  const reveal = ({ key, secret }: { key: Key; secret: string }) => setOpen({ kind: "secret", name: key.name, secret });
  const save = async (key: Key | null, settings: KeySettings, onRefused: (reason: string) => void) => {
    const changed = key && changeOf(key, settings);
    if (key && !changed) return setOpen(null);
    const question = key ? words.changeQuestion(key.name) : words.createQuestion(settings.name, settings.account);
    const action = async () => {
      if (changed) return call("Keys/UpdateKey", changed);
      return call<{ key: Key; secret: string }>("Keys/CreateKey", { key: settings }).then(reveal);
    };
    if (!(await change(question, action, key ? words.changed(key.name) : words.created(settings.name), onRefused))) return;
    if (key) setOpen(null);
    reload();
  };
  const rotate = (key: Key) => {
    const action = () => call<{ key: Key; secret: string }>("Keys/RotateKey", { id: key.id }).then(reveal);
    void change(words.rotateQuestion(key.name), action, words.rotated(key.name)).then(reload);
  };
  const revoke = (key: Key) =>
    void change(words.revokeQuestion(key.name), () => call("Keys/RevokeKey", { id: key.id }), words.revoked(key.name)).then(reload);
  const found = value.found.filter((key) => [key.id, key.name, key.account].some((text) => text.toLowerCase().includes(filter.toLowerCase())));
  const actions = { onEdit: (key: Key) => setOpen({ kind: "form", key }), onRotate: rotate, onRevoke: revoke };
  return (
    <>
      <div class="row bar">
        <Field label={words.filter}>
          {(id) => <input id={id} type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />}
        </Field>
        <button type="button" class="primary" onClick={() => setOpen({ kind: "form", key: null })}>
          {words.create}
        </button>
      </div>
      <Cut is={value.isCut} text={words.cut} />
      <p role="status">{words.count(found.length)}</p>
      <Table label={consoleTexts.views.keys} columns={columnsOf(actions)} rows={[...found].reverse()} keyOf={({ id }) => id} empty={words.none} />
      {open?.kind === "form" && (
        <Dialog title={open.key ? words.editOf(open.key.name) : words.create} onClose={() => setOpen(null)}>
          <KeyForm known={open.key} onSave={(settings, onRefused) => void save(open.key, settings, onRefused)} />
        </Dialog>
      )}
      {open?.kind === "secret" && (
        <Dialog title={words.secretOf(open.name)} onClose={() => setOpen(null)}>
          <p>{words.once}</p>
          <p class="row">
            <code class="secret">{open.secret}</code>
            <CopyButton text={open.secret} label={words.copy} />
          </p>
        </Dialog>
      )}
    </>
  );
}

interface Actions {
  onEdit(key: Key): void;
  onRotate(key: Key): void;
  onRevoke(key: Key): void;
}

function columnsOf(actions: Actions): Column<Key>[] {
  const { keys: words } = consoleTexts;
  return [
    { name: words.name, show: ({ name, id }) => <><Text>{name}</Text><small class="hint block id">{id}</small></> },
    { name: words.account, show: ({ account }) => <Text>{account}</Text> },
    { name: words.state, show: ({ state }) => <span class={state === "KEY_STATE_ACTIVE" ? "badge good" : "badge"}>{words.states[state]}</span> },
    { name: words.may, show: ({ scopes = [], models = [] }) => <Text>{words.rights(scopes, models)}</Text> },
    { name: words.limits, show: ({ limits = {} }) => <small>{consoleTexts.limits.list(limits)}</small> },
    { name: words.expires, show: ({ expires }) => (expires === undefined ? words.never : consoleTexts.day(expires)) },
    { name: consoleTexts.actions, show: (key) => <KeyActions row={key} {...actions} /> },
  ];
}

function KeyActions({ row, onEdit, onRotate, onRevoke }: { row: Key } & Actions) {
  const { keys: words } = consoleTexts;
  if (row.state === "KEY_STATE_REVOKED") return null;
  return (
    <div class="row">
      <button type="button" class="quiet" aria-label={words.editOf(row.name)} onClick={() => onEdit(row)}>
        {words.edit}
      </button>
      {row.state === "KEY_STATE_ACTIVE" && (
        <button type="button" class="quiet" aria-label={words.rotateOf(row.name)} onClick={() => onRotate(row)}>
          {words.rotate}
        </button>
      )}
      <button type="button" class="quiet" aria-label={words.revokeOf(row.name)} onClick={() => onRevoke(row)}>
        {words.revoke}
      </button>
    </div>
  );
}
