// One conversation: the choice of its model and its turns.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { CompletionRequest } from "../api/completions";
import type { Model } from "../api/types";
import { texts } from "../texts";
import { history, type Conversation, type Setup } from "./conversation";
import { ModelSelect } from "./model_select";
import { SnippetsDialog } from "./snippets_dialog";
import { TurnView } from "./turn_view";
import { useConversation } from "./use_conversation";

const NEAR_END = 80; // pixels

interface Props {
  conversation: Conversation;
  models: Model[];
  setup: Setup;
  grpcPort: number;
  label: string;
  onModel(model: string): void;
}

export function Pane({ conversation, models, setup, grpcPort, label, onModel }: Props) {
  useConversation(conversation);
  const [request, setRequest] = useState<CompletionRequest | null>(null);
  const list = useFollowedEnd();
  const { turns, isBusy } = conversation;
  return (
    <section class={turns.length ? "pane begun" : "pane"} aria-label={label}>
      <h2 class="hidden">{texts.models.pane(label)}</h2>
      <ModelSelect
        label={label}
        models={models}
        value={conversation.model}
        disabled={isBusy || turns.length > 0}
        onChange={onModel}
      />
      <ol class="turns" ref={list} tabIndex={0} aria-label={texts.turn.list(label)}>
        {!turns.length && <li class="start">{texts.turn.start(conversation.model)}</li>}
        {turns.map((turn, index) => (
          <TurnView
            key={turn.id}
            turn={turn}
            variants={conversation.variants(index)}
            isLast={index === turns.length - 1}
            isBusy={isBusy}
            onChoose={(chosen) => conversation.choose(chosen)}
            onReplace={(messages) => {
              if (conversation.isBusy) return false;
              void conversation.replace(index, messages, setup);
              return true;
            }}
            onSend={(messages) => void conversation.send(messages, setup)}
            onSnippets={() => setRequest(requestOf(conversation, index, setup))}
          />
        ))}
      </ol>
      <Status conversation={conversation} />
      {request && <SnippetsDialog request={request} grpcPort={grpcPort} onClose={() => setRequest(null)} />}
    </section>
  );
}

/** Returns the request of a turn, with the whole history: it works without the session too. */
function requestOf({ turns, model }: Conversation, index: number, { system, parameters }: Setup): CompletionRequest {
  const messages = [...history(turns.slice(0, index), system), ...(turns[index]?.messages ?? [])];
  return { model, messages, parameters, session: null };
}

/** Announces the beginning and the end of an answer, not each of its words. */
function Status({ conversation: { isBusy, turns } }: { conversation: Conversation }) {
  const last = turns.at(-1)?.answer.state;
  const text = isBusy ? texts.answer.started : last ? texts.answer.ended[last] : "";
  return (
    <p class="hidden" role="status">
      {text}
    </p>
  );
}

/** Keeps the end of a list in view, unless the reader has scrolled up. */
function useFollowedEnd() {
  const list = useRef<HTMLOListElement>(null);
  const isAtEnd = useRef(true);
  useEffect(() => {
    const element = list.current;
    const note = () => {
      if (element) isAtEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
    };
    element?.addEventListener("scroll", note, { passive: true });
    return () => element?.removeEventListener("scroll", note);
  }, []);
  useLayoutEffect(() => {
    if (isAtEnd.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  });
  return list;
}
