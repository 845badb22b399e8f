// Lets the model call a function, until it answers.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const getWeather = (city: string) => ({ city, celsius: 21 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const description = "Returns the weather of a city.";
const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "How warm is Paris?" }];
for (let round = 0; round < 10; round++) {
  const answer = await client.chat.completions.create({
    model: "support",
    messages,
    tools: [{ type: "function", function: { name: "get_weather", description, parameters } }],
  });
  const message = answer.choices[0]!.message;
  if (!message.tool_calls) {
    console.log(message.content);
    break;
  }
  messages.push(message);
  for (const call of message.tool_calls) {
    if (call.type !== "function") continue;
    const result = getWeather(JSON.parse(call.function.arguments).city);
    messages.push({ role: "tool", tool_call_id: call.id, content: JSON.stringify(result) });
  }
}
