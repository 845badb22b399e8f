// The receipt of an answer as a timeline: a bar for each attempt, from its start to its end.

import type { Attempt, Receipt } from "../api/types";
import { texts } from "../texts";

export function ReceiptView({ receipt }: { receipt: Receipt }) {
  const attempts = receipt.attempts ?? [];
  const total = Math.max(1, receipt.duration_ms ?? 0, ...attempts.map((one) => (one.started_ms ?? 0) + one.duration_ms));
  const { receipt: words } = texts;
  return (
    <div class="receipt" role="group" aria-label={words.title}>
      <ol>
        {attempts.map((attempt, index) => (
          <AttemptBar key={index} attempt={attempt} total={total} />
        ))}
        {receipt.guards?.map((result) => (
          <li key={`${result.guard} ${result.phase}`}>{words.guard(result)}</li>
        ))}
      </ol>
      <p class="hint">
        {[
          receipt.cache && words.cache(receipt.cache),
          words.total(receipt.duration_ms ?? total),
          receipt.usage?.total_tokens !== undefined && words.tokens(receipt.usage.total_tokens),
          receipt.cost !== undefined && words.cost(receipt.cost),
        ]
          .filter(Boolean)
          .join(" · ")}
      </p>
    </div>
  );
}

function AttemptBar({ attempt, total }: { attempt: Attempt; total: number }) {
  const percent = (ms: number) => `${(100 * ms) / total}%`;
  const { started_ms: start = 0, first_token_ms: first, duration_ms: duration } = attempt;
  return (
    <li class={attempt.outcome ?? "cancelled"}>
      <span class="attempt">{describe(attempt)}</span>
      <span class="track" aria-hidden="true">
        <span class="bar" style={{ marginInlineStart: percent(start), inlineSize: percent(duration) }}>
          {first !== undefined && <span class="first" style={{ insetInlineStart: `${(100 * first) / Math.max(1, duration)}%` }} />}
        </span>
      </span>
    </li>
  );
}

/** Returns `openai/gpt-5-mini (retry): completed after 1.2 s, first token after 0.3 s, 134 tokens, 0.00021`. */
function describe(attempt: Attempt): string {
  const { receipt: words } = texts;
  const target = [attempt.backend, attempt.target_model].filter(Boolean).join("/");
  const parts = [
    words.outcome(attempt.outcome ?? "cancelled", attempt.duration_ms, attempt.reason),
    attempt.first_token_ms !== undefined && words.first(attempt.first_token_ms),
    attempt.usage?.total_tokens !== undefined && words.tokens(attempt.usage.total_tokens, attempt.estimated),
    attempt.cost !== undefined && words.cost(attempt.cost),
  ];
  return `${attempt.kind === "first" ? target : `${target} (${attempt.kind})`}: ${parts.filter(Boolean).join(", ")}`;
}
