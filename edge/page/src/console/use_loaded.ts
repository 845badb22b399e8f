// What a view reads of the admin API, once or again and again.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Loaded<T> {
  /** Null until it is known. */
  value: T | null;
  reload(): void;
}

/** What has not changed stays the same object, so that nothing is drawn again. */
function isEqual(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/**
 * Reads a value when the view is shown and whenever `of` changes. With `everyMs` it is read again so often, while the page is
 * visible; a failure that repeats is reported once.
 */
export function useLoaded<T>(
  load: () => Promise<T>,
  of: readonly unknown[],
  onFailure: (error: unknown) => void,
  everyMs = 0,
): Loaded<T> {
  const [value, setValue] = useState<T | null>(null);
  const [turn, setTurn] = useState(0);
  const isFailing = useRef(false);
  useEffect(() => {
    let isCurrent = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async () => {
      if (!document.hidden || !everyMs) {
        try {
          const found = await load();
          if (isCurrent) setValue((known) => (isEqual(known, found) ? known : found));
          isFailing.current = false;
        } catch (error) {
          if (isCurrent && !isFailing.current) onFailure(error);
          isFailing.current = true;
        }
      }
      if (isCurrent && everyMs) timer = setTimeout(() => void read(), everyMs);
    };
    void read();
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [...of, turn]);
  return { value, reload: useCallback(() => setTurn((last) => last + 1), []) };
}
