// Labelled fields.

import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { useFocus } from "./focus";

interface FieldProps {
  label: string;
  hint?: string;
  error?: string | null;
  children(id: string, describedBy: string | undefined): ComponentChildren;
}

export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  const text = error ?? hint;
  return (
    <div class={error ? "field invalid" : "field"}>
      <label for={id}>{label}</label>
      {children(id, text ? `${id}-hint` : undefined)}
      {text && <small id={`${id}-hint`}>{text}</small>}
    </div>
  );
}

interface TextProps {
  label: string;
  value: string;
  onChange(value: string): void;
  hint?: string;
  error?: string | null;
  placeholder?: string;
  rows?: number;
  /** Whether it has the focus when it appears. */
  isFocused?: boolean;
}

/** A field for text of several lines. */
export function TextField({ label, value, onChange, hint, error, placeholder, rows = 4, isFocused = false }: TextProps) {
  const area = useFocus<HTMLTextAreaElement>(isFocused);
  return (
    <Field label={label} {...(hint && { hint })} error={error ?? null}>
      {(id, describedBy) => (
        <textarea
          ref={area}
          id={id}
          aria-describedby={describedBy}
          aria-invalid={error ? true : undefined}
          rows={rows}
          placeholder={placeholder}
          value={value}
          onInput={(event) => onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

interface NumberProps {
  label: string;
  value: string;
  onChange(value: string): void;
  min?: number;
  max?: number;
  step?: number;
  placeholder?: string;
}

/** A field for a number; empty for the model's default. */
export function NumberField({ label, value, onChange, ...limits }: NumberProps) {
  return (
    <Field label={label}>
      {(id) => (
        <input
          id={id}
          type="number"
          inputMode="decimal"
          value={value}
          {...limits}
          onInput={(event) => onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
