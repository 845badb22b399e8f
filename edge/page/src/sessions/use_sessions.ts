// The account's sessions, as far as they are listed, and those that a search finds.

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { deleteSession, listSessions, searchSessions, updateSession, type SessionChange, type SessionPage } from "../api/server";
import type { Session } from "../api/types";
import { matching, merged } from "./tree";

/** A search starts when the text has not changed for so long, in milliseconds. */
const PAUSE_MS = 300;

export interface Listed {
  /** The sessions to show; null until they are known. */
  shown: Session[] | null;
  /** Whether a search is in progress. */
  isSearching: boolean;
  /** Lists further sessions; null if there are none. */
  more: (() => void) | null;
  /** Returns whether the session was changed. */
  update(session: Session, change: SessionChange): Promise<boolean>;
  remove(session: Session): void;
}

export function useSessions(credential: string, text: string, onFailure: (error: unknown) => void): Listed {
  const [sessions, setSessions] = useState<Session[] | null>(null);
  const [next, setNext] = useState("");
  const { found, setFound, isSearching } = useSearch(credential, text.trim(), onFailure);
  const load = (token: string) =>
    listSessions(credential, token).then((page) => {
      setSessions((known) => [...(token ? (known ?? []) : []), ...page.sessions]);
      setNext(page.next_page_token ?? "");
    }, onFailure);
  useEffect(() => void load(""), [credential]);
  const change = (changed: (known: Session[]) => Session[]) => {
    setSessions((known) => known && changed(known));
    setFound(changed);
  };
  return {
    shown: sessions && (text.trim() ? merged(matching(sessions, text), found) : sessions),
    isSearching,
    more: next ? () => void load(next) : null,
    update: (session, wanted) => {
      const replace = (changed: Session) => change((known) => known.map((one) => (one.id === changed.id ? changed : one)));
      return updateSession(credential, session.id, wanted).then(
        (changed) => (replace(changed), true),
        (error: unknown) => (onFailure(error), false),
      );
    },
    remove: (session) => {
      const forget = () => change((known) => known.filter(({ id }) => id !== session.id));
      void deleteSession(credential, session.id).then(forget, onFailure);
    },
  };
}

/** Searches titles and messages, a moment after the text was changed. */
function useSearch(credential: string, text: string, onFailure: (error: unknown) => void) {
  const [found, setFound] = useState<Session[]>([]);
  const [isSearching, setSearching] = useState(false);
  useEffect(() => {
    setFound([]);
    setSearching(Boolean(text));
    if (!text) return undefined;
    const controller = new AbortController();
    const search = () =>
      searched(credential, text, controller.signal, setFound)
        .catch((error: unknown) => controller.signal.aborted || onFailure(error))
        .then(() => controller.signal.aborted || setSearching(false));
    const timer = setTimeout(() => void search(), PAUSE_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [credential, text]);
  return { found, setFound, isSearching };
}

/** Repeats a search until all turns are indexed. A text without a word finds nothing. */
async function searched(credential: string, text: string, signal: AbortSignal, show: (found: Session[]) => void) {
  for (let isComplete = false; !isComplete && !signal.aborted; ) {
    const page = await searchSessions(credential, text, signal).catch((error: unknown): SessionPage => {
      if (error instanceof ApiError && error.status === 400) return { sessions: [] };
      throw error;
    });
    if (!signal.aborted) show(page.sessions);
    isComplete = !page.incomplete;
  }
}
