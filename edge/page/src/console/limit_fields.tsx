// Fields for the limits of a key or an account; an empty field is no limit of its own.

import { consoleTexts } from "../texts";
import { NumberField } from "../ui/field";
import type { Limits } from "./types";

export const KEY_LIMITS = [
  "requests_per_minute",
  "tokens_per_minute",
  "concurrent",
  "tokens_per_day",
  "tokens_per_month",
  "cost_per_day",
  "cost_per_month",
] as const;
export const ACCOUNT_LIMITS = [...KEY_LIMITS, "sessions", "bytes"] as const;

/** The texts of the fields, by the name of the limit. */
export type LimitTexts = Record<string, string>;

export function textsOf(limits: Limits = {}): LimitTexts {
  return Object.fromEntries(Object.entries(limits).map(([name, value]) => [name, String(value)]));
}

export function limitsOf(values: LimitTexts): Limits {
  const set = Object.entries(values).filter(([, text]) => text.trim() !== "");
  return Object.fromEntries(set.map(([name, text]) => [name, Number(text)]));
}

interface Props {
  names: readonly string[];
  values: LimitTexts;
  /** The limits that hold where a field is empty. */
  defaults?: Limits;
  /** What holds where neither is set. */
  otherwise: string;
  onChange(values: LimitTexts): void;
}

export function LimitFields({ names, values, defaults = {}, otherwise, onChange }: Props) {
  return (
    <fieldset>
      <legend>{consoleTexts.limits.title}</legend>
      <div class="fields">
        {names.map((name) => (
          <NumberField
            key={name}
            label={consoleTexts.limits.names[name] ?? name}
            value={values[name] ?? ""}
            min={0}
            {...(name.startsWith("cost") && { step: 0.01 })}
            placeholder={name in defaults ? String(defaults[name]) : otherwise}
            onChange={(text) => onChange({ ...values, [name]: text })}
          />
        ))}
      </div>
    </fieldset>
  );
}
