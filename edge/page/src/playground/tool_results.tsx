// The tools that an answer calls, and the results that the caller types in.

import { useState } from "preact/hooks";
import type { Message, ToolCall } from "../api/types";
import { CodeBlock } from "../markdown/code";
import { texts } from "../texts";
import { TextField } from "../ui/field";

export function ToolCalls({ calls }: { calls: ToolCall[] }) {
  return (
    <>
      {calls.map((call) => (
        <div class="tool" key={call.id}>
          <h4>{texts.tools.call(call.function.name, numberOf(call, calls))}</h4>
          <CodeBlock source={indented(call.function.arguments)} language="json" />
        </div>
      ))}
    </>
  );
}

/** Returns the number of a call among those of the same tool, from 1; 0 for the only one. */
function numberOf(call: ToolCall, calls: ToolCall[]): number {
  const same = calls.filter((other) => other.function.name === call.function.name);
  return same.length > 1 ? 1 + same.indexOf(call) : 0;
}

/** Returns JSON in several lines, and a text that is not JSON as it is. */
export function indented(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function ToolResultsForm({ calls, onSend }: { calls: ToolCall[]; onSend(messages: Message[]): void }) {
  const [results, setResults] = useState<Record<string, string>>({});
  const submit = (event: Event) => {
    event.preventDefault();
    onSend(calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: results[id] ?? "" })));
  };
  return (
    <form class="tool-results" onSubmit={submit}>
      {calls.map((call) => (
        <TextField
          key={call.id}
          label={texts.tools.result(call.function.name, numberOf(call, calls))}
          rows={2}
          value={results[call.id] ?? ""}
          onChange={(value) => setResults({ ...results, [call.id]: value })}
        />
      ))}
      <button type="submit" class="primary">
        {texts.tools.send}
      </button>
    </form>
  );
}
