// The running service: targets with their breakers, and calls in progress.

import { useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { Dialog } from "../ui/dialog";
import { NumberField } from "../ui/field";
import { useFocusKept } from "../ui/focus";
import { logOf } from "./routes";
import { Silent } from "./silent";
import { Table, Text, type Column } from "./table";
import type { OfWorkers, RunningCall, Target } from "./types";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

const EVERY_MS = 2_000;

interface State {
  targets: Target[];
  calls: RunningCall[];
  silent: string[];
}

async function readState(call: ViewProps["call"]): Promise<State> {
  const [first, second] = await Promise.all([
    call<{ targets?: Target[] } & OfWorkers>("Operations/ListTargets"),
    call<{ calls?: RunningCall[] } & OfWorkers>("Operations/ListCalls"),
  ]);
  const silent = [...(first.unreachable_workers ?? []), ...(second.unreachable_workers ?? [])];
  return { targets: first.targets ?? [], calls: second.calls ?? [], silent: [...new Set(silent)] };
}

export function Live({ call, onFailure, change }: ViewProps) {
  const { live: words } = consoleTexts;
  const { value, reload } = useLoaded(() => readState(call), [call], onFailure, EVERY_MS);
  const [weighed, setWeighed] = useState<Target | null>(null);
  const [ofTargets, ofCalls] = [useFocusKept<HTMLElement>(), useFocusKept<HTMLElement>()];
  if (!value) return <p class="loading">{texts.loading}</p>;
  const steer = (question: string, method: string, request: object, done: string) =>
    void change(question, () => call(`Operations/${method}`, request), done).then(reload);
  const targets: Column<Target>[] = [
    { name: words.target, show: ({ name, models }) => <><Text>{name}</Text><Models models={models ?? []} name={name} /></> },
    { name: words.breaker, show: (target) => <Breaker target={target} /> },
    { name: words.calls, isNumber: true, show: loadOf },
    { name: words.weight, isNumber: true, show: weightOf },
    {
      name: consoleTexts.actions,
      show: (target) => (
        <div class="row">
          <Switch target={target} steer={steer} />
          <button type="button" class="quiet" aria-label={words.weightOf(target.name)} onClick={() => setWeighed(target)}>
            {words.setWeight}
          </button>
        </div>
      ),
    },
  ];
  return (
    <>
      <Silent workers={value.silent} />
      <section aria-labelledby="targets" {...ofTargets}>
        <h2 id="targets" tabIndex={-1}>{words.targets}</h2>
        <Table label={words.targets} columns={targets} rows={value.targets} keyOf={({ name }) => name} empty={words.noTargets} />
      </section>
      <section aria-labelledby="calls" {...ofCalls}>
        <h2 id="calls" tabIndex={-1}>{words.running(value.calls.length)}</h2>
        <Calls calls={value.calls} onCancel={(id) => steer(words.cancelQuestion(id), "CancelCall", { request_id: id }, words.cancelled(id))} />
      </section>
      {weighed && (
        <WeightDialog
          target={weighed}
          onClose={() => setWeighed(null)}
          onSet={(weight) => {
            setWeighed(null);
            const request = { name: weighed.name, ...(weight !== null && { weight }) };
            steer(words.weightQuestion(weighed.name, weight), "SetTargetWeight", request, words.weightSet(weighed.name));
          }}
        />
      )}
    </>
  );
}

function Models({ models, name }: { models: string[]; name: string }) {
  const shown = models.filter((model) => model !== name);
  return shown.length ? <small class="hint block"><Text>{shown.join(", ")}</Text></small> : null;
}

function Breaker({ target }: { target: Target }) {
  const { live: words } = consoleTexts;
  const { opened, breaker = "", workers = 0, workers_open: open = 0, cause, admits_in: delay, unhealthy } = target;
  const state = opened ? "opened" : breaker;
  const details = [
    open && workers > 1 && words.inWorkers(open, workers),
    cause,
    delay && words.admitsIn(delay),
    target.callers_open && words.callers(target.callers_open),
    unhealthy && words.unhealthy,
    target.keys_left_out && words.keysLeftOut(target.keys_left_out, target.keys ?? 0),
  ].filter(Boolean);
  const isClosed = state === "BREAKER_STATE_CLOSED";
  return (
    <>
      <span class={isClosed && !unhealthy ? "badge good" : "badge bad"}>{words.states[state] ?? state}</span>
      {details.length > 0 && <small class="hint block"><Text>{details.join(" · ")}</Text></small>}
    </>
  );
}

function Switch({ target, steer }: { target: Target; steer(question: string, method: string, request: object, done: string): void }) {
  const { live: words } = consoleTexts;
  const { name } = target;
  const isOpen = target.opened || target.breaker !== "BREAKER_STATE_CLOSED" || Boolean(target.callers_open);
  return (
    <>
      {!target.opened && (
        <button type="button" class="quiet" aria-label={words.openOf(name)} onClick={() => steer(words.openQuestion(name), "OpenTarget", { name }, words.openDone(name))}>
          {words.open}
        </button>
      )}
      {isOpen && (
        <button type="button" class="quiet" aria-label={words.closeOf(name)} onClick={() => steer(words.closeQuestion(name), "CloseTarget", { name }, words.closeDone(name))}>
          {words.close}
        </button>
      )}
    </>
  );
}

function loadOf({ calls = 0, max_calls: most, queued }: Target): string {
  return consoleTexts.live.load(calls, most, queued);
}

function weightOf({ weight = 0, weight_override: set }: Target): string {
  return set === undefined ? String(weight) : consoleTexts.live.overridden(set, weight);
}

function WeightDialog({ target, onClose, onSet }: { target: Target; onClose(): void; onSet(weight: number | null): void }) {
  const { live: words } = consoleTexts;
  const [text, setText] = useState(String(target.weight_override ?? target.weight ?? 0));
  const submit = (event: Event) => {
    event.preventDefault();
    if (text !== "") onSet(Number(text));
  };
  return (
    <Dialog title={words.weightOf(target.name)} onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <p>{words.weightHint}</p>
        <NumberField label={words.weight} value={text} onChange={setText} min={0} step={0.1} />
        <div class="row">
          <button type="submit" class="primary" disabled={text === ""}>
            {words.setWeight}
          </button>
          {target.weight_override !== undefined && (
            <button type="button" onClick={() => onSet(null)}>
              {words.clearWeight}
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}

function Calls({ calls, onCancel }: { calls: RunningCall[]; onCancel(id: string): void }) {
  const { live: words } = consoleTexts;
  const columns: Column<RunningCall>[] = [
    { name: words.request, show: ({ request_id: id }) => <a class="id" href={logOf(id)}><Text>{id}</Text></a> },
    { name: words.account, show: ({ account }) => <Text>{account}</Text> },
    { name: words.model, show: ({ model, method }) => <Text>{model ?? method}</Text> },
    { name: words.target, show: ({ target }) => <Text>{target}</Text> },
    { name: words.age, isNumber: true, show: ({ age = 0 }) => words.seconds(age) },
    { name: words.tokens, isNumber: true, show: ({ tokens = 0 }) => tokens },
    {
      name: consoleTexts.actions,
      show: ({ request_id: id }) => (
        <div class="row">
          <button type="button" class="quiet" aria-label={words.cancelOf(id)} onClick={() => onCancel(id)}>
            {texts.turn.cancel}
          </button>
        </div>
      ),
    },
  ];
  return <Table label={words.callsLabel} columns={columns} rows={calls} keyOf={(one) => `${one.worker} ${one.request_id}`} empty={words.noCalls} />;
}
