// A conversation with a server whose responses are scripted: turns, branches, sessions.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Chats } from "../src/playground/chats";
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
let turn = 0; // the last one of the session
let abort = () => {};

/** Returns a stream with an answer in a session; without a session, the model keeps none. */
function stream(text: string, session: string | null = "s"): () => Response {
  const chunk = { ...(session && { chatSessionId: session }), choices: [{ delta: { content: text } }] };
  return () => new Response(`data: ${JSON.stringify(chunk)}\n\ndata: [DONE]\n\n`);
}

function respond(path: string): Response {
  const after = /\/messages\?.*after_turn=(\d+)/.exec(path)?.[1];
  if (after) {
    const message = { role: "assistant", content: "stored" };
    const turns = Array.from({ length: turn }, (_, i) => ({ turn: i + 1, message, state: "completed", receipt: {} }));
    return Response.json({ messages: turns.slice(Number(after)) });
  }
  if (/\/sessions\/[^/]+$/.test(path)) return Response.json({ model: "m" });
  if (path.endsWith("/fork")) return Response.json({ id: "fork" });
  turn++;
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

test("after an answer, only its own turn is read", async () => {
  answers = [stream("one"), stream("two"), stream("three")];
  const chat = conversation();
  for (const text of ["a", "b", "c"]) await chat.send(question(text), SETUP);
  const read = sent.flatMap(({ path }) => /after_turn=\d+/.exec(path) ?? []);
  assert.deepEqual(["after_turn=0", "after_turn=1", "after_turn=2"], read);
  assert.ok(chat.turns.every(({ answer }) => answer.receipt));
});

test("a turn of a fork is recognised, also where a failed turn of the origin had its number", async () => {
  const failing = { status: 503 };
  answers = [stream("one"), () => Response.json({ error: "no" }, failing), stream("two"), stream("other", "fork")];
  const chat = conversation();
  for (const text of ["a", "b", "c"]) await chat.send(question(text), SETUP);
  turn = 1; // a fork has the completed turns only
  await chat.replace(2, question("d"), SETUP);
  assert.deepEqual([1, null, 2], chat.turns.map(({ number }) => number));
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
  turn = 0; // the server's last turn is the first one
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

test("the choices of an answer are kept apart, whatever their indexes", async () => {
  const parts = [[0, "a"], [1, "x"], [0, "b"], [1, "y"], [4e9, "z"]] as const;
  const events = parts.map(([index, content]) => `data: ${JSON.stringify({ choices: [{ index, delta: { content } }] })}\n\n`);
  answers = [() => new Response([...events, "data: [DONE]\n\n"].join(""))];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  const [{ answer }] = chat.turns as [(typeof chat.turns)[0]];
  assert.deepEqual(["ab", "xy"], [answer.text, answer.others[0]?.text]);
  assert.deepEqual([127, "z"], [answer.others.length, answer.others.at(-1)?.text]);
});

test("calls of tools have no gaps in a history", async () => {
  const calls = [1, 4e9].map((index) => ({ index, id: `c${index}`, function: { name: "f", arguments: "{}" } }));
  answers = [() => new Response(`data: ${JSON.stringify({ choices: [{ delta: { tool_calls: calls } }] })}\n\ndata: [DONE]\n\n`)];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  assert.equal(2, history(chat.turns, "").at(-1)?.tool_calls?.length);
});

test("where the session has been deleted, a retry begins a new one with the chat so far", async () => {
  const gone = { error: { message: 'Unknown session "s"', param: "chatSessionId" } };
  answers = [stream("one"), () => Response.json(gone, { status: 404 }), stream("two", "t")];
  const chat = conversation();
  await chat.send(question("a"), SETUP);
  await chat.send(question("b"), SETUP);
  assert.match(chat.turns[1]?.answer.error ?? "", /deleted. Retry/);
  await chat.replace(1, question("b"), SETUP);
  assert.deepEqual([null, ["Be brief.", "a", "one", "b"]], [completions()[2]?.session, contents(completions()[2]!)]);
  assert.equal("t", chat.session);
});

test("an error says what to do", async () => {
  const failures: [number, string, string | null, RegExp][] = [
    [401, "Invalid API key", null, /^Invalid API key\. Sign out, and sign in with a valid key/],
    [429, "Too many requests; try again later", "3", /^Too many requests\. Try again in 3 seconds\.$/],
    [429, "2 of 2 requests a minute are made; try again in 12 s", "12", /try again in 12 s$/],
    [429, "The quota is used up", "7300", /^The quota is used up\. Try again in 3 hours\.$/],
  ];
  for (const [status, message, delay, expected] of failures) {
    answers = [() => Response.json({ error: { message } }, { status, headers: delay ? { "retry-after": delay } : {} })];
    const chat = conversation();
    await chat.send(question("a"), SETUP);
    assert.match(chat.turns[0]?.answer.error ?? "", expected);
  }
});

test("a session that is a chat of this tab is shown with its branches, and others are read", async () => {
  const models = [{ id: "m" }, { id: "n" }];
  const signal = new AbortController().signal;
  const chats = new Chats("key", models);
  const [first] = chats.shown;
  answers = [stream("one"), stream("two", "fork")];
  await first.send(question("a"), SETUP);
  await first.replace(0, question("b"), SETUP);
  chats.renew();
  assert.notEqual(first, chats.shown[0]);
  assert.equal("m", chats.shown[0].model);
  await chats.open("other", signal);
  assert.deepEqual(["other", 2], [chats.shown[0].session, chats.shown[0].turns.length]);
  const before = sent.length;
  await chats.open("s", signal);
  assert.deepEqual([first, "s", before], [chats.shown[0], first.session, sent.length]);
  assert.equal(2, first.variants(0).length);
});

test("an answer goes on while another chat is on the screen", async () => {
  let end = () => {};
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const bytes = (text: string) => new TextEncoder().encode(text);
      controller.enqueue(bytes('data: {"chatSessionId":"s","choices":[{"delta":{"content":"half"}}]}\n\n'));
      abort = () => controller.error(new DOMException("aborted", "AbortError"));
      end = () => (controller.enqueue(bytes('data: {"choices":[{"delta":{"content":" whole"}}]}\n\ndata: [DONE]\n\n')), controller.close());
    },
  });
  answers = [() => new Response(body)];
  const chats = new Chats("key", [{ id: "m" }]);
  const [first] = chats.shown;
  const ended = first.send(question("a"), SETUP);
  while (!first.session) await new Promise((resolve) => setTimeout(resolve));
  await chats.open("other", new AbortController().signal);
  chats.renew();
  end();
  await ended;
  assert.deepEqual(["done", "half whole"], [first.turns[0]?.answer.state, first.turns[0]?.answer.text]);
});
