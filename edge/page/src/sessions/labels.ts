// Labels as a reader types them: `name=value`, one in each line.

export type Labels = Record<string, string>;

export function labelLines(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n");
}

/** Returns the labels of the lines, null where one has no name. */
export function readLabels(text: string): Labels | null {
  const lines = text.split("\n").filter((line) => line.trim());
  const pairs = lines.map((line) => {
    const [name = "", ...value] = line.split("=");
    return [name.trim(), value.join("=").trim()] as const;
  });
  return pairs.every(([name]) => name) ? Object.fromEntries(pairs) : null;
}

/** Returns what is to change: the wanted labels, and null for those to remove. */
export function labelChange(before: Labels, wanted: Labels): Record<string, string | null> {
  const removed = Object.keys(before).filter((name) => !Object.hasOwn(wanted, name));
  return { ...wanted, ...Object.fromEntries(removed.map((name) => [name, null])) };
}
