// The views of the console, by the fragment of its address: `#/VIEW`, or `#/log/ID` for one request.

import { useEffect, useState } from "preact/hooks";

export const VIEWS = ["live", "usage", "keys", "accounts", "log", "changes"] as const;
export type View = (typeof VIEWS)[number];

const OF_OPERATIONS: readonly View[] = ["live", "log"];

/** Returns the views of a listener, which may not serve the operations of the running service. */
export function viewsOf(operations: boolean): readonly View[] {
  return operations ? VIEWS : VIEWS.filter((view) => !OF_OPERATIONS.includes(view));
}

export interface Route {
  view: View;
  id: string | null;
}

function current(): Route {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: VIEWS.find((view) => view === name) ?? VIEWS[0], id: id ? decoded(id) : null };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function logOf(request: string): string {
  return `#/log/${encodeURIComponent(request)}`;
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
