// A turn: the question, which may be edited, its variants, and the answer.

import { useState } from "preact/hooks";
import type { Message } from "../api/types";
import { PlainText } from "../markdown/long_text";
import { texts } from "../texts";
import { TextField } from "../ui/field";
import { useFocusAfter } from "../ui/focus";
import { Picture } from "../ui/picture";
import { callsOf } from "./answer";
import { AnswerView } from "./answer_view";
import type { Turn } from "./conversation";
import { imagesOf, question, textOf } from "./images";
import { ToolResultsForm } from "./tool_results";

interface Props {
  turn: Turn;
  variants: Turn[];
  isLast: boolean;
  isBusy: boolean;
  onChoose(turn: Turn): void;
  /** Returns whether the messages are sent. */
  onReplace(messages: Message[]): boolean;
  onSend(messages: Message[]): void;
  onSnippets(): void;
}

export function TurnView({ turn, variants, isLast, isBusy, onChoose, onReplace, onSend, onSnippets }: Props) {
  const { messages, answer } = turn;
  const calls = callsOf(answer);
  return (
    <li class="turn">
      <QuestionView messages={messages} isBusy={isBusy} onReplace={onReplace} />
      {variants.length > 1 && <Variants turn={turn} variants={variants} isBusy={isBusy} onChoose={onChoose} />}
      <AnswerView answer={answer} number={turn.number} isBusy={isBusy} onRetry={() => onReplace(messages)} onSnippets={onSnippets} />
      {isLast && answer.state === "done" && calls.length > 0 && <ToolResultsForm calls={calls} isBusy={isBusy} onSend={onSend} />}
    </li>
  );
}

type QuestionProps = Pick<Props, "isBusy" | "onReplace"> & { messages: Message[] };

function QuestionView({ messages, isBusy, onReplace }: QuestionProps) {
  const [isEdited, setEdited] = useState(false);
  const edit = useFocusAfter(isEdited);
  const [first] = messages;
  if (!first) return null;
  if (isEdited) {
    const save = (text: string) => setEdited(!onReplace([question(text, imagesOf(first))]));
    return <EditForm text={textOf(first)} isBusy={isBusy} onSave={save} onCancel={() => setEdited(false)} />;
  }
  return (
    <div class="asked">
      <h3 class="hidden">{first.role === "tool" ? texts.tools.results : texts.turn.question}</h3>
      <div class="question" dir="auto">
        {messages.map((message, index) => (
          <Text key={index} text={textOf(message)} />
        ))}
        {imagesOf(first).map((url, index) => (
          <Picture key={index} url={url} text={texts.composer.image(index + 1)} />
        ))}
      </div>
      {first.role === "user" && (
        <button ref={edit} type="button" class="quiet" disabled={isBusy} onClick={() => setEdited(true)}>
          {texts.turn.edit}
        </button>
      )}
    </div>
  );
}

function Text({ text }: { text: string }) {
  return text ? <div class="text"><PlainText text={text} /></div> : null;
}

interface EditProps {
  text: string;
  isBusy: boolean;
  onSave(text: string): void;
  onCancel(): void;
}

function EditForm({ text, isBusy, onSave, onCancel }: EditProps) {
  const [value, setValue] = useState(text);
  const submit = (event: Event) => {
    event.preventDefault();
    if (value.trim()) onSave(value);
  };
  return (
    <form class="question" onSubmit={submit}>
      <TextField label={texts.turn.editLabel} isFocused value={value} onChange={setValue} />
      <div class="row">
        <button type="submit" class="primary" disabled={isBusy || !value.trim()}>
          {texts.turn.send}
        </button>
        <button type="button" onClick={onCancel}>
          {texts.turn.cancel}
        </button>
      </div>
    </form>
  );
}

type VariantsProps = Pick<Props, "turn" | "variants" | "isBusy" | "onChoose">;

function Variants({ turn, variants, isBusy, onChoose }: VariantsProps) {
  const index = variants.findIndex(({ id }) => id === turn.id);
  const button = (label: string, symbol: string, wanted: Turn | undefined) => (
    <button
      type="button"
      class="quiet"
      aria-label={label}
      disabled={isBusy || !wanted}
      onClick={() => wanted && onChoose(wanted)}
    >
      {symbol}
    </button>
  );
  return (
    <div class="row variants" role="group" aria-label={texts.turn.branches}>
      {button(texts.turn.previous, "‹", variants[index - 1])}
      <span aria-live="polite">{texts.turn.branch(index + 1, variants.length)}</span>
      {button(texts.turn.next, "›", variants[index + 1])}
    </div>
  );
}
