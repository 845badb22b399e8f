// Streams an answer, and asks again under the same key if the stream breaks.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const headers = { "Idempotency-Key": randomUUID() };

// Returns the whole answer; a program with a display shows the parts, and clears them before it asks again.
async function ask(): Promise<string> {
  const chunks = await client.chat.completions.create(
    { model: "smollm2", messages: [{ role: "user", content: "What is the capital of France?" }], stream: true },
    { headers },
  );
  let text = "";
  for await (const chunk of chunks) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

for (let attempt = 0; ; attempt++) {
  try {
    console.log(await ask());
    break;
  } catch (error) {
    if (attempt === 4) throw error;
    await sleep(1000 * 2 ** attempt);
  }
}
