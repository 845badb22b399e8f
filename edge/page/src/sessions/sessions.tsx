// The account's sessions: search, open, export, delete; forks are below their origin.

import { useEffect, useState } from "preact/hooks";
import { deleteSession, exportSession, listSessions } from "../api/server";
import type { Session } from "../api/types";
import type { ViewProps } from "../app";
import { texts } from "../texts";
import { Field } from "../ui/field";
import { matching, treesOf, type Node } from "./tree";

export function Sessions({ credential, onFailure }: ViewProps) {
  const [sessions, setSessions] = useState<Session[] | null>(null);
  const [next, setNext] = useState("");
  const [text, setText] = useState("");
  const load = (token: string) =>
    listSessions(credential, token).then((page) => {
      setSessions((known) => [...(token ? (known ?? []) : []), ...page.sessions]);
      setNext(page.next_page_token ?? "");
    }, onFailure);
  useEffect(() => void load(""), [credential]);
  if (!sessions) return <p class="loading">{texts.loading}</p>;
  const actions: Actions = {
    onExport: (session) => void exportSession(credential, session.id).then((file) => save(file, session.id), onFailure),
    onDelete: (session) => {
      if (!confirm(texts.sessions.confirm(session.id))) return;
      const forget = () => setSessions((known) => (known ?? []).filter(({ id }) => id !== session.id));
      void deleteSession(credential, session.id).then(forget, onFailure);
    },
  };
  return (
    <div class="sessions">
      <Field label={texts.sessions.search}>
        {(id) => <input id={id} type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} />}
      </Field>
      <p role="status">{texts.sessions.count(matching(sessions, text).length)}</p>
      <Nodes nodes={treesOf(matching(sessions, text))} actions={actions} />
      {next && (
        <button type="button" onClick={() => void load(next)}>
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

function Row({ session, onExport, onDelete }: { session: Session } & Actions) {
  const { sessions: words } = texts;
  const updated = new Date(1000 * session.updated);
  return (
    <div class="session">
      <a href={`#/playground/${session.id}`}>{session.title || words.untitled(session.model)}</a>
      <span class="hint">
        {session.model} · {words.turns(session.turn_count ?? 0)} ·{" "}
        <time dateTime={updated.toISOString()}>{words.time(updated)}</time>
      </span>
      <span class="hint id">{session.id}</span>
      <div class="row">
        <button type="button" class="quiet" aria-label={words.exportOf(session.id)} onClick={() => onExport(session)}>
          {words.export}
        </button>
        <button type="button" class="quiet" aria-label={words.deleteOf(session.id)} onClick={() => onDelete(session)}>
          {words.delete}
        </button>
      </div>
    </div>
  );
}
