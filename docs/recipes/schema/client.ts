// Gets an answer as JSON with a schema.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const schema = {
  type: "object",
  properties: { capital: { type: "string", maxLength: 20 } },
  required: ["capital"],
  additionalProperties: false,
};
const answer = await client.chat.completions.create({
  model: "smollm2",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  response_format: { type: "json_schema", json_schema: { name: "capital", schema, strict: true } },
});
console.log(JSON.parse(answer.choices[0]?.message.content ?? "").capital);
