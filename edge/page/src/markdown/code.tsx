// Blocks of code: the language, a button that copies, and highlighting, which is loaded with the first block.

import type { ComponentChild } from "preact";
import { useEffect, useState } from "preact/hooks";
import { texts } from "../texts";
import { CopyButton } from "../ui/copy";
import { withoutDirections } from "./links";
import { LongText } from "./long_text";

const MAX_HIGHLIGHTED = 20_000;
/** Longer code is shown in parts. */
const MAX_CODE = 100_000;

interface Props {
  source: string;
  language: string;
  live?: boolean;
}

export function CodeBlock({ source, language, live = false }: Props) {
  const code = withoutDirections(source);
  const highlighted = useHighlighted(code, language, !live && code.length <= MAX_HIGHLIGHTED);
  return (
    <div class="code" dir="ltr">
      <div class="code-head">
        <span>{language || texts.answer.code}</span>
        <CopyButton text={code} label={texts.answer.copyCode} />
      </div>
      <pre tabIndex={0} role="group" aria-label={language ? texts.answer.codeOf(language) : texts.answer.code}>
        {code.length > MAX_CODE ? <LongText text={code} /> : <code>{highlighted ?? code}</code>}
      </pre>
    </div>
  );
}

function useHighlighted(code: string, language: string, isWanted: boolean): ComponentChild[] | null {
  const [result, setResult] = useState<{ code: string; children: ComponentChild[] } | null>(null);
  useEffect(() => {
    if (!isWanted || !language) return undefined;
    let isCurrent = true;
    const show = async () => {
      const { highlight } = await import("./highlight");
      const children = highlight(code, language);
      if (isCurrent && children) setResult({ code, children });
    };
    show().catch(() => undefined); // without highlighting, the code is still readable
    return () => {
      isCurrent = false;
    };
  }, [code, language, isWanted]);
  return result?.code === code ? result.children : null;
}
