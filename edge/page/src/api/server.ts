// The other calls of the page: models, sessions, and what the edge tells about this server.

import { read, send, type Credential } from "./http";
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

/** Yields the pages of a session's messages, the oldest first. */
async function* messagePages(credential: Credential, session: string): AsyncGenerator<SessionMessage[]> {
  let token = "";
  do {
    const path = `${pathOf(session)}/messages?page_size=${PAGE_SIZE}${pageAfter(token)}`;
    const page = await read<{ messages: SessionMessage[]; next_page_token?: string }>(credential, path);
    yield page.messages;
    token = page.next_page_token ?? "";
  } while (token);
}

export async function listMessages(credential: Credential, session: string): Promise<SessionMessage[]> {
  const found: SessionMessage[] = [];
  for await (const page of messagePages(credential, session)) found.push(...page);
  return found;
}

/** Returns the messages of a session's last turn. */
export async function lastTurn(credential: Credential, session: string): Promise<SessionMessage[]> {
  let last: SessionMessage[] = [];
  for await (const page of messagePages(credential, session)) last = page.length ? page : last;
  const turn = last.at(-1)?.turn;
  return last.filter((message) => message.turn === turn);
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

/** Changes the title of a session; an empty one removes it. */
export function renameSession(credential: Credential, session: string, title: string): Promise<Session> {
  return read<Session>(credential, pathOf(session), { method: "PATCH", body: { title } });
}

export function getSession(credential: Credential, session: string): Promise<Session> {
  return read<Session>(credential, pathOf(session));
}

export async function deleteSession(credential: Credential, session: string): Promise<void> {
  await send(credential, pathOf(session), { method: "DELETE" });
}

/** Returns the messages of a session as JSON Lines. */
export async function exportSession(credential: Credential, session: string): Promise<Blob> {
  return (await send(credential, `${pathOf(session)}/export`)).blob();
}
