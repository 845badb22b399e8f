// Markdown and math, parsed into tokens. HTML in the source is text.

import MarkdownIt, { type StateBlock, type StateInline, type Token } from "markdown-it";

export const parser = new MarkdownIt({ html: false, linkify: true });

/** Longer formulas in a line are text: an answer may begin thousands that never end. */
const MAX_INLINE = 1_000;
const MAX_LINES = 50;
const DELIMITERS: [string, string][] = [
  ["$$", "$$"],
  ["\\[", "\\]"],
];

/** `$x$`, where a dollar sign beside a space or before a digit is an amount of money, and `\(x\)`. */
function inlineMath(state: StateInline, silent: boolean): boolean {
  const { src, pos } = state;
  const found = src.startsWith("\\(", pos) ? enclosed(src, pos + 2, "\\)") : dollars(src, pos);
  if (!found) return false;
  if (!silent) state.push("math_inline", "math", 0).content = found.content;
  state.pos = found.end;
  return true;
}

interface Enclosed {
  content: string;
  end: number;
}

function enclosed(source: string, start: number, close: string): Enclosed | null {
  const content = source.slice(start, start + MAX_INLINE).split(close, 1)[0]!;
  const end = start + content.length + close.length;
  return source.startsWith(close, start + content.length) ? { content, end } : null;
}

function dollars(source: string, pos: number): Enclosed | null {
  if (source[pos] !== "$" || /[\s$]/.test(source[pos + 1] ?? " ")) return null;
  for (let end = source.indexOf("$", pos + 1); end > 0; end = source.indexOf("$", end + 1)) {
    if (end > pos + MAX_INLINE) return null;
    if (source[end - 1] === "\\") continue;
    const isAmount = /\s/.test(source[end - 1] ?? "") || /\d/.test(source[end + 1] ?? "");
    const content = source.slice(pos + 1, end);
    return isAmount || content.includes("`") ? null : { content, end: end + 1 };
  }
  return null;
}

/** `$$x$$` and `\[x\]`, over several lines, from the beginning of a line to the end of one. */
function blockMath(state: StateBlock, first: number, last: number, silent: boolean): boolean {
  const start = (state.bMarks[first] ?? 0) + (state.tShift[first] ?? 0);
  const delimiters = DELIMITERS.find(([open]) => state.src.startsWith(open, start));
  if (!delimiters) return false;
  const [open, close] = delimiters;
  const line = closingLine(state, close, start + open.length, first, last);
  if (line === null) return false;
  if (silent) return true;
  const end = line < last ? state.src.lastIndexOf(close, state.eMarks[line]) : state.eMarks[last - 1];
  const token = state.push("math_block", "math", 0);
  token.content = state.src.slice(start + open.length, end);
  token.map = [first, Math.min(line + 1, last)];
  token.block = true;
  state.line = Math.min(line + 1, last);
  return true;
}

/** Returns the line that ends a formula, `last` if it may still arrive, null if there is none. */
function closingLine(state: StateBlock, close: string, start: number, first: number, last: number): number | null {
  const end = Math.min(last, first + MAX_LINES);
  for (let line = first; line < end; line++) {
    const text = state.src.slice(line === first ? start : state.bMarks[line], state.eMarks[line]);
    if (text.trimEnd().endsWith(close)) return line;
  }
  return end === last && (state.env as Environment).grows ? last : null;
}

/** `grows`: whether more text may follow. */
type Environment = { grows?: boolean };

parser.inline.ruler.before("escape", "math", inlineMath);
parser.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "blockquote", "list"] });

export function tokensOf(source: string): Token[] {
  return parser.parse(source, {});
}

/** Returns the offsets at which the blocks of a source begin, to which more text may be added; the first is 0. */
export function blockStarts(source: string): number[] {
  const tokens: Token[] = [];
  const environment: Environment = { grows: true };
  parser.block.parse(source, parser, environment, tokens);
  const lines = tokens.filter(({ level, nesting, map }) => level === 0 && nesting >= 0 && map).map(({ map }) => map![0]);
  return offsets(source, lines);
}

function offsets(source: string, lines: number[]): number[] {
  const found = [0];
  let offset = 0;
  let line = 0;
  for (const wanted of lines) {
    for (; line < wanted; line++) offset = source.indexOf("\n", offset) + 1;
    if (offset > found.at(-1)!) found.push(offset);
  }
  return found;
}
