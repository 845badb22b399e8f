// The chats of this tab: those on the screen, and those that were. An answer goes on while another chat is on the screen.

import { getSession, listMessages } from "../api/server";
import type { Model } from "../api/types";
import { Conversation } from "./conversation";
import { turnsOf } from "./restored";

/** So many chats stay with their branches; others are read from their sessions again. */
const MAX_KEPT = 20;

export type Pair = readonly [Conversation, Conversation];

export class Chats {
  private kept: Conversation[] = [];

  /** The chats on the screen; the second one is shown where two models are compared. */
  shown: Pair;

  constructor(
    private readonly credential: string,
    models: Model[],
  ) {
    this.shown = [this.create(models[0]!.id), this.create((models[1] ?? models[0]!).id)];
  }

  private create(model: string): Conversation {
    return new Conversation(() => this.credential, model);
  }

  /** Begins two new chats with the same models. */
  renew(): void {
    const [first, second] = this.shown;
    this.keep(this.shown, [this.create(first.model), this.create(second.model)]);
  }

  /** Shows the chat of a session, which is read unless it is a chat of this tab. */
  async open(session: string, signal: AbortSignal): Promise<void> {
    const [first, second] = this.shown;
    const known = [...this.shown, ...this.kept].find((chat) => chat.show(session));
    const found = known ?? (await this.read(session, signal));
    if (signal.aborted || found === first) return;
    this.keep([first], [found, found === second ? first : second]);
  }

  private async read(session: string, signal: AbortSignal): Promise<Conversation> {
    const { credential } = this;
    const options = { signal };
    const [{ model }, messages] = await Promise.all([
      getSession(credential, session, options),
      listMessages(credential, session, 0, options),
    ]);
    return new Conversation(() => credential, model, session, turnsOf(messages, model));
  }

  /** Shows other chats. Those that leave the screen are kept, the latest first. */
  private keep(left: readonly Conversation[], shown: Pair): void {
    const used = left.filter((chat) => chat.turns.length && !shown.includes(chat));
    const others = this.kept.filter((chat) => !shown.includes(chat));
    this.kept = [...used, ...others].filter((chat, index) => index < MAX_KEPT || chat.isBusy);
    this.shown = shown;
  }

  stop(): void {
    for (const chat of [...this.shown, ...this.kept]) chat.stop();
  }
}
