// The views of the page, by the fragment of its address: `#/VIEW`, or `#/VIEW/ID` for one session.

import { useEffect, useState } from "preact/hooks";

/** The console will be a further view. */
export const VIEWS = ["playground", "sessions"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  view: View;
  id: string | null;
}

/** Returns the fragment of a session in the Playground. */
export function addressOf(session: string): string {
  return `#/playground/${encodeURIComponent(session)}`;
}

export function currentRoute(): Route {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: VIEWS.find((view) => view === name) ?? VIEWS[0], id: id ? decoded(id) : null };
}

/** Returns a part of the address; one that is not encoded correctly as it is. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function useRoute(): Route {
  const [route, setRoute] = useState(currentRoute);
  useEffect(() => {
    const change = () => setRoute(currentRoute());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return route;
}
