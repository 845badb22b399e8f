// The latest log lines of calls, those of one request, and the log level.

import { useEffect, useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { CopyButton } from "../ui/copy";
import { Field } from "../ui/field";
import type { Call } from "./admin";
import { logOf } from "./routes";
import { Silent } from "./silent";
import { Table, Text, type Column } from "./table";
import type { LogLevel, LogLine, OfWorkers } from "./types";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

const LEVELS = ["debug", "info", "warning", "error"] as const;
const MOST = 200;
const LEVEL_SECONDS = 600;

interface Line extends LogLine {
  fields: Record<string, unknown>;
}

async function readLines(call: Call, id: string | null): Promise<{ lines: Line[]; silent: string[] }> {
  const request = { max_lines: MOST, ...(id && { request_id: id }) };
  const answer = await call<{ lines?: LogLine[] } & OfWorkers>("Operations/ListCallLogLines", request);
  const lines = (answer.lines ?? []).map((line) => ({ ...line, fields: JSON.parse(line.line) as Line["fields"] }));
  return { lines, silent: answer.unreachable_workers ?? [] };
}

export function Log({ call, id, onFailure, change }: ViewProps) {
  const { log: words } = consoleTexts;
  const [text, setText] = useState(id ?? "");
  useEffect(() => setText(id ?? ""), [id]);
  const [turn, setTurn] = useState(0);
  const search = (event: Event) => {
    event.preventDefault();
    location.hash = text.trim() ? logOf(text.trim()) : "#/log";
  };
  return (
    <>
      <form class="row bar" onSubmit={search}>
        <Field label={words.request} hint={words.requestHint}>
          {(field, described) => (
            <input id={field} type="search" aria-describedby={described} value={text} onInput={(event) => setText(event.currentTarget.value)} />
          )}
        </Field>
        <button type="submit" class="primary">
          {words.find}
        </button>
        <button type="button" onClick={() => setTurn(turn + 1)}>
          {words.refresh}
        </button>
        <Level call={call} onFailure={onFailure} change={change} />
      </form>
      <Found key={id} call={call} id={id} turn={turn} onFailure={onFailure} />
    </>
  );
}

function Found({ call, id, turn, onFailure }: Pick<ViewProps, "call" | "id" | "onFailure"> & { turn: number }) {
  const { value } = useLoaded(() => readLines(call, id), [call, turn], onFailure);
  const [isEveryone, setEveryone] = useState(false);
  if (!value) return <p class="loading">{texts.loading}</p>;
  // The calls of the console itself have an actor.
  const lines = value.lines.filter(({ fields }) => id || isEveryone || !("actor" in fields));
  return (
    <>
      <Silent workers={value.silent} />
      {!id && (
        <label class="check">
          <input type="checkbox" checked={isEveryone} onChange={(event) => setEveryone(event.currentTarget.checked)} />
          {consoleTexts.log.administrators}
        </label>
      )}
      <p role="status">{consoleTexts.log.count(lines.length)}</p>
      {id ? <Details lines={lines} /> : <Latest lines={lines} />}
    </>
  );
}

/** Returns a field of a line as text; nothing if the line has no such field. */
function textOf(fields: Line["fields"], name: string): string | undefined {
  const value = fields[name];
  return value === undefined || value === null ? undefined : String(value);
}

function Latest({ lines }: { lines: Line[] }) {
  const { log: words } = consoleTexts;
  const columns: Column<Line>[] = [
    { name: words.time, show: ({ time }) => <time dateTime={time}>{consoleTexts.moment(time)}</time> },
    { name: words.request, show: ({ request_id: id }) => <a class="id" href={logOf(id)}><Text>{id}</Text></a> },
    { name: words.event, show: ({ fields }) => <Text>{textOf(fields, "method") ?? textOf(fields, "event")}</Text> },
    { name: words.status, show: ({ fields }) => <Status fields={fields} /> },
    { name: words.duration, isNumber: true, show: ({ fields }) => (typeof fields["ms"] === "number" ? words.milliseconds(fields["ms"]) : "") },
    { name: words.account, show: ({ fields }) => <Text>{textOf(fields, "account") ?? textOf(fields, "actor")}</Text> },
    { name: words.model, show: ({ fields }) => <Text>{textOf(fields, "model")}</Text> },
  ];
  return <Table label={words.latest} columns={columns} rows={lines} keyOf={({ time, worker }) => `${worker} ${time}`} empty={words.none} />;
}

function Status({ fields }: { fields: Line["fields"] }) {
  const status = textOf(fields, "status") ?? textOf(fields, "level") ?? "";
  const reason = textOf(fields, "reason");
  return (
    <>
      <span class={status === "OK" ? "badge good" : "badge bad"}>{status}</span>
      {reason && <small class="hint block"><Text>{reason}</Text></small>}
    </>
  );
}

function Details({ lines }: { lines: Line[] }) {
  const { log: words } = consoleTexts;
  return (
    <>
      <p>
        <a href="#/log">{words.all}</a>
      </p>
      {lines.length === 0 && <p class="hint">{words.noneOf}</p>}
      {lines.map((line) => (
        <section key={`${line.worker} ${line.time}`} class="line" aria-label={words.lineOf(line.worker, line.time)}>
          <h2>
            {words.lineOf(line.worker, line.time)} <CopyButton text={line.line} label={words.copy} />
          </h2>
          <dl>
            {Object.entries(line.fields).map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>
                  <Text>{typeof value === "string" ? value : JSON.stringify(value, null, 1)}</Text>
                </dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </>
  );
}

function Level({ call, onFailure, change }: Pick<ViewProps, "call" | "onFailure" | "change">) {
  const { log: words } = consoleTexts;
  const { value, reload } = useLoaded(() => call<LogLevel>("Operations/GetLogLevel"), [call], onFailure);
  if (!value) return null;
  const set = (level: string) => {
    const request = level === value.configured ? {} : { level, until: Math.floor(Date.now() / 1000) + LEVEL_SECONDS };
    void change(words.levelQuestion(level, level === value.configured), () => call("Operations/SetLogLevel", request), words.levelSet(level)).then(reload);
  };
  return (
    <Field label={words.level} hint={words.levelHint(value.configured)}>
      {(id, described) => (
        <select
          id={id}
          aria-describedby={described}
          value={value.level}
          onChange={({ currentTarget }) => {
            const level = currentTarget.value;
            currentTarget.value = value.level; // until it is set
            set(level);
          }}
        >
          {LEVELS.map((level) => (
            <option key={level} value={level}>
              {level}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}
