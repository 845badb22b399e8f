// Prints the tokens of an answer, and where it came from.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const { data, response } = await client.chat.completions
  .create({ model: "smollm2", messages: [{ role: "user", content: "What is the capital of France?" }] })
  .withResponse();
console.log(data.usage?.total_tokens, "tokens");

const session = response.headers.get("x-chat-session-id");
const listed = await fetch(`http://127.0.0.1:8080/api/v1/sessions/${session}/messages`, {
  headers: { Authorization: `Bearer ${process.env.KEY}` },
});
const { messages } = (await listed.json()) as {
  messages: { receipt?: { attempts: { model: string; outcome: string }[] } }[];
};
for (const attempt of messages.at(-1)?.receipt?.attempts ?? []) console.log(attempt.model, attempt.outcome);
