// Accounts: plan, limits, budgets and what is used of them.

import { useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { Notice } from "../ui/notice";
import { all, type Call, type Listed } from "./admin";
import { budgetsOf, type Budget } from "./budgets";
import { Cut } from "./cut";
import { ACCOUNT_LIMITS, LimitFields, limitsOf, textsOf } from "./limit_fields";
import { Table, Text, type Column } from "./table";
import type { Account, Limits, Plan, UsageRow } from "./types";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

const EVERY_MS = 15_000;

/** What each account has used. */
interface Used {
  today: UsageRow[];
  month: UsageRow[];
  /** Why it is not known. */
  failure?: string;
}

interface State {
  accounts: Listed<Account>;
  plans: Plan[];
  used: Used;
}

async function readUsed(call: Call): Promise<Used> {
  const until = new Date().toISOString().slice(0, 10);
  const read = (since: string) => call<{ rows?: UsageRow[] }>("Usage/QueryUsage", { since, until, by: ["account"] });
  try {
    const [{ rows: today = [] }, { rows: month = [] }] = await Promise.all([read(until), read(`${until.slice(0, 8)}01`)]);
    return { today, month };
  } catch (error) {
    return { today: [], month: [], failure: error instanceof Error ? error.message : String(error) };
  }
}

async function readState(call: Call): Promise<State> {
  const [accounts, { plans = [] }, used] = await Promise.all([
    all<Account>(call, "Accounts/ListAccounts", "accounts"),
    call<{ plans?: Plan[] }>("Accounts/ListPlans"),
    readUsed(call),
  ]);
  return { accounts, plans, used };
}

function byAccount(rows: UsageRow[]): Map<string | undefined, UsageRow> {
  return new Map(rows.map((row) => [row.account, row]));
}

export function Accounts({ call, onFailure, change }: ViewProps) {
  const { accounts: words } = consoleTexts;
  const [filter, setFilter] = useState("");
  /** The account whose form is open, "new" for that of a new one. */
  const [open, setOpen] = useState<Account | "new" | null>(null);
  const { value, reload } = useLoaded(() => readState(call), [call], onFailure, EVERY_MS);
  if (!value) return <p class="loading">{texts.loading}</p>;
  const known = open === "new" ? null : open;
  const save = async (account: Account, onRefused: (reason: string) => void) => {
    const question = known ? words.changeQuestion(known.name) : words.createQuestion(account.name);
    const request = { account, ...(known && { update_mask: "plan,limits" }) };
    const action = () => call(known ? "Accounts/UpdateAccount" : "Accounts/CreateAccount", request);
    if (!(await change(question, action, known ? words.changed(known.name) : words.created(account.name), onRefused))) return;
    setOpen(null);
    reload();
  };
  const suspend = ({ name, suspended }: Account) => {
    const question = suspended ? words.resumeQuestion(name) : words.suspendQuestion(name);
    const action = () => call(`Accounts/${suspended ? "Resume" : "Suspend"}Account`, { name });
    void change(question, action, suspended ? words.resumed(name) : words.suspended(name)).then(reload);
  };
  const found = value.accounts.found.filter(({ name }) => name.toLowerCase().includes(filter.toLowerCase()));
  return (
    <>
      <div class="row bar">
        <Field label={words.filter}>
          {(id) => <input id={id} type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />}
        </Field>
        <button type="button" class="primary" onClick={() => setOpen("new")}>
          {words.create}
        </button>
      </div>
      <Cut is={value.accounts.isCut} text={words.cut} />
      {value.used.failure && <Notice kind="error">{words.noUsage(value.used.failure)}</Notice>}
      <p role="status">{words.count(found.length)}</p>
      <Table label={consoleTexts.views.accounts} columns={columnsOf(value, setOpen, suspend)} rows={found} keyOf={({ name }) => name} empty={words.none} />
      {open && (
        <Dialog title={known ? words.editOf(known.name) : words.create} onClose={() => setOpen(null)}>
          <AccountForm known={known} plans={value.plans} onSave={(account, onRefused) => void save(account, onRefused)} />
        </Dialog>
      )}
    </>
  );
}

function columnsOf(state: State, onEdit: (account: Account) => void, onSuspend: (account: Account) => void): Column<Account>[] {
  const { accounts: words } = consoleTexts;
  const [today, month] = [byAccount(state.used.today), byAccount(state.used.month)];
  const planLimits = (name: string): Limits => state.plans.find((plan) => plan.name === name)?.limits ?? {};
  const limitsOfAccount = ({ plan, limits }: Account): Limits => ({ ...planLimits(plan), ...limits });
  return [
    { name: words.name, show: ({ name }) => <Text>{name}</Text> },
    { name: words.plan, show: ({ plan }) => <Text>{plan}</Text> },
    {
      name: words.state,
      show: ({ suspended }) => <span class={suspended ? "badge bad" : "badge good"}>{suspended ? words.isSuspended : words.isActive}</span>,
    },
    { name: words.limits, show: (account) => <small>{consoleTexts.limits.list(limitsOfAccount(account))}</small> },
    {
      name: words.used,
      show: (account) => {
        const { name } = account;
        return state.used.failure ? null : <Budgets of={name} budgets={budgetsOf(limitsOfAccount(account), today.get(name), month.get(name))} />;
      },
    },
    {
      name: consoleTexts.actions,
      show: (account) => (
        <div class="row">
          <button type="button" class="quiet" aria-label={words.editOf(account.name)} onClick={() => onEdit(account)}>
            {consoleTexts.keys.edit}
          </button>
          <button
            type="button"
            class="quiet"
            aria-label={account.suspended ? words.resumeOf(account.name) : words.suspendOf(account.name)}
            onClick={() => onSuspend(account)}
          >
            {account.suspended ? words.resume : words.suspend}
          </button>
        </div>
      ),
    },
  ];
}

function Budgets({ of, budgets }: { of: string; budgets: Budget[] }) {
  const { accounts: words } = consoleTexts;
  return (
    <ul class="budgets">
      {budgets.map(({ name, used, limit }) => (
        <li key={name}>
          <small>{words.usedOf(name, used, limit)}</small>
          {limit !== undefined && (
            <meter min={0} max={limit} high={0.8 * limit} optimum={0} value={Math.min(used, limit)} aria-label={words.meter(name, of)} />
          )}
        </li>
      ))}
    </ul>
  );
}

interface FormProps {
  known: Account | null;
  plans: Plan[];
  onSave(account: Account, onRefused: (reason: string) => void): void;
}

function AccountForm({ known, plans, onSave }: FormProps) {
  const { accounts: words } = consoleTexts;
  const [name, setName] = useState(known?.name ?? "");
  const [plan, setPlan] = useState(known?.plan ?? plans.find((one) => one.default)?.name ?? "");
  const [limits, setLimits] = useState(textsOf(known?.limits));
  const [refusal, setRefusal] = useState<string | null>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    setRefusal(null);
    onSave({ name, plan, limits: limitsOf(limits) }, setRefusal);
  };
  const chosen = plans.find((one) => one.name === plan);
  return (
    <form class="stack" onSubmit={submit}>
      <div class="fields">
        <Field label={words.name}>
          {(id) => (
            <input id={id} required maxLength={128} disabled={known !== null} value={name} onInput={(event) => setName(event.currentTarget.value)} />
          )}
        </Field>
        <Field label={words.plan} {...(chosen && !chosen.api && { hint: words.noAccess })}>
          {(id, described) => (
            <select id={id} aria-describedby={described} value={plan} onChange={(event) => setPlan(event.currentTarget.value)}>
              {plans.every((one) => one.name !== plan) && <option value={plan}>{plan}</option>}
              {plans.map((one) => (
                <option key={one.name} value={one.name}>
                  {one.name}
                </option>
              ))}
            </select>
          )}
        </Field>
      </div>
      <LimitFields names={ACCOUNT_LIMITS} values={limits} defaults={chosen?.limits ?? {}} otherwise={consoleTexts.limits.none} onChange={setLimits} />
      {refusal && <Notice kind="error">{refusal}</Notice>}
      <button type="submit" class="primary">
        {known ? texts.sessions.save : words.create}
      </button>
    </form>
  );
}
