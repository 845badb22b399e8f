// Requests to this server, with the caller's credential, and their errors.

import { texts } from "../texts";

/** An error of the API, or of the connection (`status` 0). */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly requestId: string | null = null,
    readonly retryAfter: string | null = null,
    /** The field of the request that the error is about. */
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

export interface Options {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export type Credential = string | null;

/** Sends a request. Throws ApiError unless the status is 2xx; an aborted request throws AbortError. */
export async function send(credential: Credential, path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (credential) headers.set("authorization", `Bearer ${credential}`);
  const init: RequestInit = { method: options.method ?? "GET", headers };
  // Browsers keep no other answers; with a question, they would tell Parley to exclude it from the model's cache.
  if (init.method === "GET") init.cache = "no-store";
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    headers.set("content-type", "application/json");
    init.body = JSON.stringify(options.body);
  }
  const response = await fetch(path, init).catch((error: unknown) => {
    if (options.signal?.aborted) throw error;
    throw new ApiError(texts.errors.unreachable, 0);
  });
  if (!response.ok) throw await failure(response);
  return response;
}

export async function read<T>(credential: Credential, path: string, options: Options = {}): Promise<T> {
  const response = await send(credential, path, options);
  return (await response.json()) as T;
}

/** Returns the error of a response, in the form of either dialect: an object with a message, or a text. */
async function failure(response: Response): Promise<ApiError> {
  const body: unknown = await response.json().catch(() => null);
  const message = messageOf(body) ?? texts.errors.status(response.status);
  const { headers } = response;
  const { param } = (body as { error?: { param?: string | null } } | null)?.error ?? {};
  return new ApiError(message, response.status, headers.get("x-request-id"), headers.get("retry-after"), param ?? null);
}

/** Returns whether the session of a call does not exist any more. */
export function isSessionGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404 && error.param === "chatSessionId";
}

/** Returns the text of an error for the reader: what is wrong, and what to do. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : String(error);
  const { message, status, retryAfter } = error;
  if (status === 401) return texts.errors.key(message);
  if (isSessionGone(error)) return texts.errors.session;
  return Number(retryAfter) > 0 ? texts.errors.later(message, Number(retryAfter)) : message;
}

/** Returns the message of an error's JSON, null if it has none. That of the admin API has it at the top. */
export function messageOf(body: unknown): string | null {
  const error = (body as { error?: unknown } | null)?.error ?? body;
  if (typeof error === "string") return error;
  const message = (error as { message?: unknown } | undefined)?.message;
  return typeof message === "string" ? message : null;
}
