// An answer, made of the parts of its stream.

import type { Chunk, Delta, Receipt, TokenLogprob, ToolCall, ToolCallDelta, TurnState, Usage } from "../api/types";

export type AnswerState = "streaming" | "done" | "stopped" | "failed";

export interface Answer {
  state: AnswerState;
  model: string;
  text: string;
  reasoning: string;
  refusal: string;
  toolCalls: ToolCall[];
  images: string[];
  logprobs: TokenLogprob[];
  finish: string | null;
  usage: Usage | null;
  receipt: Receipt | null;
  /** The state of its turn in the session; null until it is known. */
  stored: TurnState | null;
  requestId: string | null;
  error: string | null;
  /** Milliseconds of `performance.now()`. */
  startedAt: number;
  firstTokenAt: number | null;
  endedAt: number | null;
}

export function newAnswer(model: string, now: number): Answer {
  return {
    ...{ state: "streaming", model, text: "", reasoning: "", refusal: "", toolCalls: [], images: [], logprobs: [] },
    ...{ finish: null, usage: null, receipt: null, stored: null, requestId: null, error: null },
    ...{ startedAt: now, firstTokenAt: null, endedAt: null },
  };
}

/** Adds a part of the stream to the answer. */
export function append(answer: Answer, chunk: Chunk, now: number): void {
  answer.model = chunk.model ?? answer.model;
  answer.usage = chunk.usage ?? answer.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  answer.finish = choice.finish_reason ?? answer.finish;
  if (choice.logprobs?.content) answer.logprobs.push(...choice.logprobs.content);
  if (choice.delta && appendDelta(answer, choice.delta)) answer.firstTokenAt ??= now;
}

/** Returns whether the delta had any content. */
function appendDelta(answer: Answer, delta: Delta): boolean {
  answer.text += delta.content ?? "";
  answer.reasoning += delta.reasoning_content ?? "";
  answer.refusal += delta.refusal ?? "";
  for (const call of delta.tool_calls ?? []) appendCall(answer.toolCalls, call);
  for (const image of delta.images ?? []) if (image.image_url?.url) answer.images.push(image.image_url.url);
  const { content, reasoning_content: reasoning, refusal, tool_calls: calls, images } = delta;
  return Boolean(content || reasoning || refusal || calls?.length || images?.length);
}

function appendCall(calls: ToolCall[], delta: ToolCallDelta): void {
  const index = delta.index ?? 0;
  const call = (calls[index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  call.id = delta.id ?? call.id;
  call.function.name += delta.function?.name ?? "";
  call.function.arguments += delta.function?.arguments ?? "";
}
