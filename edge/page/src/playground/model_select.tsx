// The choice of a model, with what it can do.

import type { Model } from "../api/types";
import { withoutDirections } from "../markdown/links";
import { texts } from "../texts";
import { Field } from "../ui/field";

interface Props {
  label: string;
  models: Model[];
  value: string;
  disabled: boolean;
  onChange(model: string): void;
}

export function ModelSelect({ label, models, value, disabled, onChange }: Props) {
  const chosen = modelOf(models, value);
  const hint = chosen ? abilitiesOf(chosen) : "";
  const hasWildcard = chosen?.id.includes("*") ?? false;
  return (
    <Field label={label} {...(hint && { hint })}>
      {(id, describedBy) => (
        <div class="model">
          <select
            id={id}
            aria-describedby={describedBy}
            value={chosen?.id ?? value}
            disabled={disabled}
            onChange={(event) => onChange(event.currentTarget.value)}
          >
            {models.map((model) => (
              <option key={model.id} value={model.id}>
                {withoutDirections(model.name ? `${model.name} (${model.id})` : model.id)}
              </option>
            ))}
          </select>
          {hasWildcard && (
            <input
              aria-label={texts.models.name(label)}
              value={value}
              disabled={disabled}
              spellcheck={false}
              onInput={(event) => onChange(event.currentTarget.value)}
            />
          )}
        </div>
      )}
    </Field>
  );
}

/** Returns the model of an id: an id with `*` stands for all ids with its beginning. */
export function modelOf(models: Model[], wanted: string): Model | undefined {
  const wildcards = models.filter(({ id }) => id.includes("*"));
  const begins = ({ id }: Model) => wanted.startsWith(id.slice(0, id.indexOf("*")));
  return models.find(({ id }) => id === wanted) ?? wildcards.find(begins) ?? wildcards[0];
}

/** Returns what is known of a model: `reads text, image · 131,072 tokens · tools · 0.25 / 2.00 per million tokens in / out`. */
export function abilitiesOf({ description, architecture, context_length: length, ...model }: Model): string {
  const { models: words } = texts;
  const { input_modalities: reads, output_modalities: writes } = architecture ?? {};
  const { supported_parameters: parameters = [], top_provider: limits, pricing } = model;
  const parts = [
    description && withoutDirections(description),
    reads?.length && words.reads(reads),
    writes?.some((kind) => kind !== "text") && words.writes(writes),
    length && words.context(length),
    limits?.max_completion_tokens && words.longest(limits.max_completion_tokens),
    parameters.includes("tools") && words.tools,
    parameters.some((name) => name.startsWith("reasoning")) && words.reasoning,
    pricing && words.price(Number(pricing.prompt), Number(pricing.completion)),
  ];
  return parts.filter(Boolean).join(" · ");
}
