// The turns of a stored session, as those of a conversation.

import type { SessionMessage } from "../api/types";
import { newAnswer, type AnswerState } from "./answer";
import { newTurn, type Turn } from "./conversation";
import { imagesOf, textOf } from "./images";

/** Returns the turns of a session. The system prompt is part of the session, and of no turn. */
export function turnsOf(messages: SessionMessage[], model: string): Turn[] {
  const numbers = [...new Set(messages.map(({ turn }) => turn))];
  return numbers.map((number) => turnOf(messages.filter(({ turn }) => turn === number), number, model));
}

function turnOf(messages: SessionMessage[], number: number, model: string): Turn {
  const last = messages.at(-1)!;
  const isAnswered = last.message.role === "assistant";
  const asked = (isAnswered ? messages.slice(0, -1) : messages).map(({ message }) => message);
  const answer = newAnswer(model, 0);
  answer.state = stateOf(last);
  answer.error = answer.state === "failed" ? (last.reason ?? last.state) : null;
  answer.receipt = last.receipt ?? null;
  answer.stored = last;
  if (isAnswered) {
    answer.text = textOf(last.message);
    answer.images = imagesOf(last.message);
    answer.reasoning = last.message.reasoning_content ?? "";
    answer.toolCalls = last.message.tool_calls ?? [];
  }
  return newTurn(asked.filter(({ role }) => role !== "system"), answer, number);
}

function stateOf({ state, reason }: SessionMessage): AnswerState {
  if (state === "completed") return "done";
  return state === "in_progress" || reason === "cancelled" ? "stopped" : "failed";
}
