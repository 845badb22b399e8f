// Highlighting of code. A part of its own, because few answers need it at once.

import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import csharp from "highlight.js/lib/languages/csharp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import kotlin from "highlight.js/lib/languages/kotlin";
import php from "highlight.js/lib/languages/php";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import swift from "highlight.js/lib/languages/swift";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { createLowlight } from "lowlight";
import type { ComponentChild } from "preact";

const GRAMMARS = {
  ...{ bash, c, cpp, csharp, css, diff, go, java, javascript, json, kotlin, php, python, ruby, rust, sql, swift },
  ...{ typescript, xml, yaml },
};
const lowlight = createLowlight(GRAMMARS);
const MAX_CACHED = 100;
/** Code with more or deeper parts stays as it is: it is no code that anybody has written. */
const MAX_PARTS = 10_000;
const MAX_DEPTH = 50;
const cache = new Map<string, ComponentChild[]>();

interface Node {
  type: string;
  value?: string;
  properties?: { className?: unknown };
  children?: Node[];
}

/** Returns the code as elements, null for an unknown language and for code with too many parts. */
export function highlight(code: string, language: string): ComponentChild[] | null {
  const name = language.toLowerCase();
  if (!lowlight.registered(name)) return null;
  const key = `${name}\n${code}`;
  const known = cache.get(key);
  if (known) return known;
  const tree = lowlight.highlight(name, code) as Node;
  if (!isSmall(tree)) return null;
  const made = elements(tree.children);
  if (cache.size >= MAX_CACHED) cache.clear();
  cache.set(key, made);
  return made;
}

function isSmall(tree: Node): boolean {
  let level: Node[] = [tree];
  let parts = 0;
  for (let depth = 0; level.length; depth++) {
    parts += level.length;
    if (depth > MAX_DEPTH || parts > MAX_PARTS) return false;
    level = level.flatMap(({ children = [] }) => children);
  }
  return true;
}

function elements(nodes: Node[] = []): ComponentChild[] {
  return nodes.map((node) => {
    if (node.type === "text") return node.value ?? "";
    const names = node.properties?.className;
    return <span class={Array.isArray(names) ? names.join(" ") : ""}>{elements(node.children)}</span>;
  });
}
