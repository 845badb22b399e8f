// A text that grows, as blocks: only the last one changes, so that the others are parsed and rendered once.

import { Pace } from "./pace";
import { blockStarts } from "./parser";

/** A block beyond this length is shown as plain text while it grows; see `Markdown`. */
export const MAX_LIVE = 20_000;
/** A text beyond this length is not split: it would be parsed anew with each of its parts. */
const MAX_REST = 200_000;

export class Blocks {
  private source = "";
  private parts: string[] = [];
  private complete: string[] = [];
  private offset = 0;
  private readonly pace = new Pace();

  /** Returns the blocks of a text. They are those of the previous text where this one begins with it. */
  update(source: string): string[] {
    if (source === this.source) return this.parts;
    if (!source.startsWith(this.source)) {
      this.complete = [];
      this.offset = 0;
    }
    this.source = source;
    const rest = source.replace(/\r\n?/g, "\n").slice(this.offset);
    this.parts = this.pace.isDue ? this.pace.run(() => this.split(rest)) : [...this.complete, rest];
    return this.parts;
  }

  /** Splits the rest of the text; all but its last block are complete. */
  private split(rest: string): string[] {
    if (rest.length > MAX_REST) return [...this.complete, rest];
    const starts = blockStarts(rest);
    for (let i = 1; i < starts.length; i++) this.complete.push(rest.slice(starts[i - 1], starts[i]));
    const last = starts.at(-1) ?? 0;
    this.offset += last;
    return [...this.complete, rest.slice(last)];
  }
}
