// A conversation with a server whose responses are scripted: turns, branches, sessions.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Conversation, history } from "../src/playground/conversation";

const SETUP = { system: "Be brief.", parameters: {} };

interface Sent {
  method: string;
  path: string;
  session: string | null;
  body: { messages: { role: string; content: string }[]; through_turn?: number; title?: string };
}

const original = globalThis.fetch;
let sent: Sent[] = [];
let answers: (() => Response)[] = [];
let turn = 0;
let abort = () => {};

/** Returns a stream with an answer in a session; without a session, the model keeps none. */
function stream(text: string, session: string | null = "s"): () => Response {
  const chunk = { ...(session && { chatSessionId: session }), choices: [{ delta: { content: text } }] };
  return () => new Response(`data: ${JSON.stringify(chunk)}\n\ndata: [DONE]\n\n`);
}

function respond(path: string): Response {
  if (path.includes("/messages")) return Response.json({ messages: [{ turn: ++turn, role: "assistant" }] });
  if (/\/sessions\/[^/]+$/.test(path)) return Response.json({});
  if (path.endsWith("/fork")) return Response.json({ id: "fork" });
  return answers.shift()?.() ?? Response.json({ error: { message: "none left" } }, { status: 503 });
}

beforeEach(() => {
  [sent, answers, turn] = [[], [], 0];
  globalThis.fetch = async (path, init) => {
    init?.signal?.addEventListener("abort", () => abort());
    const headers = new Headers(init?.headers);
    const body = init?.body ? JSON.parse(String(init.body)) : null;
    sent.push({ method: init?.method ?? "GET", path: String(path), session: headers.get("x-chat-session-id"), body });
    return respond(String(path));
  };
});
afterEach(() => {
  globalThis.fetch = original;
});

const question = (content: string) => [{ role: "user" as const, content }];
const conversation = () => new Conversation(() => "key", "m");
const completions = () => sent.filter(({ path }) => path.endsWith("/completions"));
const contents = ({ body }: Sent) => body.messages.map(({ content }) => content);

test("with a session, a turn sends its new messages only", async () => {
  answers = [stream("one"), stream("two")];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  await chat.send(question("b"), SETUP);
  assert.deepEqual([["Be brief.", "a"], ["b"]], completions().map(contents));
  assert.deepEqual([null, "s"], completions().map(({ session }) => session));
  assert.deepEqual([1, 2], chat.turns.map(({ number }) => number));
});

test("a new session is named after its first question, once", async () => {
  answers = [stream("one"), stream("two")];
  const chat = conversation();
  await chat.send(question(` ${"x".repeat(100)}\nmore`), SETUP);
  await chat.send(question("b"), SETUP);
  const named = sent.filter(({ method }) => method === "PATCH");
  assert.deepEqual([["/api/v1/sessions/s", "x".repeat(80)]], named.map(({ path, body }) => [path, body.title]));
});

test("without a session, a turn sends the history", async () => {
  answers = [stream("one", null), stream("two", null)];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  await chat.send(question("b"), SETUP);
  assert.deepEqual(["Be brief.", "a", "one", "b"], contents(completions()[1]!));
});

test("an edit forks before its turn, and both branches can be chosen", async () => {
  answers = [stream("one"), stream("two"), stream("three", "fork")];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  await chat.send(question("b"), SETUP);
  await chat.replace(1, question("c"), SETUP);
  assert.equal(1, sent.find(({ path }) => path.endsWith("/fork"))?.body.through_turn);
  assert.equal("fork", completions()[2]?.session);
  assert.deepEqual(["one", "three"], chat.turns.map(({ answer }) => answer.text));
  const [first, second] = chat.variants(1);
  assert.equal(chat.turns[1], second);
  chat.choose(first!);
  assert.deepEqual(["one", "two"], chat.turns.map(({ answer }) => answer.text));
  assert.equal("s", chat.session);
});

test("an edit of the first question begins a new session", async () => {
  answers = [stream("one"), stream("two", "t")];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  await chat.replace(0, question("b"), SETUP);
  assert.deepEqual([null, null], completions().map(({ session }) => session));
  assert.deepEqual(["Be brief.", "b"], contents(completions()[1]!));
  assert.equal(2, chat.variants(0).length);
});

test("a failure is kept with its message, and is not part of the history", async () => {
  answers = [() => new Response("data: x"), stream("one", null), stream("two", null)];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  assert.equal("failed", chat.turns[0]?.answer.state);
  assert.match(chat.turns[0]?.answer.error ?? "", /broke off/);
  await chat.send(question("b"), SETUP);
  assert.deepEqual(["Be brief.", "b"], contents(completions()[1]!));
  await chat.send(question("c"), SETUP);
  await chat.send(question("d"), SETUP);
  assert.deepEqual(["failed", "done", "done", "failed"], chat.turns.map(({ answer }) => answer.state));
  assert.equal("none left", chat.turns[3]?.answer.error);
  assert.equal(5, history(chat.turns, "x").length);
});

test("a call that was rejected before it became a turn has no receipt", async () => {
  answers = [stream("one"), () => Response.json({ error: "no" }, { status: 400 })];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  turn = 0; // the server's last turn is still the first one
  await chat.send(question("b"), SETUP);
  assert.deepEqual([1, null], chat.turns.map(({ number }) => number));
});

test("an answer can be stopped, and the next question is sent without it", async () => {
  const first = new TextEncoder().encode('data: {"choices":[{"delta":{"content":"half"}}]}\n\n');
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(first);
      abort = () => controller.error(new DOMException("aborted", "AbortError"));
    },
  });
  answers = [() => new Response(body), stream("two", null)];
  const chat = conversation();
  const ended = chat.send(question("a"), SETUP);
  while (!chat.turns[0]?.answer.text) await new Promise((resolve) => setTimeout(resolve));
  assert.ok(chat.isBusy);
  chat.stop();
  await ended;
  assert.deepEqual(["stopped", "half", null], [chat.turns[0].answer.state, chat.turns[0].answer.text, chat.turns[0].answer.error]);
  await chat.send(question("b"), SETUP);
  assert.deepEqual(["Be brief.", "b"], contents(completions()[1]!));
});
