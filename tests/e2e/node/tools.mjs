// The tools runner: it calls the functions and answers for them until the model has said its last. `stream` streams.
import OpenAI from "openai";

const client = new OpenAI();
const called = [];
const getWeather = async ({ city }) => {
  called.push(city);
  return `20° in ${city}`;
};
const parameters = { type: "object", properties: { unit: { type: "string" }, city: { type: "string" } }, required: ["city"] };
const runner = client.chat.completions.runTools({
  model: "scripted",
  stream: process.argv.includes("stream"),
  messages: [{ role: "user", content: "Where is it warmer?" }],
  tools: [{ type: "function", function: { name: "get_weather", description: "Today's weather", parse: JSON.parse, function: getWeather, parameters } }],
});
console.log(JSON.stringify({ final: await runner.finalContent(), called }));
