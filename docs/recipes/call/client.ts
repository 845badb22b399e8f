// Asks a question.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const answer = await client.chat.completions.create({
  model: "smollm2",
  messages: [{ role: "user", content: "What is the capital of France?" }],
});
console.log(answer.choices[0]?.message.content);
