// The views of the page, by the fragment of its address: `#/VIEW`, or `#/VIEW/ID` for one session.

import { useEffect, useState } from "preact/hooks";

/** The console will be a further view. */
export const VIEWS = ["playground", "sessions"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  view: View;
  id: string | null;
}

function current(): Route {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: VIEWS.find((view) => view === name) ?? VIEWS[0], id: id ? decodeURIComponent(id) : null };
}

export function useRoute(): Route {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const change = () => setRoute(current());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return route;
}
