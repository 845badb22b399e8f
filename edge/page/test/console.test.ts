// The sums and series of the console.

import assert from "node:assert/strict";
import { test } from "node:test";
import { all } from "../src/console/admin";
import { budgetsOf } from "../src/console/budgets";
import { changeOf, expiryOf } from "../src/console/key_change";
import { viewsOf } from "../src/console/routes";
import { limitsOf, textsOf } from "../src/console/limit_fields";
import { seriesOf } from "../src/console/usage_series";

test("the days of a report are stacked, the largest sum first", () => {
  const rows = [
    { day: "2026-02-28", model: "a", prompt_tokens: "1", completion_tokens: "2", calls: "1" },
    { day: "2026-03-02", model: "b", prompt_tokens: "10", calls: "4", cost_nanos: "2500000000" },
    { day: "2026-03-02", model: "a", completion_tokens: "4", calls: "1", errors: "1" },
  ];
  const { days, stacked, sums } = seriesOf(rows, "model", "2026-02-28", "2026-03-02", "tokens");
  assert.deepEqual([0, 1, 2].map((day) => Date.UTC(2026, 1, 28 + day) / 1000), days);
  assert.deepEqual(["b", "a"], sums.map(({ name }) => name));
  assert.deepEqual([[0, 0, 10], [3, 0, 14]], stacked);
  assert.deepEqual([[0, 0, 2.5], [0, 0, 2.5]], seriesOf(rows, "model", "2026-02-28", "2026-03-02", "cost").stacked);
});

test("more sums than colours share the last one", () => {
  const rows = Array.from({ length: 12 }, (_, index) => ({ day: "2026-03-02", key: `key_${index}`, calls: String(index + 1) }));
  const { stacked, sums } = seriesOf(rows, "key", "2026-03-02", "2026-03-02", "calls");
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7], sums.map(({ place }) => place));
  assert.deepEqual([8, [78]], [stacked.length, stacked.at(-1)]);
});

test("a report without rows is empty", () => {
  assert.deepEqual({ days: [Date.UTC(2026, 2, 2) / 1000], stacked: [], sums: [] }, seriesOf([], "model", "2026-03-02", "2026-03-02", "calls"));
});

test("budgets have what the account has used today and this month", () => {
  const today = { account: "acme", completion_tokens: "7", cost_nanos: "500000000" };
  const month = { account: "acme", prompt_tokens: "5", completion_tokens: "7", cost_nanos: "1500000000" };
  assert.deepEqual(
    [
      { name: "tokens_per_day", used: 7, limit: 10 },
      { name: "tokens_per_month", used: 12, limit: undefined },
      { name: "cost_per_month", used: 1.5, limit: undefined },
    ],
    budgetsOf({ tokens_per_day: 10, requests_per_minute: 3 }, today, month),
  );
  assert.deepEqual([{ name: "tokens_per_day", used: 0, limit: 10 }], budgetsOf({ tokens_per_day: 10 }));
});

test("an empty field is no limit", () => {
  assert.deepEqual({ concurrent: 5, cost_per_day: 0.5 }, limitsOf({ ...textsOf({ concurrent: 5 }), cost_per_day: "0.5", tokens_per_day: " " }));
});

const EXPIRED = Date.UTC(2026, 2, 2, 9) / 1000;
const KEY = { id: "key_1", name: "ci", account: "acme", scopes: ["models", "chat"], limits: { concurrent: 5 }, state: "KEY_STATE_EXPIRED", expires: EXPIRED } as const;
const SETTINGS = { name: "ci", account: "acme", models: [], scopes: ["chat", "models"], limits: { concurrent: 5 }, expires: EXPIRED };

test("the expiry of a key is the known second until another day is chosen", () => {
  assert.equal(EXPIRED, expiryOf("2026-03-02", EXPIRED));
  assert.equal(Date.UTC(2026, 2, 3, 23, 59, 59) / 1000, expiryOf("2026-03-03", EXPIRED));
  assert.equal(Date.UTC(2026, 2, 2, 23, 59, 59) / 1000, expiryOf("2026-03-02", undefined));
  assert.deepEqual([undefined, undefined], [expiryOf("", EXPIRED), expiryOf("", undefined)]);
});

test("only what was changed of a key is sent", () => {
  const known = { ...KEY, scopes: [...KEY.scopes] };
  assert.equal(null, changeOf(known, SETTINGS));
  assert.deepEqual({ key: { id: "key_1", name: "cd" }, update_mask: "name" }, changeOf(known, { ...SETTINGS, name: "cd" }));
  const { expires: _, ...unlimited } = SETTINGS;
  assert.deepEqual(
    { key: { id: "key_1", limits: {}, expires: undefined }, update_mask: "limits,expires" },
    changeOf(known, { ...unlimited, limits: {} }),
  );
});

test("a list that is too long says that it is cut", async () => {
  let calls = 0;
  const call = async () => ({ keys: [++calls], next_page_token: calls < 12 ? "more" : undefined });
  assert.deepEqual({ found: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], isCut: true }, await all(call as never, "Keys/ListKeys", "keys"));
  assert.deepEqual({ found: [11, 12], isCut: false }, await all(call as never, "Keys/ListKeys", "keys"));
});

test("a listener without operations has the views of what is stored", () => {
  assert.deepEqual(["live", "usage", "keys", "accounts", "log", "changes"], viewsOf(true));
  assert.deepEqual(["usage", "keys", "accounts", "changes"], viewsOf(false));
});
