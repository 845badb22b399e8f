// A conversation with one model: its turns, its branches, and the answer in progress.
//
// The server keeps the history in a session; a request then has the new messages only. An edit or a retry is a branch:
// the session is forked before the turn, and the question is sent to the fork. Where a model has no sessions, each request
// contains the history.

import { openStream, type CompletionRequest, type Parameters } from "../api/completions";
import { ApiError, explain, isSessionGone, type Credential } from "../api/http";
import { fork, listMessages, updateSession } from "../api/server";
import type { Message } from "../api/types";
import { append, callsOf, newAnswer, type Answer } from "./answer";
import { textOf } from "./images";

/** The length of a title that is made of a question. */
const MAX_TITLE = 80;
/** How often views are updated during a stream, in milliseconds. */
const UPDATE_MS = 40;

export interface Turn {
  id: number;
  /** The messages of its request: a question, or the results of tools. */
  messages: Message[];
  answer: Answer;
  /** Its number in the session, null until it is known. */
  number: number | null;
}

interface Branch {
  session: string | null;
  turns: Turn[];
}

export interface Setup {
  system: string;
  parameters: Parameters;
}

let lastId = 0;

export function newTurn(messages: Message[], answer: Answer, number: number | null = null): Turn {
  return { id: ++lastId, messages, answer, number };
}

export class Conversation {
  readonly id = ++lastId;
  private branches: Branch[];
  private current = 0;
  private running: AbortController | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private readonly listeners = new Set<() => void>();

  constructor(
    private readonly credential: () => Credential,
    public model: string,
    /** The session that is continued, with its turns; null for a new one. */
    session: string | null = null,
    turns: Turn[] = [],
  ) {
    this.branches = [{ session, turns }];
  }

  get turns(): readonly Turn[] {
    return this.branch.turns;
  }

  get session(): string | null {
    return this.branch.session;
  }

  get isBusy(): boolean {
    return this.running !== null;
  }

