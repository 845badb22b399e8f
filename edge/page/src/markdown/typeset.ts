// Temml, as a part of its own.

import temml from "temml";

const MAX_LENGTH = 5_000;
const OPTIONS = { throwOnError: true, trust: false, maxSize: [20, 200] as [number, number], maxExpand: 300, annotate: true };

interface MathNode {
  attributes?: Record<string, string>;
  children?: MathNode[];
  toNode(): Element;
}

/** Returns the MathML of TeX, null if it is not valid. */
export function typeset(source: string, block: boolean): Element | null {
  if (source.length > MAX_LENGTH) return null;
  try {
    const tree = temml.__renderToMathMLTree(source, { ...OPTIONS, displayMode: block }) as MathNode;
    removeStyles(tree);
    return tree.toNode();
  } catch {
    return null;
  }
}

/** Removes `style` attributes, which the Content-Security-Policy forbids. Other styles are set one by one. */
function removeStyles(node: MathNode): void {
  delete node.attributes?.["style"];
  node.children?.forEach(removeStyles);
}
