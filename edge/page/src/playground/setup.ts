// The system prompt and the parameters, as the caller has typed them.

import type { Parameters } from "../api/completions";
import { texts } from "../texts";
import type { Setup } from "./conversation";

/** The texts of the fields. An empty field is left out of the request, so that the model's default applies. */
export interface SetupFields {
  system: string;
  temperature: string;
  top_p: string;
  max_tokens: string;
  seed: string;
  stop: string;
  reasoning_effort: string;
  logprobs: boolean;
  tools: string;
  schema: string;
  others: string;
}

export const EMPTY: SetupFields = {
  ...{ system: "", temperature: "", top_p: "", max_tokens: "", seed: "", stop: "", reasoning_effort: "" },
  ...{ logprobs: false, tools: "", schema: "", others: "" },
};

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"] as const;
const NAME = "parley.setup";

export type SetupErrors = Partial<Record<"tools" | "schema" | "others", string>>;

/** Returns what the fields contain, and the errors of those that are not valid. */
export function readSetup(fields: SetupFields): { setup: Setup; errors: SetupErrors } {
  const errors: SetupErrors = {};
  const parameters: Parameters = {};
  for (const name of NUMBERS) if (fields[name].trim()) parameters[name] = Number(fields[name]);
  const stop = fields.stop.split("\n").filter(Boolean);
  if (stop.length) parameters["stop"] = stop;
  if (fields.reasoning_effort) parameters["reasoning_effort"] = fields.reasoning_effort;
  if (fields.logprobs) Object.assign(parameters, { logprobs: true, top_logprobs: 3 });
  const tools = parse(fields.tools, "[", errors, "tools");
  if (tools) parameters["tools"] = tools;
  const schema = parse(fields.schema, "{", errors, "schema");
  if (schema) parameters["response_format"] = formatOf(schema);
  Object.assign(parameters, parse(fields.others, "{", errors, "others"));
  return { setup: { system: fields.system, parameters }, errors };
}

function parse(text: string, first: string, errors: SetupErrors, name: keyof SetupErrors): unknown {
  if (!text.trim()) return null;
  if (!text.trim().startsWith(first)) {
    errors[name] = first === "[" ? texts.setup.notList : texts.setup.notObject;
    return null;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    errors[name] = texts.setup.notJson(error instanceof Error ? error.message : String(error));
    return null;
  }
}

/** Takes a schema, or an OpenAI format that contains one. */
function formatOf(schema: unknown): unknown {
  const isFormat = typeof schema === "object" && schema !== null && "schema" in schema && "name" in schema;
  return { type: "json_schema", json_schema: isFormat ? schema : { name: "answer", schema, strict: true } };
}

export function loadFields(): SetupFields {
  try {
    return { ...EMPTY, ...(JSON.parse(sessionStorage.getItem(NAME) ?? "{}") as Partial<SetupFields>) };
  } catch {
    return EMPTY;
  }
}

export function saveFields(fields: SetupFields): void {
  sessionStorage.setItem(NAME, JSON.stringify(fields));
}
