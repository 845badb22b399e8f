// A button that copies a text.

import { useEffect, useState } from "preact/hooks";
import { texts } from "../texts";

const SHOWN_MS = 2_000;

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [state, setState] = useState<"ready" | "copied" | "failed">("ready");
  useEffect(() => {
    if (state === "ready") return undefined;
    const timer = setTimeout(() => setState("ready"), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = () => write(text).then(() => setState("copied"), () => setState("failed"));
  return (
    <button type="button" class="quiet" onClick={copy} aria-label={label}>
      <span aria-live="polite">{texts.copy[state]}</span>
    </button>
  );
}

/** Copies a text. The clipboard's own interface exists only over TLS and on loopback addresses. */
async function write(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (!isCopied) throw new Error("not copied");
}
