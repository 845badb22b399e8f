// JSON of a model, laid out for a reader.

/** Longer texts are shown as they are. */
const MAX_LENGTH = 100_000;
/** Each level is a further indent of each of its lines: without a bound, the text would grow by the square of its depth. */
const MAX_DEPTH = 50;

/** Returns JSON in several lines; a text that is not JSON, is long or is deeply nested as it is. */
export function indented(text: string): string {
  if (text.length > MAX_LENGTH || depthOf(text) > MAX_DEPTH) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Returns how deeply the brackets of a text are nested, those in its strings left out. */
function depthOf(text: string): number {
  let [depth, deepest] = [0, 0];
  for (const [bracket] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[{\]}]/g)) {
    if (bracket === "[" || bracket === "{") deepest = Math.max(deepest, ++depth);
    else if (bracket === "]" || bracket === "}") depth--;
  }
  return deepest;
}
