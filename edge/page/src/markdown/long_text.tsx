// Text that is too long for the browser to lay out at once, in parts that it lays out when they are scrolled to.

import { useState } from "preact/hooks";
import { texts } from "../texts";
import { withoutOverrides } from "./links";

const PART = 4_000;
const SHOWN = 50;

/** A longer text is shown in parts. */
const MAX_TEXT = 20_000;

/** Text as it is, in parts if it is long. */
export function PlainText({ text }: { text: string }) {
  return text.length > MAX_TEXT ? <LongText text={text} /> : <>{withoutOverrides(text)}</>;
}

export function LongText({ text }: { text: string }) {
  const [shown, show] = useState(SHOWN);
  const count = Math.ceil(text.length / PART);
  const parts = Array.from({ length: Math.min(shown, count) }, (_, i) => text.slice(i * PART, (i + 1) * PART));
  return (
    <div class="long-text">
      {parts.map((part, index) => (
        <div key={index}>{withoutOverrides(part)}</div>
      ))}
      {shown < count && (
        <button type="button" onClick={() => show(shown + SHOWN)}>
          {texts.answer.more((count - shown) * PART)}
        </button>
      )}
    </div>
  );
}
