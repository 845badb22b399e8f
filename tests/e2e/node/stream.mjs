// A stream, chunk by chunk, and through the package's helper.
import OpenAI from "openai";

const client = new OpenAI();
const ask = { model: "scripted", messages: [{ role: "user", content: "Hello!" }], stream_options: { include_usage: true } };
const chunks = [];
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) chunks.push(chunk);

const events = {};
const helper = client.chat.completions.stream(ask);
for (const name of ["content.delta", "content.done", "chunk", "error", "end"]) helper.on(name, () => { events[name] = (events[name] ?? 0) + 1; });
const final = await helper.finalChatCompletion();
console.log(JSON.stringify({ chunks, events, final }));
