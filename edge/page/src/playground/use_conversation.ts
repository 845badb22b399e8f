// Views that follow a conversation.

import { useEffect, useReducer, useState } from "preact/hooks";
import type { Conversation } from "./conversation";

/** Renders the component again whenever the conversation changes. */
export function useConversation(conversation: Conversation): void {
  const [, update] = useReducer((count: number) => count + 1, 0);
  useEffect(() => conversation.subscribe(() => update(undefined)), [conversation]);
}

/** Returns whether any of the conversations has an answer in progress; renders again only when that changes. */
export function useBusy(conversations: readonly Conversation[]): boolean {
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    const check = () => setBusy(conversations.some((one) => one.isBusy));
    const ends = conversations.map((one) => one.subscribe(check));
    check();
    return () => ends.forEach((end) => end());
  }, [conversations]);
  return isBusy;
}
