// What each view of the console gets.

import type { Call } from "./admin";

export interface ViewProps {
  call: Call;
  /** What the address names: for the log, a request. */
  id: string | null;
  /** Whether the listener serves the operations of the running service. */
  operations: boolean;
  onFailure(error: unknown): void;
  /**
   * Asks first, then makes a change and reports it. Returns whether it was made. A refusal is reported too, above the view, or to
   * `onRefused` for a dialog over it.
   */
  change(question: string, action: () => Promise<unknown>, done: string, onRefused?: (reason: string) => void): Promise<boolean>;
}
