// The choice of a model, with what it can do.

import type { Model, ModelMetadata } from "../api/types";
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
  const metadata = models.find(({ id }) => id === value)?.metadata;
  const hint = metadata ? describe(metadata) : "";
  return (
    <Field label={label} {...(hint && { hint })}>
      {(id, describedBy) => (
        <select
          id={id}
          aria-describedby={describedBy}
          value={value}
          disabled={disabled}
          onChange={(event) => onChange(event.currentTarget.value)}
        >
          {models.map((model) => (
            <option key={model.id} value={model.id}>
              {model.id}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** Returns what the operator has configured about a model, for example `131,072 tokens · text, image`. */
function describe({ context_length: length, modalities, ...others }: ModelMetadata): string {
  const parts = [
    length && texts.models.context(length),
    modalities?.join(", "),
    ...Object.entries(others)
      .filter(([, value]) => typeof value !== "object")
      .map(([name, value]) => `${name}: ${String(value)}`),
  ];
  return parts.filter(Boolean).join(" · ");
}
