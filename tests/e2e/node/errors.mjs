// The classes and fields of failures. Arguments: how often to try again, and what to send beside the usual, as JSON.
import OpenAI from "openai";

const [maxRetries, more] = process.argv.slice(1).map((argument) => JSON.parse(argument));
const client = new OpenAI({ maxRetries });
const ask = { model: "scripted", messages: [{ role: "user", content: "Hello!" }], ...more };
let said = "";
try {
  const answer = await client.chat.completions.create(ask);
  if (ask.stream) for await (const chunk of answer) said += chunk.choices[0].delta.content ?? "";
  else said = answer.choices[0].message.content;
  console.log(JSON.stringify({ said }));
} catch (error) {
  const { status, code, param, type, requestID } = error;
  console.log(JSON.stringify({ said, name: error.constructor.name, is: error instanceof OpenAI.APIError, status, code, param, type, requestID }));
}
