// The AI SDK with several tool steps: two calls at once, then another one, then the last words. `stream` streams.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const parley = createOpenAICompatible({
  name: "parley",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  includeUsage: true,
});
const called = [];
const inputSchema = jsonSchema({ type: "object", properties: { unit: { type: "string" }, city: { type: "string" } }, required: ["city"] });
const get_weather = tool({
  description: "Today's weather",
  inputSchema,
  execute: async ({ city }) => {
    called.push(city);
    return `20° in ${city}`;
  },
});
const asked = { model: parley("scripted"), prompt: "Where is it warmest?", tools: { get_weather }, stopWhen: stepCountIs(5), maxRetries: 0 };
if (process.argv.includes("stream")) {
  const result = streamText(asked);
  let text = "";
  for await (const piece of result.textStream) text += piece;
  const [steps, finishReason, usage] = await Promise.all([result.steps, result.finishReason, result.totalUsage]);
  console.log(JSON.stringify({ text, called, steps: steps.length, finishReason, tokens: usage.totalTokens }));
} else {
  const result = await generateText(asked);
  const { text, steps, finishReason, totalUsage } = result;
  console.log(JSON.stringify({ text, called, steps: steps.length, finishReason, tokens: totalUsage.totalTokens }));
}
