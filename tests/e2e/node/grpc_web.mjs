// Calls Parley with Connect-ES by gRPC-Web and by Connect, in Node or a browser. The messages are generated from protos/.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChatCompletions } from "./gen/parley/v1/chat_completions_pb.js";

const request = { model: "scripted", messages: [{ role: "user", content: { kind: { case: "stringValue", value: "Hello" } } }] };

async function ask(transport, key) {
  const chat = createClient(ChatCompletions, transport);
  const headers = { authorization: `Bearer ${key}` };
  const answer = await chat.createChatCompletion(request, { headers });
  let streamed = "";
  for await (const chunk of chat.streamChatCompletion(request, { headers })) {
    for (const choice of chunk.choices) streamed += choice.delta?.content ?? "";
  }
  const refused = await chat.createChatCompletion(request, { headers: { authorization: "Bearer sk-unknown" } }).catch(ConnectError.from);
  const error = [Code[refused.code], refused.rawMessage];
  return { whole: answer.choices[0].message.content.kind.value, streamed, total: answer.usage.totalTokens, error };
}

// Returns the results of each protocol, or the error that ended it.
export async function askInBoth(baseUrl, key) {
  const options = { baseUrl, useBinaryFormat: true };
  const web = await ask(createGrpcWebTransport(options), key).catch(String);
  const connect = await ask(createConnectTransport(options), key).catch(String);
  return { web, connect };
}
