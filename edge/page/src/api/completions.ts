// Streams of answers.

import { texts } from "../texts";
import { events } from "./events";
import { ApiError, messageOf, send, type Credential } from "./http";
import type { Chunk, Message } from "./types";

/** A request's parameters besides the model and the messages, as the API names them. */
export type Parameters = Record<string, unknown>;

export interface CompletionRequest {
  model: string;
  messages: Message[];
  parameters: Parameters;
  session: string | null;
  /** Whether the answer is not to come from the cache of the model. */
  isFresh?: boolean;
}

/** Returns the body of a request. */
export function bodyOf({ model, messages, parameters }: CompletionRequest): Record<string, unknown> {
  return { model, messages, ...parameters, stream: true, stream_options: { include_usage: true } };
}

export interface Opened {
  requestId: string | null;
  session: string | null;
  chunks: AsyncGenerator<Chunk[]>;
}

/** Starts a stream. It throws ApiError if it has an error event, or ends without its last event. */
export async function openStream(
  credential: Credential,
  request: CompletionRequest,
  signal: AbortSignal,
): Promise<Opened> {
  const headers: Record<string, string> = { accept: "text/event-stream" };
  if (request.isFresh) headers["cache-control"] = "no-cache";
  if (request.session) headers["x-chat-session-id"] = request.session;
  const options = { method: "POST", body: bodyOf(request), headers, signal };
  const response = await send(credential, "/v1/chat/completions", options);
  const requestId = response.headers.get("x-request-id");
  return { requestId, session: response.headers.get("x-chat-session-id"), chunks: chunks(response, requestId, signal) };
}

async function* chunks(response: Response, requestId: string | null, signal: AbortSignal): AsyncGenerator<Chunk[]> {
  try {
    if (response.body) {
      for await (const batch of events(response.body)) {
        const end = batch.indexOf("[DONE]");
        yield parse(end < 0 ? batch : batch.slice(0, end), requestId);
        if (end >= 0) return;
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError(texts.errors.broken, 0, requestId);
  }
  throw new ApiError(texts.errors.broken, 0, requestId);
}

function parse(batch: string[], requestId: string | null): Chunk[] {
  return batch.map((data) => {
    const value: unknown = JSON.parse(data);
    const message = messageOf(value);
    if (message !== null) throw new ApiError(message, 200, requestId);
    return value as Chunk;
  });
}
