// The other calls of the page: models, sessions, and what the edge tells about this server.

import { read, type Credential } from "./http";
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

/** Returns the messages of a session's last turn. */
export async function lastTurn(credential: Credential, session: string): Promise<SessionMessage[]> {
  let messages: SessionMessage[] = [];
  let token = "";
  do {
    const query = `page_size=${PAGE_SIZE}${token && `&page_token=${encodeURIComponent(token)}`}`;
    const path = `/api/v1/sessions/${encodeURIComponent(session)}/messages?${query}`;
    const page = await read<{ messages: SessionMessage[]; next_page_token?: string }>(credential, path);
    messages = page.messages.length ? page.messages : messages;
    token = page.next_page_token ?? "";
  } while (token);
  const turn = messages.at(-1)?.turn;
  return messages.filter((message) => message.turn === turn);
}
