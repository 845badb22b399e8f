// Leaves a stream after its first words, and stays until stdin ends, so that only the package closes the connection.
import OpenAI from "openai";

const client = new OpenAI();
const messages = [{ role: "user", content: "Hello!" }];
for await (const chunk of await client.chat.completions.create({ model: "scripted", messages, stream: true })) {
  if (chunk.choices[0].delta.content) break;
}
process.stdin.on("end", () => process.exit());
process.stdin.resume();
