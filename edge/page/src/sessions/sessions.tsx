// The account's sessions: search, open, rename, export, delete; forks are below their origin.

import { useState } from "preact/hooks";
import { exportSession, type SessionChange } from "../api/server";
import type { Session } from "../api/types";
import type { ViewProps } from "../app";
import { withoutDirections } from "../markdown/links";
import { addressOf } from "../routes";
import { texts } from "../texts";
import { Field } from "../ui/field";
import { useFocusAfter } from "../ui/focus";
import { PropertiesForm } from "./properties_form";
import { treesOf, type Node } from "./tree";
import { useSessions } from "./use_sessions";

export function Sessions({ credential, onFailure }: ViewProps) {
  const [text, setText] = useState("");
  const { shown, isSearching, more, update, remove } = useSessions(credential, text, onFailure);
  if (!shown) return <p class="loading">{texts.loading}</p>;
  const actions: Actions = {
    onChange: update,
    onExport: (session) => void exportSession(credential, session.id).then((file) => save(file, session.id), onFailure),
    onDelete: (session) => confirm(texts.sessions.confirm(session.id)) && remove(session),
  };
  return (
    <div class="sessions">
      <Field label={texts.sessions.search} hint={texts.sessions.searchHint}>
        {(id, describedBy) => (
          <input
            id={id}
            type="search"
            aria-describedby={describedBy}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        )}
      </Field>
      <p role="status">{isSearching ? texts.sessions.searching : texts.sessions.count(shown.length)}</p>
      <Nodes nodes={treesOf(shown)} actions={actions} />
      {more && (
        <button type="button" onClick={more}>
          {texts.sessions.more}
        </button>
      )}
    </div>
  );
}

/** Has the browser save a file. */
function save(file: Blob, session: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${session}.jsonl`;
  link.click();
  URL.revokeObjectURL(link.href);
}

interface Actions {
  /** Returns whether the session was changed. */
  onChange(session: Session, change: SessionChange): Promise<boolean>;
  onExport(session: Session): void;
  onDelete(session: Session): void;
}

function Nodes({ nodes, actions }: { nodes: Node[]; actions: Actions }) {
  if (!nodes.length) return null;
  return (
    <ul>
      {nodes.map(({ session, forks }) => (
        <li key={session.id}>
          <Row session={session} {...actions} />
          <Nodes nodes={forks} actions={actions} />
        </li>
      ))}
    </ul>
  );
}

function Row({ session, onChange, onExport, onDelete }: { session: Session } & Actions) {
  const { sessions: words } = texts;
  const [isEdited, setEdited] = useState(false);
  const edit = useFocusAfter(isEdited);
  const name = session.title || words.untitled(session.model);
  if (isEdited) {
    const save = (change: SessionChange) => void onChange(session, change).then((isDone) => setEdited(!isDone));
    return <PropertiesForm session={session} onSave={save} onCancel={() => setEdited(false)} />;
  }
  return (
    <div class="session">
      <a href={addressOf(session.id)} dir="auto">
        {withoutDirections(name)}
      </a>
      <Properties session={session} />
      <div class="row">
        <button ref={edit} type="button" class="quiet" aria-label={words.editOf(name)} onClick={() => setEdited(true)}>
          {words.edit}
        </button>
        <button type="button" class="quiet" aria-label={words.exportOf(name)} onClick={() => onExport(session)}>
          {words.export}
        </button>
        <button type="button" class="quiet" aria-label={words.deleteOf(name)} onClick={() => onDelete(session)}>
          {words.delete}
        </button>
      </div>
    </div>
  );
}

/** The model, the number of turns, the time, the labels and the id of a session. */
function Properties({ session: { id, model, turn_count: count, updated, labels, forked_from: origin } }: { session: Session }) {
  const { sessions: words } = texts;
  const time = new Date(1000 * updated);
  return (
    <>
      <span class="hint">
        {model} · {words.turns(count ?? 0)} · <time dateTime={time.toISOString()}>{words.time(time)}</time>
        {origin && ` · ${words.fork}`}
        {Object.entries(labels ?? {}).map(([name, value]) => (
          <span key={name} class="label">
            {withoutDirections(`${name}=${value}`)}
          </span>
        ))}
      </span>
      <span class="hint id">{id}</span>
    </>
  );
}
