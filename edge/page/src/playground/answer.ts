// An answer, made of the parts of its stream.

import type { Chunk, Delta, Receipt, TokenLogprob, ToolCall, ToolCallDelta, TurnState, Usage } from "../api/types";

/** A stream may name any index; those beyond are of no use to a reader. The API permits 128 choices. */
const MAX_CHOICES = 128;
const MAX_CALLS = 128;

export type AnswerState = "streaming" | "done" | "stopped" | "failed";

export interface Choice {
  text: string;
  reasoning: string;
  refusal: string;
  toolCalls: ToolCall[];
  images: string[];
  logprobs: TokenLogprob[];
  finish: string | null;
}

/** The first choice, and what all choices have in common. */
export interface Answer extends Choice {
  state: AnswerState;
  model: string;
  /** The other choices, where the parameter `n` is greater than 1. */
  others: Choice[];
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

function newChoice(): Choice {
  return { text: "", reasoning: "", refusal: "", toolCalls: [], images: [], logprobs: [], finish: null };
}

export function newAnswer(model: string, now: number): Answer {
  return {
    ...newChoice(),
    ...{ state: "streaming", model, others: [], usage: null, receipt: null, stored: null, requestId: null, error: null },
    ...{ startedAt: now, firstTokenAt: null, endedAt: null },
  };
}

/** Returns the calls of a choice; a stream may leave out an index. */
export function callsOf({ toolCalls }: Choice): ToolCall[] {
  return toolCalls.filter(Boolean);
}

/** Adds a part of the stream to the answer. */
export function append(answer: Answer, chunk: Chunk, now: number): void {
  answer.model = chunk.model ?? answer.model;
  answer.usage = chunk.usage ?? answer.usage;
  for (const { index = 0, delta, finish_reason: finish, logprobs } of chunk.choices ?? []) {
    const choice = choiceAt(answer, index);
    choice.finish = finish ?? choice.finish;
    for (const token of logprobs?.content ?? []) choice.logprobs.push(token);
    if (delta && appendDelta(choice, delta)) answer.firstTokenAt ??= now;
  }
}

function choiceAt(answer: Answer, index: number): Choice {
  if (index < 1) return answer;
  const place = Math.min(index, MAX_CHOICES - 1) - 1;
  while (answer.others.length <= place) answer.others.push(newChoice());
  return answer.others[place]!;
}

/** Returns whether the delta had any content. */
function appendDelta(choice: Choice, delta: Delta): boolean {
  choice.text += delta.content ?? "";
  choice.reasoning += delta.reasoning_content ?? "";
  choice.refusal += delta.refusal ?? "";
  for (const call of delta.tool_calls ?? []) appendCall(choice.toolCalls, call);
  for (const image of delta.images ?? []) if (image.image_url?.url) choice.images.push(image.image_url.url);
  const { content, reasoning_content: reasoning, refusal, tool_calls: calls, images } = delta;
  return Boolean(content || reasoning || refusal || calls?.length || images?.length);
}

function appendCall(calls: ToolCall[], delta: ToolCallDelta): void {
  const index = Math.min(delta.index ?? 0, MAX_CALLS - 1);
  const call = (calls[index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  call.id = delta.id ?? call.id;
  call.function.name += delta.function?.name ?? "";
  call.function.arguments += delta.function?.arguments ?? "";
}
