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
