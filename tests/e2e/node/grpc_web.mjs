// Calls Parley with Connect-ES as in a browser: gRPC-Web, and Connect. The messages are generated from protos/. Prints JSON.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChatCompletions } from "./gen/parley/v1/chat_completions_pb.js";

const options = { baseUrl: process.env.PARLEY_HTTP, useBinaryFormat: true };
const request = { model: "scripted", messages: [{ role: "user", content: { kind: { case: "stringValue", value: "Hello" } } }] };

async function ask(transport) {
  const chat = createClient(ChatCompletions, transport);
  const headers = { authorization: `Bearer ${process.env.KEY}` };
  const answer = await chat.createChatCompletion(request, { headers });
  let streamed = "";
  for await (const chunk of chat.streamChatCompletion(request, { headers })) {
    for (const choice of chunk.choices) streamed += choice.delta?.content ?? "";
  }
  const refused = await chat.createChatCompletion(request, { headers: { authorization: "Bearer sk-unknown" } }).catch(ConnectError.from);
  const error = [Code[refused.code], refused.rawMessage];
  return { whole: answer.choices[0].message.content.kind.value, streamed, total: answer.usage.totalTokens, error };
}

const web = await ask(createGrpcWebTransport(options));
const connect = await ask(createConnectTransport(options));
console.log(JSON.stringify({ web, connect }));
