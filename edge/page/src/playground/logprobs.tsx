// An answer's tokens, shaded by their probability.

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
  return (
    <div class="logprobs" role="group" aria-label={texts.logprobs.title}>
      <p class="hint">{texts.logprobs.legend}</p>
      <div class="tokens" dir="auto">
        {tokens.slice(0, MAX_TOKENS).map((token, index) => (
          <span key={index} class={`level-${levelOf(token.logprob)}`} title={describe(token)}>
            {withoutDirections(token.token)}
          </span>
        ))}
      </div>
    </div>
  );
}

function describe({ logprob, top_logprobs: others = [] }: TokenLogprob): string {
  const lines = others.map((other) => `${JSON.stringify(other.token)} ${texts.logprobs.percent(Math.exp(other.logprob))}`);
  return [texts.logprobs.percent(Math.exp(logprob)), ...lines].join("\n");
}
