// A whole answer, and what the package makes of its headers.
import OpenAI from "openai";

const client = new OpenAI();
const messages = [{ role: "user", content: "Grüße \u{1F44B}\u{1F3FD}" }];
const { data, response, request_id } = await client.chat.completions.create({ model: "scripted", messages }).withResponse();
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({ answer: data, session: response.headers.get("x-chat-session-id"), request_id, models }));
