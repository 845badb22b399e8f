// Streams, answers, parameters and snippets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Lines, events } from "../src/api/events";
import { messageOf } from "../src/api/http";
import { append, newAnswer } from "../src/playground/answer";
import { abilitiesOf } from "../src/playground/model_select";
import { indented } from "../src/playground/json";
import { EMPTY, readSetup } from "../src/playground/setup";
import { snippets } from "../src/playground/snippets";

const STREAM = 'data: {"a":1}\n\n: comment\n\ndata: b\r\ndata: ü\r\n\r\ndata: [DONE]\n\ndata: cut off';

/** Returns the events of a stream that arrives in parts of this size. */
async function read(size: number): Promise<string[]> {
  const bytes = new TextEncoder().encode(STREAM);
  const parts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size));
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      parts.forEach((part) => controller.enqueue(part));
      controller.close();
    },
  });
  const found: string[] = [];
  for await (const batch of events(body)) found.push(...batch);
  return found;
}

test("events are the same in parts of any size", async () => {
  for (let size = 1; size < 30; size++) assert.deepEqual(['{"a":1}', "b\nü", "[DONE]"], await read(size), `${size}`);
});

test("a long line in many parts is split once", () => {
  const lines = new Lines();
  for (let i = 0; i < 10_000; i++) assert.deepEqual([], lines.push("x".repeat(100)));
  assert.deepEqual([1_000_000], lines.push("\n").map(({ length }) => length));
});

test("errors of both dialects have a message", () => {
  assert.equal("a", messageOf({ error: { message: "a" } }));
  assert.equal("b", messageOf({ error: "b" }));
  for (const other of [null, {}, { error: {} }, { choices: [] }]) assert.equal(null, messageOf(other));
});

test("an answer is made of its parts", () => {
  const answer = newAnswer("m", 0);
  const call = { index: 0, id: "c", function: { name: "f", arguments: '{"a"' } };
  append(answer, { choices: [{ delta: { content: "" } }] }, 1);
  append(answer, { choices: [{ delta: { reasoning_content: "r" } }] }, 2);
  append(answer, { choices: [{ delta: { content: "t", tool_calls: [call] } }] }, 3);
  append(answer, { choices: [{ delta: { tool_calls: [{ index: 0, function: { arguments: ":1}" } }] } }] }, 4);
  append(answer, { model: "n", choices: [{ delta: {}, finish_reason: "tool_calls" }] }, 5);
  append(answer, { choices: [], usage: { total_tokens: 3 } }, 6);
  assert.deepEqual(["n", "t", "r", "tool_calls", 2, 3], [
    ...[answer.model, answer.text, answer.reasoning, answer.finish, answer.firstTokenAt, answer.usage?.total_tokens],
  ]);
  assert.deepEqual([{ id: "c", type: "function", function: { name: "f", arguments: '{"a":1}' } }], answer.toolCalls);
});

test("empty fields are left out, and JSON that is not valid is named", () => {
  assert.deepEqual({ system: "", parameters: {} }, readSetup(EMPTY).setup);
  const { setup, errors } = readSetup({ ...EMPTY, temperature: "0", stop: "a\n\nb", schema: '{"type":"object"}', tools: "{}" });
  const format = { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" }, strict: true } };
  assert.deepEqual({ temperature: 0, stop: ["a", "b"], response_format: format }, setup.parameters);
  assert.deepEqual(["tools"], Object.keys(errors));
  assert.match(readSetup({ ...EMPTY, schema: "{" }).errors.schema ?? "", /^Not valid JSON: /);
});

test("snippets quote what a shell would read", () => {
  const message = { role: "user" as const, content: "It's $HOME `id` \"x\" \\ é" };
  const request = { model: "m", messages: [message], parameters: { stop: null, logprobs: true }, session: "s" };
  const found = new Map(snippets(request, { origin: "https://a", grpc: "a:1" }).map((one) => [one.name, one.code]));
  assert.deepEqual(["curl", "Python", "TypeScript", "grpcurl"], [...found.keys()]);
  const body = JSON.stringify(message.content).replace("'", "'\\''");
  assert.ok(found.get("curl")?.includes(body));
  assert.ok(found.get("curl")?.includes("-H 'X-Chat-Session-ID: s'"));
  assert.ok(found.get("Python")?.includes("stop=None,") && found.get("Python")?.includes("logprobs=True,"));
  assert.ok(!found.get("grpcurl")?.includes("-plaintext") && !found.get("grpcurl")?.includes('"stream":'));
});

test("JSON is laid out, unless it is deep or long: its indents would grow by the square of its depth", () => {
  assert.equal('{\n  "a": [\n    1\n  ]\n}', indented('{"a":[1]}'));
  assert.equal("{ not JSON", indented("{ not JSON"));
  for (const text of ["[".repeat(3_000) + "]".repeat(3_000), '{"a":'.repeat(3_000) + "1" + "}".repeat(3_000)]) {
    assert.equal(text, indented(text));
  }
  const brackets = JSON.stringify({ text: "[\\\"{".repeat(1_000) });
  assert.notEqual(brackets, indented(brackets));
  const long = JSON.stringify(Array(60_000).fill(1));
  assert.equal(long, indented(long));
});

test("what is known of a model cannot change the direction of the text behind it", () => {
  assert.equal("a\ufffdb · 1,000 tokens", abilitiesOf({ id: "m", description: "a\u202eb", context_length: 1000 }));
});
