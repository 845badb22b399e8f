// The title and the labels of a session, to be changed.

import { useState } from "preact/hooks";
import type { SessionChange } from "../api/server";
import type { Session } from "../api/types";
import { texts } from "../texts";
import { Field, TextField } from "../ui/field";
import { useFocus } from "../ui/focus";
import { labelChange, labelLines, readLabels } from "./labels";

/** The API permits so many characters. */
const MAX_TITLE = 512;

interface Props {
  session: Session;
  onSave(change: SessionChange): void;
  onCancel(): void;
}

export function PropertiesForm({ session: { title = "", labels = {} }, onSave, onCancel }: Props) {
  const { sessions: words } = texts;
  const [value, setValue] = useState(title);
  const input = useFocus<HTMLInputElement>();
  const [lines, setLines] = useState(() => labelLines(labels));
  const wanted = readLabels(lines);
  const submit = (event: Event) => {
    event.preventDefault();
    if (wanted) onSave({ title: value.trim(), labels: labelChange(labels, wanted) });
  };
  return (
    <form class="session" onSubmit={submit} onKeyDown={(event) => event.key === "Escape" && onCancel()}>
      <Field label={words.title}>
        {(id) => (
          <input ref={input} id={id} maxLength={MAX_TITLE} value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        )}
      </Field>
      <TextField
        label={words.labels}
        hint={words.labelsHint}
        error={wanted ? null : words.noLabel}
        rows={2}
        value={lines}
        onChange={setLines}
      />
      <div class="row">
        <button type="submit" class="primary" disabled={!wanted}>
          {words.save}
        </button>
        <button type="button" onClick={onCancel}>
          {texts.turn.cancel}
        </button>
      </div>
    </form>
  );
}
