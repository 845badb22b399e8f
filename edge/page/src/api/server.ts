// The other calls of the page: models, sessions, and what the edge tells about this server.

import { read, send, type Credential, type Options } from "./http";
import type { Model, Session, SessionMessage, Settings } from "./types";

const PAGE_SIZE = 1000;

export async function listModels(credential: Credential): Promise<Model[]> {
  return (await read<{ data: Model[] }>(credential, "/v1/models")).data;
}

export function readSettings(): Promise<Settings> {
  return read<Settings>(null, "/page/settings.json");
}

/** Copies the turns of a session up to and including `turn` into a new session. */
export function fork(credential: Credential, session: string, turn: number): Promise<Session> {
  const options = { method: "POST", body: { through_turn: turn } };
  return read<Session>(credential, `/api/v1/sessions/${encodeURIComponent(session)}/fork`, options);
}

const pathOf = (session: string) => `/api/v1/sessions/${encodeURIComponent(session)}`;
const pageAfter = (token: string) => (token ? `&page_token=${encodeURIComponent(token)}` : "");

/** Returns a session's messages, the oldest first: those of the turns behind `after`. */
export async function listMessages(
  credential: Credential,
  session: string,
  after = 0,
  options: Pick<Options, "signal"> = {},
): Promise<SessionMessage[]> {
  const found: SessionMessage[] = [];
  const first = `${pathOf(session)}/messages?page_size=${PAGE_SIZE}&after_turn=${after}`;
  let token = "";
  do {
    const page = await read<MessagePage>(credential, `${first}${pageAfter(token)}`, options);
    found.push(...page.messages);
    token = page.next_page_token ?? "";
  } while (token);
  return found;
}

interface MessagePage {
  messages: SessionMessage[];
  next_page_token?: string;
}

export interface SessionPage {
  sessions: Session[];
  next_page_token?: string;
  /** Whether a search has missed turns that are not indexed yet; repeating it indexes more of them. */
  incomplete?: boolean;
}

/** Returns a page of the account's sessions, the latest turn first. */
export function listSessions(credential: Credential, token: string): Promise<SessionPage> {
  return read<SessionPage>(credential, `/api/v1/sessions?page_size=100${pageAfter(token)}`);
}

/** Returns the latest sessions with all of the words in a turn or in the title. */
export function searchSessions(credential: Credential, words: string, signal: AbortSignal): Promise<SessionPage> {
  return read<SessionPage>(credential, `/api/v1/sessions?page_size=100&query=${encodeURIComponent(words)}`, { signal });
}

/** What is to change of a session: an empty title removes it, and so does null a label. */
export interface SessionChange {
  title: string;
  labels?: Record<string, string | null>;
}

export function updateSession(credential: Credential, session: string, change: SessionChange): Promise<Session> {
  return read<Session>(credential, pathOf(session), { method: "PATCH", body: change });
}

export function getSession(credential: Credential, session: string, options: Pick<Options, "signal">): Promise<Session> {
  return read<Session>(credential, pathOf(session), options);
}

export async function deleteSession(credential: Credential, session: string): Promise<void> {
  await send(credential, pathOf(session), { method: "DELETE" });
}

/** Returns the messages of a session as JSON Lines. */
export async function exportSession(credential: Credential, session: string): Promise<Blob> {
  return (await send(credential, `${pathOf(session)}/export`)).blob();
}
