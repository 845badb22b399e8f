// Sessions and their forks.

import type { Session } from "../api/types";

export interface Node {
  session: Session;
  forks: Node[];
}

/** Returns the sessions as trees: each fork is below the session that it was forked from, if that is listed. */
export function treesOf(sessions: Session[]): Node[] {
  const nodes = new Map(sessions.map((session) => [session.id, { session, forks: [] } as Node]));
  const roots: Node[] = [];
  for (const node of nodes.values()) {
    const origin = nodes.get(node.session.forked_from ?? "");
    (origin && origin !== node ? origin.forks : roots).push(node);
  }
  return roots;
}

/** Returns the sessions whose id, model or title contains the text. */
export function matching(sessions: Session[], text: string): Session[] {
  const wanted = text.trim().toLowerCase();
  return sessions.filter(({ id, model, title }) => [id, model, title].some((one) => one?.toLowerCase().includes(wanted)));
}

/** Returns the sessions of both lists, each once, the latest turn first. */
export function merged(some: Session[], others: Session[]): Session[] {
  const all = new Map([...some, ...others].map((session) => [session.id, session]));
  return [...all.values()].sort((a, b) => b.updated - a.updated);
}
