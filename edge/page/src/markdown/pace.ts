// How often something that grows is computed anew.

/** Work that takes longer than a frame, in milliseconds, is slow. */
const SLOW_MS = 16;
/** After slow work, the next one waits for so many times its duration. */
const REST = 10;

/** Leaves the page most of its time, where the text of an answer is slow to parse. */
export class Pace {
  private next = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** Whether the work is to be done now. */
  get isDue(): boolean {
    return this.now() >= this.next;
  }

  /** Does the work; returns its result. */
  run<T>(work: () => T): T {
    const start = this.now();
    const result = work();
    const end = this.now();
    this.next = end - start > SLOW_MS ? end + REST * (end - start) : 0;
    return result;
  }
}
