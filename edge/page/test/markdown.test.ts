// Markdown that arrives in parts, formulas and addresses.

import { Pace } from "../src/markdown/pace";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Blocks } from "../src/markdown/blocks";
import { Budget } from "../src/markdown/budget";
import { highlight } from "../src/markdown/highlight";
import { calledAddress, imageOf, linkOf, withoutDirections, withoutOverrides } from "../src/markdown/links";
import { blockStarts, tokensOf } from "../src/markdown/parser";
import { elementsOf } from "../src/markdown/render";

const TEXT = `# Title

A paragraph
of two lines.

- one

  with a paragraph
- two

\`\`\`python
def f():

    return 1
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

$$
x

y
$$

> quoted

1. end
`;

/** Returns the types of all tokens, those inside of lines included. */
function types(source: string): string[] {
  return tokensOf(source).flatMap((token) => [token.type, ...(token.children ?? []).map(({ type }) => type)]);
}

/** Returns the formulas of a source. */
function formulas(source: string): string[] {
  return tokensOf(source)
    .flatMap((token) => [token, ...(token.children ?? [])])
    .filter(({ type }) => type.startsWith("math"))
    .map(({ content }) => content.trim());
}

test("the blocks of a text that grows are those of the whole text", () => {
  for (const size of [1, 2, 3, 7, 50]) {
    const blocks = new Blocks();
    let parts: string[] = [];
    for (let end = size; end < TEXT.length + size; end += size) parts = blocks.update(TEXT.slice(0, end));
    assert.equal(TEXT, parts.join(""));
    assert.deepEqual(types(TEXT), parts.flatMap(types));
  }
});

test("another text replaces the blocks", () => {
  const blocks = new Blocks();
  blocks.update("one\n\ntwo\n\nthree");
  assert.deepEqual(["new\n\n", "text"], blocks.update("new\n\ntext"));
});

test("line ends of Windows are line ends, also between two parts", () => {
  const blocks = new Blocks();
  blocks.update("one\r");
  assert.deepEqual(["one\n\n", "two"], blocks.update("one\r\n\r\ntwo"));
});

test("formulas are found, and amounts of money are not", () => {
  assert.deepEqual(["a", "b"], formulas("$a$ and \\(b\\)"));
  assert.deepEqual([], formulas("$5 and $6, US$7; \\$a\\$, `$a$`"));
  assert.deepEqual(["x\n\ny"], formulas("$$\nx\n\ny\n$$"));
  assert.deepEqual(["x"], formulas("\\[ x \\]"));
  assert.deepEqual([], formulas("$$\nnever closed"));
});

test("HTML is text", () => {
  const found = types("<script>x</script>\n\n<b>y</b>");
  assert.ok(!found.some((type) => type.startsWith("html")), found.join());
});

test("beginnings without an end are searched once", () => {
  for (const piece of ["\\[\n", "$$ x\n\n", "\\( ", "$a\\$ ", "[", "![", "> ", "`", "*a ", "<"]) {
    const source = piece.repeat(100_000 / piece.length);
    const start = process.cpuUsage();
    blockStarts(source);
    tokensOf(source.slice(0, 20_000));
    const { user } = process.cpuUsage(start);
    assert.ok(user < 5_000_000, `${JSON.stringify(piece)}: ${user} µs`);
  }
});

test("only http, https and mailto are links, and only images in the answer are shown", () => {
  for (const address of ["https://a.example/?b#c", "HTTP://a.example", " mailto:a@b.example"]) assert.ok(linkOf(address));
  for (const address of ["javascript:x", "data:text/html,x", "//a.example", "/a", "java\nscript:x", "vbscript:x", ""]) {
    assert.equal(null, linkOf(address), address);
  }
  assert.ok(imageOf("data:image/png;base64,AAAA"));
  for (const address of ["data:image/svg+xml;base64,AAAA", "https://a.example/a.png", "data:image/png,<svg>"]) {
    assert.equal(null, imageOf(address), address);
  }
});

test("characters that change the direction of text become visible", () => {
  assert.equal("a\ufffdb\u2066c", withoutOverrides("a\u202eb\u2066c"));
  assert.equal("a\ufffdb\ufffdc", withoutDirections("a\u202eb\u2066c"));
});

test("slow work waits for ten times its duration, and fast work never", () => {
  let now = 0;
  const pace = new Pace(() => now);
  const work = (ms: number) => pace.run(() => (now += ms));
  work(10);
  assert.equal(true, pace.isDue);
  work(100);
  assert.equal(false, pace.isDue);
  now += 999;
  assert.equal(false, pace.isDue);
  now += 1;
  assert.equal(true, pace.isDue);
});

test("an answer is laid out as far as a browser can bear it", () => {
  const budget = new Budget();
  const [small, formulas, large] = ["a ".repeat(10), "$x$ ".repeat(1_000), "a *b* ".repeat(7_000)].map(tokensOf);
  const first = {};
  assert.deepEqual([true, false, false], [budget.admits(first, small!), budget.admits({}, formulas!), budget.admits({}, large!)]);
  const part = tokensOf("a *b* ".repeat(3_500)); // 14,000 tokens and more
  assert.deepEqual([true, true, true, true, false], Array.from({ length: 5 }, () => budget.admits({}, part)));
  assert.equal(true, budget.admits(first, small!)); // again, when the block has grown
});

/** Returns how deeply elements are nested. */
function depthOf(node: unknown): number {
  if (Array.isArray(node)) return Math.max(0, ...node.map(depthOf));
  const children = (node as { props?: { children?: unknown } } | null)?.props?.children;
  return children === undefined ? 0 : 1 + depthOf(children);
}

test("elements are nested to a bound, and nothing is left out", () => {
  const elements = elementsOf(tokensOf(`${"*a **b ".repeat(500)}x${"§** d*".repeat(500)}`), false);
  const depth = depthOf(elements);
  assert.ok(depth > 50 && depth < 300, `${depth}`);
  assert.equal(500, JSON.stringify(elements).split("§").length - 1);
});

test("code with very many or very deep parts is not highlighted", () => {
  assert.ok(highlight("const a = `${b}`;", "js"));
  assert.equal(null, highlight(`${"`${".repeat(100)}x${"}`".repeat(100)}`, "js"));
  assert.equal(null, highlight("<a>".repeat(6_000), "html"));
});

test("the host of a link is shown as it is called", () => {
  assert.equal("https://xn--pple-43d.example/a", calledAddress("https://\u0430pple.example/a"));
  assert.equal("https://", calledAddress("https://"));
});
