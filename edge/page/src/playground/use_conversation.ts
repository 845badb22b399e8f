// Views that follow a conversation.

import { useEffect, useLayoutEffect, useReducer, useState } from "preact/hooks";
import { addressOf, currentRoute } from "../routes";
import type { Conversation } from "./conversation";

/** Renders the component again whenever the conversation changes. */
export function useConversation(conversation: Conversation): void {
  const [, update] = useReducer((count: number) => count + 1, 0);
  useEffect(() => conversation.subscribe(() => update(undefined)), [conversation]);
}

/** Names the session of a conversation in the address while the Playground is shown: a reload continues it. */
export function useSessionInAddress(conversation: Conversation): void {
  useLayoutEffect(() => {
    const name = () => {
      const { session } = conversation;
      const { view, id } = currentRoute();
      const isOwn = id === null || (id !== session && conversation.has(id)); // not that of a chat to be opened
      if (session && isOwn && view === "playground") history.replaceState(null, "", addressOf(session));
    };
    name();
    addEventListener("hashchange", name);
    const end = conversation.subscribe(name);
    return () => {
      removeEventListener("hashchange", name);
      end();
    };
  }, [conversation]);
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
