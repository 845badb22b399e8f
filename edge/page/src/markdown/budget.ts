// How much of an answer is laid out: an answer may have a hundred thousand elements, and a browser would freeze.

import type { Token } from "markdown-it";

/** The weight of a block that is still laid out, and of all blocks of an answer. A token weighs 1. */
const MAX_BLOCK = 20_000;
const MAX_ANSWER = 60_000;
/** A formula becomes a tree of elements, the larger the longer it is. */
const FORMULA = 20;
const FORMULA_PART = 5; // characters

/** What the blocks of one answer may still use. */
export class Budget {
  private readonly used = new Map<object, number>();

  /** Returns whether a block with these tokens is laid out. */
  admits(block: object, tokens: Token[]): boolean {
    const weight = weightOf(tokens);
    this.used.delete(block);
    const isAdmitted = weight <= MAX_BLOCK && weight + this.total <= MAX_ANSWER;
    if (isAdmitted) this.used.set(block, weight);
    return isAdmitted;
  }

  private get total(): number {
    return [...this.used.values()].reduce((sum, weight) => sum + weight, 0);
  }
}

function weightOf(tokens: Token[]): number {
  return tokens.reduce((sum, token) => sum + ownWeight(token) + weightOf(token.children ?? []), 0);
}

function ownWeight({ type, content }: Token): number {
  return type.startsWith("math") ? FORMULA + content.length / FORMULA_PART : 1;
}
