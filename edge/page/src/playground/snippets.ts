// A request as code. The key is never part of it: it is read from the variable KEY.

import { bodyOf, type CompletionRequest } from "../api/completions";

export interface Place {
  /** The origin of REST, for example `https://chat.example.com`. */
  origin: string;
  /** The address of gRPC, for example `chat.example.com:50051`. */
  grpc: string;
}

export interface Snippet {
  name: string;
  language: string;
  code: string;
}

export function snippets(request: CompletionRequest, place: Place): Snippet[] {
  return [
    { name: "curl", language: "bash", code: curl(request, place) },
    { name: "Python", language: "python", code: python(request, place) },
    { name: "TypeScript", language: "typescript", code: typescript(request, place) },
    { name: "grpcurl", language: "bash", code: grpcurl(request, place) },
  ];
}

/** Quotes a text for a POSIX shell. */
function quoted(text: string): string {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

function curl(request: CompletionRequest, { origin }: Place): string {
  const lines = [
    `curl -N ${origin}/v1/chat/completions`,
    `-H "Authorization: Bearer $KEY"`,
    `-H 'Content-Type: application/json'`,
    ...(request.session ? [`-H ${quoted(`X-Chat-Session-ID: ${request.session}`)}`] : []),
    `-d ${quoted(JSON.stringify(bodyOf(request), null, 2))}`,
  ];
  return lines.join(" \\\n  ");
}

function grpcurl(request: CompletionRequest, { origin, grpc }: Place): string {
  const { stream: _, stream_options: options, ...body } = bodyOf(request);
  const lines = [
    `grpcurl${origin.startsWith("https:") ? "" : " -plaintext"}`,
    `-H "authorization: Bearer $KEY"`,
    ...(request.session ? [`-H ${quoted(`x-chat-session-id: ${request.session}`)}`] : []),
    `-d ${quoted(JSON.stringify({ ...body, stream_options: options }, null, 2))}`,
    `${grpc} parley.v1.ChatCompletions/StreamChatCompletion`,
  ];
  return lines.join(" \\\n  ");
}

function python(request: CompletionRequest, { origin }: Place): string {
  const headers = request.session ? [`extra_headers={"X-Chat-Session-ID": ${literal(request.session)}},`] : [];
  const named = Object.entries(bodyOf(request)).map(([name, value]) => `${name}=${literal(value)},`);
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["KEY"])
stream = client.chat.completions.create(
${[...named, ...headers].map((line) => `    ${line}`).join("\n")}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
`;
}

/** Returns JSON as a Python expression. */
function literal(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}: ${literal(member)}`);
  return `{${members.join(", ")}}`;
}

function typescript(request: CompletionRequest, { origin }: Place): string {
  const options = request.session ? `, {\n  headers: { "X-Chat-Session-ID": ${JSON.stringify(request.session)} },\n}` : "";
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${origin}/v1", apiKey: process.env.KEY });
const stream = await client.chat.completions.create(${JSON.stringify(bodyOf(request), null, 2)}${options});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
`;
}
