// A client whose types openapi-typescript has generated from /openapi.json into schema.d.ts.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { env: { PARLEY_URL: string; OPENAI_API_KEY: string } };

const parameters: NonNullable<components["schemas"]["FunctionDefinition"]["parameters"]> = {
  type: "object",
  properties: { unit: { type: "string" }, city: { type: "string" } },
};
const client = createClient<paths>({
  baseUrl: process.env.PARLEY_URL,
  headers: { Authorization: `Bearer ${process.env.OPENAI_API_KEY}` },
});
const { data, error, response } = await client.POST("/v1/chat/completions", {
  body: {
    model: "scripted",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: [{ type: "image_url", image_url: { url: "https://example.com/a.png" } }] },
    ],
    tools: [{ type: "function", function: { name: "get_weather", parameters } }],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  },
});
const refused = await client.POST("/v1/chat/completions", { body: { model: "nobody", messages: [{ role: "user", content: "Hi" }] } });
const sessions = await client.GET("/api/v1/sessions", { params: { query: { page_size: 1 } } });
const answer = data && "choices" in data ? data : undefined; // the other form is a stream of events
const content = answer?.choices[0]?.message?.content;
console.log(
  JSON.stringify({
    status: response.status,
    error: error ?? null,
    content: typeof content === "string" ? content : null,
    total: answer?.usage?.total_tokens,
    refused: refused.error,
    sessions: sessions.data?.sessions.length,
  }),
);
