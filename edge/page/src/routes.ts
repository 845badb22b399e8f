// The views of the page, by the fragment of its address.

import { useEffect, useState } from "preact/hooks";

/** The sessions and the console will be further views. */
export const VIEWS = ["playground"] as const;
export type View = (typeof VIEWS)[number];

function current(): View {
  const name = location.hash.replace(/^#\/?/, "").split("/")[0];
  return VIEWS.find((view) => view === name) ?? VIEWS[0];
}

export function useView(): View {
  const [view, setView] = useState(current);
  useEffect(() => {
    const change = () => setView(current());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return view;
}
