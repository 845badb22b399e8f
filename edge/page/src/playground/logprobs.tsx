// An answer's tokens, shaded by their probability.

import { useState } from "preact/hooks";
import type { TokenLogprob } from "../api/types";
import { withoutDirections } from "../markdown/links";
import { texts } from "../texts";

const LEVELS = 5;
const MAX_TOKENS = 5_000;

/** Returns 0 for a certain token, to LEVELS - 1 for an improbable one. */
export function levelOf(logprob: number): number {
  return Math.min(LEVELS - 1, Math.floor((1 - Math.exp(logprob)) * LEVELS));
}

export function Logprobs({ tokens }: { tokens: TokenLogprob[] }) {
  const [current, choose] = useState(0);
  const shown = tokens.slice(0, MAX_TOKENS);
  const chosen = shown[current];
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    choose(Math.min(shown.length - 1, Math.max(0, current + step)));
  };
  const point = ({ target }: Event) => {
    const index = target instanceof HTMLElement ? target.dataset["index"] : undefined;
    if (index) choose(Number(index));
  };
  return (
    <div class="logprobs" role="group" aria-label={texts.logprobs.title} tabIndex={0} onKeyDown={move}>
      <p class="hint">{texts.logprobs.legend}</p>
      <div class="tokens" dir="auto" onPointerOver={point} onClick={point}>
        {shown.map((token, index) => (
          <span key={index} data-index={index} class={classOf(token, index === current)}>
            {withoutDirections(token.token)}
          </span>
        ))}
      </div>
      {chosen && (
        <p class="hint" role="status">
          {describe(chosen)}
        </p>
      )}
    </div>
  );
}

function classOf({ logprob }: TokenLogprob, isCurrent: boolean): string {
  return `level-${levelOf(logprob)}${isCurrent ? " current" : ""}`;
}

/** Returns `"Paris" 99% · "Rome" 1%`: a token with its probability, then the others. */
function describe({ token, logprob, top_logprobs: others = [] }: TokenLogprob): string {
  const all = [{ token, logprob }, ...others.filter((other) => other.token !== token)];
  return all.map((one) => `${withoutDirections(JSON.stringify(one.token))} ${texts.logprobs.percent(Math.exp(one.logprob))}`).join(" · ");
}
