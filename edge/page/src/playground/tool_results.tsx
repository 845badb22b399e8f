// The tools that an answer calls, and the results that the caller types in.

import { useState } from "preact/hooks";
import type { Message, ToolCall } from "../api/types";
import { CodeBlock } from "../markdown/code";
import { withoutDirections } from "../markdown/links";
import { texts } from "../texts";
import { TextField } from "../ui/field";
import { indented } from "./json";

export function ToolCalls({ calls, live }: { calls: ToolCall[]; live: boolean }) {
  return (
    <>
      {calls.map((call, index) => (
        <div class="tool" key={index}>
          <h4>{texts.tools.call(nameOf(call), numberOf(call, calls))}</h4>
          <CodeBlock source={live ? call.function.arguments : indented(call.function.arguments)} language="json" live={live} />
        </div>
      ))}
    </>
  );
}

function nameOf({ function: { name } }: ToolCall): string {
  return withoutDirections(name);
}

/** Returns the number of a call among those of the same tool, from 1; 0 for the only one. */
function numberOf(call: ToolCall, calls: ToolCall[]): number {
  const same = calls.filter((other) => other.function.name === call.function.name);
  return same.length > 1 ? 1 + same.indexOf(call) : 0;
}

interface FormProps {
  calls: ToolCall[];
  isBusy: boolean;
  onSend(messages: Message[]): void;
}

export function ToolResultsForm({ calls, isBusy, onSend }: FormProps) {
  const [results, setResults] = useState<string[]>([]);
  const submit = (event: Event) => {
    event.preventDefault();
    onSend(calls.map(({ id }, index) => ({ role: "tool", tool_call_id: id, content: results[index] ?? "" })));
  };
  return (
    <form class="tool-results" onSubmit={submit}>
      {calls.map((call, index) => (
        <TextField
          key={index}
          label={texts.tools.result(nameOf(call), numberOf(call, calls))}
          rows={2}
          value={results[index] ?? ""}
          onChange={(value) => setResults(Object.assign([...results], { [index]: value }))}
        />
      ))}
      <button type="submit" class="primary" disabled={isBusy}>
        {texts.tools.send}
      </button>
    </form>
  );
}
