// Where the focus goes when a form takes the place of the button that has opened it.

import { useLayoutEffect, useRef } from "preact/hooks";

/** Returns the reference of an element that is focused when it appears, if wanted. */
export function useFocus<T extends HTMLElement>(isWanted = true) {
  const element = useRef<T>(null);
  useLayoutEffect(() => {
    if (isWanted) element.current?.focus();
  }, []);
  return element;
}

/** Returns the reference of the button of a form; it is focused when the form is closed. */
export function useFocusAfter(isOpen: boolean) {
  const button = useRef<HTMLButtonElement>(null);
  const wasOpen = useRef(false);
  useLayoutEffect(() => {
    if (wasOpen.current && !isOpen) button.current?.focus();
    wasOpen.current = isOpen;
  }, [isOpen]);
  return button;
}

/**
 * Returns the reference of an element and its listener, for a part of a page whose buttons disappear when they have done their work.
 * Where the focused one has disappeared, the focus moves to the first button of its row, or else to the heading.
 */
export function useFocusKept<T extends HTMLElement>() {
  const part = useRef<T>(null);
  const focused = useRef<{ element: Element; row: Element | null } | null>(null);
  useLayoutEffect(() => {
    const lost = focused.current;
    if (!lost || lost.element.isConnected) return;
    focused.current = null;
    if (document.activeElement !== document.body) return;
    const next = (lost.row?.isConnected && lost.row.querySelector("button")) || part.current?.querySelector("h2");
    next?.focus({ preventScroll: true });
  });
  const onFocusIn = ({ target }: FocusEvent) => {
    if (target instanceof Element) focused.current = { element: target, row: target.closest("tr") };
  };
  return { ref: part, onFocusIn };
}
