// Stored sessions: their turns, and the tree of forks.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message, Session, SessionMessage } from "../src/api/types";
import { history } from "../src/playground/conversation";
import { turnsOf } from "../src/playground/restored";
import { labelChange, labelLines, readLabels } from "../src/sessions/labels";
import { matching, merged, treesOf, type Node } from "../src/sessions/tree";

const session = (id: string, forked?: string): Session => ({
  ...{ id, model: `model-${id}`, created: 0, updated: 0, object: "chat.session" },
  ...(forked && { forked_from: forked }),
});
const message = (turn: number, message: Message, more: Partial<SessionMessage> = {}): SessionMessage => ({
  ...{ message, turn, state: "completed" as const },
  ...more,
});
const ids = (nodes: Node[]): unknown[] => nodes.map(({ session: { id }, forks }) => [id, ids(forks)]);

test("forks are below their origin, and those of a session that is not listed are roots", () => {
  const listed = [session("c", "b"), session("a"), session("b", "a"), session("d", "gone")];
  assert.deepEqual([["a", [["b", [["c", []]]]]], ["d", []]], ids(treesOf(listed)));
});

test("a search finds ids and models, in any case", () => {
  const listed = [session("abc"), session("xyz")];
  assert.deepEqual(["xyz"], matching(listed, " MODEL-X ").map(({ id }) => id));
  assert.equal(2, matching(listed, "").length);
});

test("a search has each session once, the latest first", () => {
  const at = (id: string, updated: number): Session => ({ ...session(id), updated });
  assert.deepEqual(["c", "b", "a"], merged([at("a", 1), at("c", 3)], [at("b", 2), at("a", 1)]).map(({ id }) => id));
});

test("a stored session becomes turns with their states, and its history is complete", () => {
  const call = { id: "c", type: "function", function: { name: "f", arguments: "{}" } };
  const turns = turnsOf(
    [
      message(1, { role: "system", content: "Be brief." }),
      message(1, { role: "user", content: "a" }),
      message(1, { role: "assistant", content: "", tool_calls: [call] }, { receipt: { duration_ms: 3 } }),
      message(2, { role: "tool", content: "r", tool_call_id: "c" }),
      message(2, { role: "assistant", content: "b" }),
      message(3, { role: "user", content: "c" }, { state: "incomplete", reason: "cancelled" }),
      message(4, { role: "user", content: "d" }, { state: "incomplete", reason: "failed" }),
    ],
    "m",
  );
  assert.deepEqual(["done", "done", "stopped", "failed"], turns.map(({ answer }) => answer.state));
  assert.deepEqual([1, 2, 3, 4], turns.map(({ number }) => number));
  assert.equal(3, turns[0]?.answer.receipt?.duration_ms);
  const expected = [
    { role: "user", content: "a" },
    { role: "assistant", content: null, tool_calls: [call] },
    { role: "tool", content: "r", tool_call_id: "c" },
    { role: "assistant", content: "b" },
  ];
  assert.deepEqual(expected, history(turns, ""));
});

test("labels are lines, and those that are left out are removed", () => {
  assert.equal("a=1\nb=x=y", labelLines({ a: "1", b: "x=y" }));
  assert.deepEqual({ a: "1", b: "x=y", c: "" }, readLabels(" a = 1 \n\nb=x=y\nc"));
  assert.equal(null, readLabels("=1"));
  assert.deepEqual({ a: "2", b: null }, labelChange({ a: "1", b: "2" }, { a: "2" }));
});
