// An answer: its reasoning, text, images and tool calls, and what can be done with it.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { CodeBlock } from "../markdown/code";
import { withoutDirections } from "../markdown/links";
import { PlainText } from "../markdown/long_text";
import { Markdown } from "../markdown/markdown";
import { texts } from "../texts";
import { CopyButton } from "../ui/copy";
import { Notice } from "../ui/notice";
import { Picture } from "../ui/picture";
import { callsOf, type Answer, type Choice } from "./answer";
import { indented } from "./json";
import { Logprobs } from "./logprobs";
import { ReceiptView } from "./receipt";
import { ToolCalls } from "./tool_results";

interface Props {
  answer: Answer;
  /** The number of its turn in the session, null if it is not known. */
  number: number | null;
  isBusy: boolean;
  onRetry(): void;
  onSnippets(): void;
}

type Detail = "probabilities" | "receipt" | null;

export function AnswerView({ answer, number, isBusy, onRetry, onSnippets }: Props) {
  const [detail, setDetail] = useState<Detail>(null);
  const article = useRef<HTMLElement>(null);
  useEffect(() => {
    if (detail) article.current?.lastElementChild?.scrollIntoView({ block: "nearest" }); // it may be below the view
  }, [detail]);
  const toggle = (wanted: Detail) => setDetail(detail === wanted ? null : wanted);
  const isLive = answer.state === "streaming";
  return (
    <article ref={article} class="answer" aria-label={texts.answer.of(answer.model)} aria-busy={isLive}>
      <h3>{withoutDirections(answer.model)}</h3>
      <ChoiceView choice={answer} live={isLive} shaded={detail === "probabilities"} />
      {answer.others.map((choice, index) => (
        <section key={index} class="choice" aria-label={texts.answer.choice(index + 2)}>
          <h4>{texts.answer.choice(index + 2)}</h4>
          <ChoiceView choice={choice} live={isLive} shaded={detail === "probabilities"} />
          {!isLive && choice.text && <CopyButton text={choice.text} label={texts.answer.copyChoice(index + 2)} />}
        </section>
      ))}
      <End answer={answer} />
      {!isLive && (
        <div class="row actions">
          {answer.text && <CopyButton text={answer.text} label={texts.answer.copy} />}
          <button type="button" class="quiet" disabled={isBusy} onClick={onRetry}>
            {texts.answer.retry}
          </button>
          {answer.logprobs.length > 0 && (
            <Toggle label={texts.logprobs.title} on={detail === "probabilities"} onClick={() => toggle("probabilities")} />
          )}
          {answer.receipt && (
            <Toggle label={texts.receipt.title} on={detail === "receipt"} onClick={() => toggle("receipt")} />
          )}
          <button type="button" class="quiet" onClick={onSnippets}>
            {texts.snippets.open}
          </button>
          <span class="hint">{summaryOf(answer, number)}</span>
        </div>
      )}
      {detail === "receipt" && answer.receipt && <ReceiptView receipt={answer.receipt} />}
    </article>
  );
}

function Toggle({ label, on, onClick }: { label: string; on: boolean; onClick(): void }) {
  return (
    <button type="button" class="quiet" aria-pressed={on} onClick={onClick}>
      {label}
    </button>
  );
}

interface ChoiceProps {
  choice: Choice;
  live: boolean;
  /** Whether its tokens are shown with their probabilities. */
  shaded: boolean;
}

function ChoiceView({ choice, live, shaded }: ChoiceProps) {
  return (
    <>
      <Reasoning text={choice.reasoning} live={live && !choice.text} />
      {shaded ? <Logprobs tokens={choice.logprobs} /> : <Content choice={choice} live={live} />}
      {choice.refusal && <Notice kind="info"><PlainText text={choice.refusal} /></Notice>}
      {choice.images.map((url, index) => (
        <Picture key={index} url={url} text={texts.answer.image} />
      ))}
      <ToolCalls calls={callsOf(choice)} live={live} />
    </>
  );
}

/** An answer that is a JSON object or list, as with a schema, is shown as code. */
function Content({ choice: { text, toolCalls }, live }: { choice: Choice; live: boolean }) {
  const json = useMemo(() => (!live && /^\s*[[{]/.test(text) ? indented(text) : text), [text, live]);
  if (json !== text) return <CodeBlock source={json} language="json" />;
  if (!text && !toolCalls.length && live) return <p class="waiting" aria-hidden="true" />;
  return <Markdown source={text} live={live} />;
}

function Reasoning({ text, live }: { text: string; live: boolean }) {
  if (!text) return null;
  return (
    <details class="reasoning">
      <summary>{live ? texts.answer.reasoning : texts.answer.reasoned}</summary>
      <Markdown source={text} live={live} />
    </details>
  );
}

function End({ answer: { state, error, finish, requestId, stored } }: { answer: Answer }) {
  if (state === "failed") {
    return (
      <Notice kind="error">
        {error}
        {requestId && <small>{texts.answer.request(requestId)}</small>}
      </Notice>
    );
  }
  if (state === "stopped") {
    const isRunning = stored?.state === "in_progress";
    return <Notice kind="info">{isRunning ? texts.answer.unfinished : texts.answer.stopped}</Notice>;
  }
  const cut = { length: texts.answer.length, content_filter: texts.answer.filtered }[finish ?? ""];
  return cut ? <Notice kind="info">{cut}</Notice> : null;
}

/** Returns `turn 2 completed · first token after 0.3 s · 1.2 s in total · 134 answer tokens`. */
function summaryOf({ startedAt, firstTokenAt, endedAt, usage, stored }: Answer, number: number | null): string {
  const parts = [
    number !== null && stored && texts.turn.state(number, stored),
    firstTokenAt !== null && texts.receipt.first(firstTokenAt - startedAt),
    endedAt !== null && texts.receipt.total(endedAt - startedAt),
    usage?.completion_tokens !== undefined && texts.answer.tokens(usage.completion_tokens),
  ];
  return parts.filter(Boolean).join(" · ");
}
