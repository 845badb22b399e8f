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
