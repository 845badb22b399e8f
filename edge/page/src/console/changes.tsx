// Changes: the last reload of the configuration, and the audit log.

import { useState } from "preact/hooks";
import { withoutDirections } from "../markdown/links";
import { consoleTexts, texts } from "../texts";
import { Notice } from "../ui/notice";
import { Table, Text, type Column } from "./table";
import type { AuditEvent, LastReload } from "./types";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

const PAGE_SIZE = 50;
const EVERY_MS = 2_000;

interface Page {
  events?: AuditEvent[];
  next_page_token?: string;
}

export function Changes({ call, operations, onFailure, change }: ViewProps) {
  const { changes: words } = consoleTexts;
  /** The events of the pages behind the first one. */
  const [later, setLater] = useState<Page | null>(null);
  const { value, reload } = useLoaded(() => call<Page>("AuditLog/ListAuditEvents", { page_size: PAGE_SIZE }), [call], onFailure);
  const renew = () => {
    setLater(null);
    reload();
  };
  if (!value) return <p class="loading">{texts.loading}</p>;
  const next = (later ?? value).next_page_token;
  const more = () =>
    call<Page>("AuditLog/ListAuditEvents", { page_size: PAGE_SIZE, page_token: next }).then(
      (page) => setLater((known) => ({ ...page, events: [...(known?.events ?? []), ...(page.events ?? [])] })),
      onFailure,
    );
  return (
    <>
      {operations && <Reload call={call} onFailure={onFailure} change={change} onDone={renew} />}
      <section aria-labelledby="audit">
        <h2 id="audit">{words.audit}</h2>
        <Table label={words.audit} columns={COLUMNS} rows={[...(value.events ?? []), ...(later?.events ?? [])]} keyOf={({ id }) => id} empty={words.none} />
        {next && (
          <button type="button" onClick={() => void more()}>
            {texts.sessions.more}
          </button>
        )}
      </section>
    </>
  );
}

const COLUMNS: Column<AuditEvent>[] = [
  { name: consoleTexts.changes.time, show: ({ time }) => consoleTexts.moment(new Date(1000 * time).toISOString()) },
  { name: consoleTexts.changes.actor, show: ({ actor, source }) => <><Text>{actor}</Text><small class="hint block"><Text>{source}</Text></small></> },
  { name: consoleTexts.changes.method, show: ({ method }) => method },
  { name: consoleTexts.changes.subject, show: ({ subject }) => <Text>{subject}</Text> },
  {
    name: consoleTexts.changes.fields,
    show: ({ changes = [] }) => (
      <ul class="plain">
        {changes.map(({ field, before, after }) => (
          <li key={field}>
            <Text>{consoleTexts.changes.from(field, plain(before), plain(after))}</Text>
          </li>
        ))}
      </ul>
    ),
  },
];

function plain(value: unknown): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function Reload({ call, onFailure, change, onDone }: Pick<ViewProps, "call" | "onFailure" | "change"> & { onDone(): void }) {
  const { changes: words } = consoleTexts;
  const { value, reload } = useLoaded(() => call<LastReload>("Operations/GetLastReload"), [call], onFailure, EVERY_MS);
  const request = () =>
    void change(words.reloadQuestion, () => call("Operations/Reload"), words.requested).then((isMade) => {
      if (!isMade) return;
      reload();
      onDone();
    });
  return (
    <section aria-labelledby="reload">
      <h2 id="reload">{words.configuration}</h2>
      {value && <Outcome reload={value} />}
      <button type="button" onClick={request} disabled={value?.running}>
        {words.reload}
      </button>
    </section>
  );
}

function Outcome({ reload: { time, running, error, changes = [] } }: { reload: LastReload }) {
  const { changes: words } = consoleTexts;
  if (time === undefined) return <p class="hint">{words.noReload}</p>;
  const began = consoleTexts.moment(new Date(1000 * time).toISOString());
  if (running) return <p role="status">{words.running(began)}</p>;
  if (error) {
    return (
      <Notice kind="error">
        {words.failed(began)}
        <pre>{withoutDirections(error)}</pre>
      </Notice>
    );
  }
  return <p role="status">{words.succeeded(began, changes)}</p>;
}