  private get branch(): Branch {
    return this.branches[this.current]!;
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Sends new messages. Resolves when the answer has ended, successfully or not. */
  async send(messages: Message[], setup: Setup): Promise<void> {
    if (!this.running) await this.run((signal) => this.answer(messages, setup, signal));
  }

  /** Sends other messages in place of those of a turn, in a branch of their own. */
  async replace(index: number, messages: Message[], setup: Setup): Promise<void> {
    if (this.running) return;
    const isFresh = messages === this.turns[index]?.messages; // a retry
    await this.run(async (signal) => {
      const before = this.turns.slice(0, index);
      const session = await this.forked(before);
      // A fork has the completed turns only, and a new session gets the history in its first turn.
      const isCopied = ({ answer }: Turn) => session !== null && answer.state === "done";
      this.branches.push({ session, turns: before.map((turn) => (isCopied(turn) ? turn : { ...turn, number: null })) });
      this.current = this.branches.length - 1;
      await this.answer(messages, setup, signal, isFresh);
    });
  }

  stop(): void {
    this.running?.abort();
  }

  /** Returns whether one of the branches is in this session. */
  has(session: string): boolean {
    return this.branches.some((branch) => branch.session === session);
  }

  /** Shows the latest branch that is in this session; returns whether there is one. */
  show(session: string): boolean {
    if (this.session === session) return true;
    const found = this.branches.findLastIndex((branch) => branch.session === session);
    if (found < 0 || this.running) return found >= 0;
    this.current = found;
    this.changed();
    return true;
  }

  /** Returns the turns of all branches in the place of a turn, the oldest first. */
  variants(index: number): Turn[] {
    const before = this.turns.slice(0, index);
    const branches = this.branches.filter(({ turns }) => before.every(({ id }, i) => id === turns[i]?.id));
    return [...new Map(branches.flatMap(({ turns }) => turns[index] ?? []).map((turn) => [turn.id, turn])).values()];
  }

  /** Shows the latest branch with this turn. */
  choose(turn: Turn): void {
    const found = this.branches.findLastIndex(({ turns }) => turns.some(({ id }) => id === turn.id));
    if (found < 0 || this.running) return;
    this.current = found;
    this.changed();
  }

  private async run(action: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.running = controller;
    try {
      await action(controller.signal);
    } finally {
      this.running = null;
      this.changed();
    }
  }

  /** Returns a session with exactly these turns, null if a new one must begin with them. */
  private async forked(turns: Turn[]): Promise<string | null> {
    const { session } = this.branch;
    const completed = turns.filter(({ answer }) => answer.state === "done");
    const last = completed.at(-1)?.number;
    if (!session || !last || completed.some(({ number }) => number === null)) return null;
    return fork(this.credential(), session, last).then(({ id }) => id, () => null);
  }

  private async answer(messages: Message[], setup: Setup, signal: AbortSignal, isFresh = false): Promise<void> {
    const { branch } = this;
    const answer = newAnswer(this.model, performance.now());
    const turn = newTurn(messages, answer);
    const isNew = !branch.session;
    const sent = branch.session ? messages : [...history(branch.turns, setup.system), ...messages];
    branch.turns.push(turn);
    this.changed();
    try {
      const request = { model: this.model, messages: sent, parameters: setup.parameters, session: branch.session, isFresh };
      await this.stream(branch, answer, request, signal);
      answer.state = "done";
    } catch (error) {
      fail(answer, error, signal);
      if (isSessionGone(error)) branch.session = null; // the next question begins a new one, with the history
    }
    answer.endedAt = performance.now();
    this.changed();
    await Promise.all([this.readReceipt(branch, turn, signal), isNew && this.title(branch, messages)]);
  }

  private async stream(
    branch: Branch,
    answer: Answer,
    request: CompletionRequest,
    signal: AbortSignal,
  ): Promise<void> {
    const opened = await openStream(this.credential(), request, signal);
    answer.requestId = opened.requestId;
    branch.session = opened.session ?? branch.session;
    for await (const chunks of opened.chunks) {
      for (const chunk of chunks) {
        branch.session = chunk.chatSessionId ?? branch.session;
        append(answer, chunk, performance.now());
      }
      this.changedSoon();
    }
  }

  /** Reads the turn's number and receipt from its session. Without them, the page has fewer details. */
  private async readReceipt(branch: Branch, turn: Turn, signal: AbortSignal): Promise<void> {
    if (!branch.session || turn.answer.state === "stopped") return; // a cancelled turn is stored a moment later
    const known = branch.turns.reduce((last, { number }) => Math.max(last, number ?? 0), 0);
    const messages = await listMessages(this.credential(), branch.session, known, { signal }).catch(() => []);
    const last = messages.at(-1);
    if (!last) return; // the call was rejected before it became a turn
    turn.number = last.turn;
    turn.answer.receipt = last.receipt ?? null;
    turn.answer.stored = last;
  }

  /** Names a new session after its first question. Without a title, it is listed with its model. */
  private async title({ session }: Branch, messages: Message[]): Promise<void> {
    const [line] = messages.map(textOf).join(" ").trim().split("\n", 1);
    const title = line?.slice(0, MAX_TITLE);
    if (session && title) await updateSession(this.credential(), session, { title }).catch(() => undefined);
  }

  private changedSoon(): void {
    this.timer ??= setTimeout(() => this.changed(), UPDATE_MS);
  }

  private changed(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    for (const listener of this.listeners) listener();
  }
}

function fail(answer: Answer, error: unknown, signal: AbortSignal): void {
  answer.state = signal.aborted ? "stopped" : "failed";
  if (signal.aborted) return;
  answer.error = explain(error);
  if (error instanceof ApiError) answer.requestId = error.requestId ?? answer.requestId;
}

/** Returns the system prompt and the messages of the completed turns, as a request without a session has them. */
export function history(turns: readonly Turn[], system: string): Message[] {
  const first: Message[] = system.trim() ? [{ role: "system", content: system }] : [];
  const completed = turns.filter(({ answer }) => answer.state === "done");
  return [...first, ...completed.flatMap(({ messages, answer }) => [...messages, messageOf(answer)])];
}

function messageOf(answer: Answer): Message {
  return {
    role: "assistant",
    content: answer.text || null,
    ...(answer.toolCalls.length && { tool_calls: callsOf(answer) }),
    ...(answer.reasoning && { reasoning_content: answer.reasoning }),
  };
}
