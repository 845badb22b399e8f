// Markdown and math, parsed into tokens. HTML in the source is text.

import MarkdownIt, { type StateBlock, type StateInline, type Token } from "markdown-it";

export const parser = new MarkdownIt({ html: false, linkify: true });

/** Longer formulas in a line are text: an answer may begin thousands that never end. */
const MAX_INLINE = 1_000;
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
    return isAmount ? null : { content: source.slice(pos + 1, end), end: end + 1 };
  }
  return null;
}

/** `$$x$$` and `\[x\]`, over several lines, from the beginning of a line to the end of one. */
function blockMath(state: StateBlock, first: number, last: number, silent: boolean): boolean {
  const start = (state.bMarks[first] ?? 0) + (state.tShift[first] ?? 0);
  const delimiters = DELIMITERS.find(([open]) => state.src.startsWith(open, start));
  if (!delimiters) return false;
  const [open, close] = delimiters;
  if (isUnclosed(state, close, first, last)) return false;
  for (let line = first; line < last; line++) {
    const end = state.eMarks[line] ?? 0;
    const text = state.src.slice(line === first ? start + open.length : (state.bMarks[line] ?? 0), end).trimEnd();
    if (!text.endsWith(close)) continue;
    if (silent) return true;
    const stop = state.src.lastIndexOf(close, end);
    const token = state.push("math_block", "math", 0);
    token.content = state.src.slice(start + open.length, stop);
    token.map = [first, line + 1];
    token.block = true;
    state.line = line + 1;
    return true;
  }
  unclosedOf(state).set(close, { first, last });
  return false;
}

interface Lines {
  first: number;
  last: number;
}

/** Returns the lines in which each delimiter has been searched in vain, so that a text with many is searched once. */
function unclosedOf({ env }: StateBlock): Map<string, Lines> {
  const known = env as { unclosed?: Map<string, Lines> };
  return (known.unclosed ??= new Map());
}

function isUnclosed(state: StateBlock, close: string, first: number, last: number): boolean {
  const known = unclosedOf(state).get(close);
  return known !== undefined && known.first <= first && last <= known.last;
}

parser.inline.ruler.before("escape", "math", inlineMath);
parser.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "blockquote", "list"] });

export function tokensOf(source: string): Token[] {
  return parser.parse(source, {});
}

/** Returns the offsets at which the blocks of a source begin; the first is 0. */
export function blockStarts(source: string): number[] {
  const tokens: Token[] = [];
  parser.block.parse(source, parser, {}, tokens);
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
