// Every text of the page.

import type { GuardResult, TurnState } from "./api/types";

const whole = new Intl.NumberFormat("en");
const seconds = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const money = new Intl.NumberFormat("en", { maximumFractionDigits: 9, minimumFractionDigits: 2 });

/** Formats milliseconds: `40 ms`, `1.2 s`. */
function time(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${seconds.format(ms / 1000)} s`;
}

/** Formats seconds until something may be tried again: `40 seconds`, `3 minutes`, `5 hours`. */
function wait(delay: number): string {
  const [count, unit] = delay < 120 ? [delay, "second"] : delay < 7200 ? [delay / 60, "minute"] : [delay / 3600, "hour"];
  const rounded = Math.ceil(count);
  return `${whole.format(rounded)} ${unit}${rounded === 1 ? "" : "s"}`;
}

/** Ends a text with a full stop, so that a sentence can follow. */
function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

export const texts = {
  name: "Parley",
  navigation: "Views",
  views: { playground: "Playground", sessions: "Sessions" },
  skip: "Skip to the content",
  loading: "Loading…",
  docs: "Docs",
  close: "Close",
  signOut: "Sign out",
  theme: {
    label: (name: string) => `${name} colours; change`,
    names: { system: "System", light: "Light", dark: "Dark" },
  },
  copy: { ready: "Copy", copied: "Copied", failed: "Not copied" },
  errors: {
    unreachable: "The server cannot be reached. Check the connection, then try again.",
    broken: "The answer broke off before its end. Try again.",
    status: (status: number) => `The server answered with status ${status}. Try again.`,
    key: (message: string) => `${sentence(message)} Sign out, and sign in with a valid key. The sessions stay on the server.`,
    session: "This session has been deleted. Retry the question: it begins a new session, with the chat so far.",
    later: (message: string, delay: number) =>
      /\d s\b/.test(message) ? message : `${sentence(message.replace(/; try again( later)?$/, ""))} Try again in ${wait(delay)}.`,
  },
  signIn: {
    title: "Sign in",
    intro: "Talk to the models of this server, and find your sessions.",
    key: "API key",
    use: "Use this key",
    remember: "Keep it in this browser",
    hint: "Without the checkbox, the key is forgotten when the tab is closed. The operator creates keys with",
    command: "parley keys create --name NAME",
    at: (host: string) => `Sign in at ${host}`,
    wrongKey: "The server does not accept this key. Check that it is complete and has not been revoked.",
    expired: "The key or sign-in is no longer valid. Sign in again.",
    unexpected: "This sign-in did not begin in this tab. Start it again.",
    insecure: "Sign-in needs HTTPS, or an address of this machine. Open the page over HTTPS, or use a key.",
    unreachable: (issuer: string) =>
      `${issuer} cannot be reached from this page. The issuer must allow this origin (CORS), and auth.issuers.page.origins must name its endpoints.`,
    noToken: (issuer: string) => `${issuer} returned no token. Try again, or use a key.`,
  },
  models: {
    label: "Model",
    pane: (label: string) => `Chat: ${label}`,
    name: (label: string) => `Name of ${label}`,
    numbered: (number: number) => `Model ${number}`,
    none: "This key may use no model. Ask the operator of this server.",
    reads: (kinds: string[]) => `reads ${kinds.join(", ")}`,
    writes: (kinds: string[]) => `writes ${kinds.join(", ")}`,
    context: (length: number) => `${whole.format(length)} tokens`,
    longest: (length: number) => `answers up to ${whole.format(length)}`,
    tools: "tools",
    reasoning: "reasoning",
    price: (prompt: number, completion: number) =>
      `${money.format(1e6 * prompt)} / ${money.format(1e6 * completion)} per million tokens in / out`,
  },
  toolbar: { new: "New chat", compare: "Compare", compareLabel: "Compare two models" },
  setup: {
    title: "Setup",
    system: "System prompt",
    systemHint: "Used from the first question of a chat on.",
    temperature: "Temperature",
    top_p: "Top P",
    max_tokens: "Max tokens",
    seed: "Seed",
    effort: "Reasoning effort",
    stop: "Stop sequences",
    stopHint: "One in each line.",
    logprobs: "Return token probabilities",
    tools: "Tools",
    toolsHint: "A JSON list, as in OpenAI’s “tools”. You type in the results.",
    schema: "JSON schema of the answer",
    schemaHint: "A JSON Schema, or an object with “name” and “schema”.",
    others: "Other parameters",
    othersHint: "A JSON object, merged into the request: {\"tool_choice\": \"required\"}",
    default: "Default",
    notJson: (reason: string) => `Not valid JSON: ${reason}`,
    notList: "Must be a JSON list: [ … ]",
    notObject: "Must be a JSON object: { … }",
  },
  composer: {
    question: "Message",
    placeholder: "Write a message",
    keys: "Enter sends, Shift+Enter starts a new line",
    send: "Send",
    stop: "Stop",
    addImage: "Add images",
    image: (number: number) => `Image ${number}`,
    remove: (number: number) => `Remove image ${number}`,
    notImage: (name: string) => `${name} is not a PNG, JPEG, GIF or WebP image.`,
    tooLarge: (name: string) => `${name} is larger than 5 MB. Make it smaller.`,
    unreadable: (name: string) => `${name} cannot be read.`,
  },
  turn: {
    list: (model: string) => `Messages of ${model}`,
    start: (model: string) => `Ask ${model} a question. The setup has the system prompt, parameters, tools and a schema.`,
    question: "Question",
    edit: "Edit",
    editLabel: "Edit the question; the answer starts a new branch",
    send: "Send",
    cancel: "Cancel",
    branches: "Branches",
    state: (number: number, { state, reason }: TurnState) =>
      `turn ${number} ${state.replace("_", " ")}${reason ? ` (${reason})` : ""}`,
    branch: (index: number, count: number) => `${index} of ${count}`,
    previous: "Previous branch",
    next: "Next branch",
  },
  answer: {
    of: (model: string) => `Answer of ${model}`,
    started: "Answer in progress",
    ended: { streaming: "", done: "The answer is complete", stopped: "The answer was stopped", failed: "The answer failed" },
    copy: "Copy the answer",
    retry: "Retry",
    choice: (number: number) => `Choice ${number}`,
    copyChoice: (number: number) => `Copy choice ${number}`,
    filtered: "The provider’s content filter has cut the answer off.",
    reasoning: "Reasoning in progress",
    reasoned: "Reasoning",
    unfinished: "This turn is still in progress. Open its session again for the answer.",
    stopped: "Stopped. The model does not see this part of an answer later.",
    tokens: (count: number) => (count === 1 ? "1 answer token" : `${whole.format(count)} answer tokens`),
    length: "The answer has reached the limit of tokens.",
    request: (id: string) => `Request ${id}`,
    code: "Code",
    codeOf: (language: string) => `Code in ${language}`,
    copyCode: "Copy the code",
    formula: "Formula",
    table: "Table",
    image: "Image of the answer",
    imageLink: (text: string) => `Image: ${text || "open"}`,
    more: (characters: number) => `Show more (${whole.format(characters)} characters)`,
  },
  tools: {
    call: (name: string, number: number) => (number ? `Call ${number} of ${name}` : `Call of ${name}`),
    result: (name: string, number: number) => (number ? `Result of ${name}, call ${number}` : `Result of ${name}`),
    results: "Results of tools",
    send: "Send the results",
  },
  logprobs: {
    title: "Probabilities",
    legend: "The stronger the shade of a token, the less probable it was. Point at one, or use the arrow keys, to see others.",
    percent: (probability: number) => percent.format(probability),
  },
  receipt: {
    title: "Receipt",
    total: (ms: number) => `${time(ms)} in total`,
    first: (ms: number) => `first token after ${time(ms)}`,
    tokens: (count: number, isEstimated = false) => `${isEstimated ? "about " : ""}${whole.format(count)} tokens`,
    cache: (use: string) => `cache ${use}`,
    guard: ({ guard, phase, outcome, reason }: GuardResult) =>
      `guard ${guard} ${phase} the model: ${outcome.replace("_", " ")}${reason ? ` (${reason})` : ""}`,
    cost: (amount: number) => `cost ${money.format(amount)}`,
    outcome: (outcome: string, ms: number, reason: string | undefined) =>
      `${outcome} after ${time(ms)}${reason ? ` (${reason})` : ""}`,
  },
  sessions: {
    search: "Search",
    searchHint: "Words of messages or titles; “word*” finds beginnings. Also an id or a model.",
    searching: "Searching…",
    title: "Title",
    labels: "Labels",
    labelsHint: "Up to 16, one in each line: name=value",
    noLabel: "Each line needs a name: name=value",
    save: "Save",
    edit: "Edit",
    editOf: (name: string) => `Edit title and labels of ${name}`,
    count: (count: number) => (count === 1 ? "1 session" : `${whole.format(count)} sessions`),
    fork: "fork",
    untitled: (model: string) => `Chat with ${model}`,
    turns: (count: number) => (count === 1 ? "1 turn" : `${whole.format(count)} turns`),
    time: (time: Date) => time.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }),
    more: "Show more",
    export: "Export",
    exportOf: (name: string) => `Export ${name}`,
    delete: "Delete",
    deleteOf: (name: string) => `Delete ${name}`,
    confirm: (id: string) => `Delete session ${id} and all its messages? This cannot be undone.`,
  },
  snippets: {
    open: "Code",
    title: "This request as code",
    hint: "Set the variable KEY to your key. Images are part of the code.",
    port: "$GRPC_PORT",
    portHint: "Set GRPC_PORT to the port of gRPC.",
  },
};

const amount = new Intl.NumberFormat("en", { maximumFractionDigits: 2, minimumFractionDigits: 2 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** Formats a number of a limit: money with cents, bytes and counts with separators. */
function limited(name: string, value: number): string {
  return name.startsWith("cost") ? amount.format(value) : whole.format(value);
}

/** The names of the limits. */
const limitNames: Record<string, string> = {
  requests_per_minute: "Requests a minute",
  tokens_per_minute: "Tokens a minute",
  concurrent: "Running at a time",
  tokens_per_day: "Tokens a day",
  tokens_per_month: "Tokens a month",
  cost_per_day: "Cost a day",
  cost_per_month: "Cost a month",
  sessions: "Sessions",
  bytes: "Bytes of sessions",
};

/** Names what a count counts. */
function counted(count: number, one: string, more: string): string {
  return count === 1 ? `1 ${one}` : `${whole.format(count)} ${more}`;
}

/** Every text of the console. */
export const consoleTexts = {
  name: "Parley console",
  title: (view: string) => `${view} · Parley console`,
  views: { live: "Live", usage: "Usage", keys: "Keys", accounts: "Accounts", log: "Log", changes: "Changes" },
  actions: "Actions",
  silent: (workers: string) => `No answer from ${workers}: the state of these workers is missing.`,
  day: (seconds: number) => new Date(1000 * seconds).toLocaleDateString("en", { dateStyle: "medium", timeZone: "UTC" }),
  moment: (time: string) => new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" }),
  signIn: {
    intro: "Keys, accounts, usage and the running service of this Parley, for administrators.",
    key: "Admin key",
    certificate: "Use the certificate of this browser",
    hint: "Not an API key: one of --admin-key-file or, in the configuration,",
    wrong: "The server does not accept this admin key. An API key is not one.",
    expired: "The admin key is no longer valid. Sign in again.",
  },
  limits: {
    title: "Limits",
    none: "No limit",
    configured: "As configured",
    names: limitNames,
    list: (limits: Record<string, number>) =>
      Object.entries(limits).map(([name, value]) => `${limitNames[name] ?? name}: ${limited(name, value)}`).join(" · "),
  },
  live: {
    targets: "Targets",
    noTargets: "No model has a target.",
    target: "Target",
    breaker: "Breaker",
    states: {
      opened: "Open (operator)",
      BREAKER_STATE_CLOSED: "Closed",
      BREAKER_STATE_OPEN: "Open",
      BREAKER_STATE_HALF_OPEN: "Half open",
    } as Record<string, string>,
    inWorkers: (open: number, all: number) => `in ${open} of ${all} workers`,
    admitsIn: (delay: number) => `admits a call in ${seconds.format(delay)} s`,
    callers: (count: number) => `open for ${counted(count, "caller", "callers")}`,
    unhealthy: "health check failed",
    keysLeftOut: (count: number, all: number) => `${count} of ${all} keys left out`,
    calls: "Calls",
    load: (calls: number, most: number | undefined, queued: number | undefined) =>
      `${calls}${most === undefined ? "" : ` of ${most}`}${queued ? `, ${queued} waiting` : ""}`,
    weight: "Weight",
    overridden: (set: number, configured: number) => `${set} (not ${configured})`,
    open: "Open",
    openOf: (name: string) => `Open the breaker of ${name}`,
    openQuestion: (name: string) => `Open the breaker of ${name}? No further call is sent to it; running calls go on.`,
    openDone: (name: string) => `The breaker of ${name} is open.`,
    close: "Close",
    closeOf: (name: string) => `Close the breakers of ${name}`,
    closeQuestion: (name: string) => `Close the breakers of ${name}, whatever opened them?`,
    closeDone: (name: string) => `The breakers of ${name} are closed.`,
    setWeight: "Set weight",
    weightOf: (name: string) => `Set weight of ${name}`,
    weightHint: "It holds in all workers and models until it is cleared or Parley is restarted. With 0, the target gets what no other one takes.",
    clearWeight: "Use the configured weight",
    weightQuestion: (name: string, weight: number | null) =>
      weight === null ? `Use the configured weight of ${name} again?` : `Set the weight of ${name} to ${weight}?`,
    weightSet: (name: string) => `The weight of ${name} is set.`,
    running: (count: number) => counted(count, "running call", "running calls"),
    callsLabel: "Running calls",
    noCalls: "No call runs at this moment.",
    request: "Request",
    account: "Account",
    model: "Model",
    age: "Age",
    seconds: (age: number) => `${seconds.format(age)} s`,
    tokens: "Tokens",
    cancelOf: (id: string) => `Cancel the call ${id}`,
    cancelQuestion: (id: string) => `Cancel the call ${id}? Its caller gets an error, and its turn is kept as incomplete.`,
    cancelled: (id: string) => `The call ${id} is cancelled.`,
  },
  usage: {
    measure: "Measure",
    measures: { tokens: "Tokens", cost: "Cost", calls: "Calls", errors: "Failed calls" },
    by: "By",
    groups: { model: "Model", account: "Account", key: "Key", target: "Target" },
    unnamed: "none",
    period: "Period",
    days: (count: number) => (count === 365 ? "12 months" : `${count} days`),
    value: (measure: string, value: number) => (measure === "cost" ? amount.format(value) : value < 100_000 ? whole.format(value) : short.format(value)),
    chart: (measure: string, group: string) => `${measure} a day by ${group.toLowerCase()}, as stacked bars. The table below has the sums.`,
    chartHint: "Days in UTC. Point at a day for its sum.",
    ofDay: (day: number, value: string) => `${consoleTexts.day(day)}: ${value}`,
    axisDay: (day: number) => new Date(1000 * day).toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" }),
    sums: "Sums of the period",
    none: "Nothing was used in this period.",
  },
  keys: {
    filter: "Name, account or id",
    create: "Create a key",
    count: (count: number) => counted(count, "key", "keys"),
    none: "No key matches.",
    name: "Name",
    account: "Account",
    state: "State",
    states: { KEY_STATE_ACTIVE: "Active", KEY_STATE_EXPIRED: "Expired", KEY_STATE_REVOKED: "Revoked" },
    may: "May use",
    rights: (scopes: string[], models: string[]) =>
      `${scopes.length ? scopes.join(", ") : "everything"}${models.length ? `; only ${models.join(", ")}` : ""}`,
    limits: "Own limits",
    expires: "Expires",
    expiresHint: "At the end of this day in UTC. Empty: never.",
    never: "never",
    scopes: "Scopes",
    scopesHint: "None chosen: everything.",
    models: "Models",
    modelsHint: "An id in each line. Empty: all models.",
    /** The fields that a change replaces. */
    mask: "name,models,scopes,limits,expires",
    edit: "Edit",
    editOf: (name: string) => `Edit ${name}`,
    changeQuestion: (name: string) => `Change the key ${name}?`,
    changed: (name: string) => `The key ${name} is changed.`,
    createQuestion: (name: string, account: string) => `Create the key ${name} for the account ${account}?`,
    created: (name: string) => `The key ${name} is created.`,
    rotate: "Rotate",
    rotateOf: (name: string) => `Rotate ${name}`,
    rotateQuestion: (name: string) => `Give the key ${name} a new secret? The old one stays valid for a day.`,
    rotated: (name: string) => `The key ${name} has a new secret.`,
    revoke: "Revoke",
    revokeOf: (name: string) => `Revoke ${name}`,
    revokeQuestion: (name: string) => `Revoke the key ${name}? Its running calls end. This cannot be undone.`,
    revoked: (name: string) => `The key ${name} is revoked.`,
    secretOf: (name: string) => `Secret of ${name}`,
    once: "Copy it now: it is not stored, and cannot be shown again.",
    copy: "Copy the secret",
  },
  accounts: {
    filter: "Account",
    create: "Create an account",
    count: (count: number) => counted(count, "account", "accounts"),
    none: "No account matches.",
    name: "Name",
    plan: "Plan",
    state: "State",
    isActive: "Active",
    isSuspended: "Suspended",
    limits: "Limits",
    used: "Used",
    usedOf: (name: string, used: number, limit: number | undefined) => {
      const period = name.endsWith("day") ? "today" : "this month";
      const what = name.startsWith("cost") ? "cost" : "tokens";
      const share = limit === undefined ? "" : ` of ${limited(name, limit)} (${percent.format(used / limit)})`;
      return `${limited(name, used)}${share} ${what} ${period}`;
    },
    meter: (name: string, account: string) => `${limitNames[name]} of ${account}`,
    noAccess: "This plan has no access to the API.",
    editOf: (name: string) => `Edit ${name}`,
    changeQuestion: (name: string) => `Change the account ${name}?`,
    changed: (name: string) => `The account ${name} is changed.`,
    createQuestion: (name: string) => `Create the account ${name}?`,
    created: (name: string) => `The account ${name} is created.`,
    suspend: "Suspend",
    suspendOf: (name: string) => `Suspend ${name}`,
    suspendQuestion: (name: string) => `Suspend the account ${name}? Its calls fail, and its running streams end.`,
    suspended: (name: string) => `The account ${name} is suspended.`,
    resume: "Resume",
    resumeOf: (name: string) => `Resume ${name}`,
    resumeQuestion: (name: string) => `End the suspension of the account ${name}?`,
    resumed: (name: string) => `The account ${name} is active.`,
  },
  log: {
    request: "Request",
    requestHint: "The id in x-request-id of an answer. Empty: the latest of all.",
    find: "Find",
    refresh: "Refresh",
    level: "Log level",
    levelHint: (configured: string) => `Started with ${configured}. Another one holds for 10 minutes.`,
    levelQuestion: (level: string, isConfigured: boolean) =>
      `Set the log level of all workers to ${level}${isConfigured ? "" : " for 10 minutes"}?`,
    levelSet: (level: string) => `The log level is ${level}.`,
    count: (count: number) => counted(count, "line", "lines"),
    none: "No worker has written a line about a call.",
    noneOf: "No worker has a line of this request in memory. A call has its line when it ends, and each worker keeps its latest 1,000; the log itself has all that its level permits.",
    latest: "Latest lines",
    all: "All requests",
    administrators: "Show calls of administrators",
    time: "Time",
    event: "Event",
    status: "Status",
    duration: "Duration",
    milliseconds: (ms: number) => time(ms),
    account: "Account",
    model: "Model",
    lineOf: (worker: string, time: string) => `${consoleTexts.moment(time)}, ${worker}`,
    copy: "Copy the line as JSON",
  },
  changes: {
    configuration: "Configuration",
    reload: "Reload",
    reloadQuestion: "Read the configuration again? The workers are replaced one by one; no call fails.",
    requested: "The reload is requested; its outcome is shown here.",
    noReload: "It has not been read again since the first start.",
    running: (began: string) => `A reload is in progress since ${began}.`,
    succeeded: (began: string, changes: string[]) =>
      `Reloaded at ${began}: ${changes.length ? changes.join(", ") : "nothing has changed"}.`,
    failed: (began: string) => `The reload at ${began} failed; the old configuration stays in use:`,
    audit: "Audit log",
    none: "Nothing was changed yet.",
    time: "Time",
    actor: "Actor",
    method: "Method",
    subject: "Subject",
    fields: "Changes",
    from: (field: string, before: string, after: string) => `${field}: ${before} → ${after}`,
  },
};
