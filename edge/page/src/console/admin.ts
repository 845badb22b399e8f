// Calls of the admin API, which the listener of the console serves as JSON.

import { read, type Credential } from "../api/http";

/** Calls a method such as `Keys/ListKeys`. Throws ApiError. */
export type Call = <T>(method: string, request?: object) => Promise<T>;

export function caller(credential: Credential): Call {
  return <T>(method: string, request: object = {}) =>
    read<T>(credential, `/parley.admin.v1.${method}`, { method: "POST", body: request });
}

/** What the edge tells the console. */
export interface Settings {
  /** Whether administrators may have a certificate instead of a key. */
  certificates: boolean;
  /** Whether the listener serves the operations of the running service. */
  operations: boolean;
}

export function readSettings(): Promise<Settings> {
  return read<Settings>(null, "/console/settings.json");
}

const PAGE_SIZE = 1000;
const MOST_PAGES = 10;

export interface Listed<T> {
  found: T[];
  /** Whether the list has more entries. */
  isCut: boolean;
}

/** Reads the first pages of a list, up to 10,000 entries. */
export async function all<T>(call: Call, method: string, field: string): Promise<Listed<T>> {
  const found: T[] = [];
  let token: string | undefined;
  for (let pages = 0; pages < MOST_PAGES; pages++) {
    const page = await call<Record<string, unknown>>(method, { page_size: PAGE_SIZE, ...(token && { page_token: token }) });
    found.push(...((page[field] ?? []) as T[]));
    token = page["next_page_token"] as string | undefined;
    if (!token) break;
  }
  return { found, isCut: Boolean(token) };
}
