// The fields of the system prompt and the parameters.

import { texts } from "../texts";
import { Field, NumberField, TextField } from "../ui/field";
import type { SetupErrors, SetupFields } from "./setup";

const EFFORTS = ["", "none", "minimal", "low", "medium", "high"];

interface Props {
  fields: SetupFields;
  errors: SetupErrors;
  onChange(fields: SetupFields): void;
}

export function SetupPanel({ fields, errors, onChange }: Props) {
  const set = <Name extends keyof SetupFields>(name: Name) => (value: SetupFields[Name]) =>
    onChange({ ...fields, [name]: value });
  const { setup: words } = texts;
  const number = (name: "temperature" | "top_p" | "max_tokens" | "seed") => ({
    label: words[name],
    value: fields[name],
    onChange: set(name),
    placeholder: words.default,
  });
  return (
    <section class="setup" aria-label={words.title}>
      <TextField label={words.system} hint={words.systemHint} value={fields.system} onChange={set("system")} />
      <div class="numbers">
        <NumberField {...number("temperature")} min={0} max={2} step={0.1} />
        <NumberField {...number("top_p")} min={0} max={1} step={0.05} />
        <NumberField {...number("max_tokens")} min={1} step={1} />
        <NumberField {...number("seed")} step={1} />
      </div>
      <Field label={words.effort}>
        {(id) => (
          <select id={id} value={fields.reasoning_effort} onChange={(e) => set("reasoning_effort")(e.currentTarget.value)}>
            {EFFORTS.map((effort) => (
              <option key={effort} value={effort}>
                {effort || words.default}
              </option>
            ))}
          </select>
        )}
      </Field>
      <TextField label={words.stop} hint={words.stopHint} rows={2} value={fields.stop} onChange={set("stop")} />
      <label class="check">
        <input type="checkbox" checked={fields.logprobs} onChange={(e) => set("logprobs")(e.currentTarget.checked)} />
        {words.logprobs}
      </label>
      <TextField label={words.tools} hint={words.toolsHint} error={errors.tools ?? null} value={fields.tools} onChange={set("tools")} />
      <TextField label={words.schema} hint={words.schemaHint} error={errors.schema ?? null} value={fields.schema} onChange={set("schema")} />
      <TextField label={words.others} hint={words.othersHint} error={errors.others ?? null} value={fields.others} onChange={set("others")} />
    </section>
  );
}
