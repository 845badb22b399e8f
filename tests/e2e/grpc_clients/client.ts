// Calls Parley from TypeScript with the code that protoc-gen-es generates from protos/. Prints JSON.
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatCompletions, CreateChatCompletionRequestSchema } from "./gen/ts/parley/v1/chat_completions_pb.js";

declare const process: { env: { PARLEY_GRPC: string; KEY: string } };

const chat = createClient(ChatCompletions, createGrpcTransport({ baseUrl: `http://${process.env.PARLEY_GRPC}` }));
const headers = { authorization: `Bearer ${process.env.KEY}` };
const request = create(CreateChatCompletionRequestSchema, {
  model: "scripted",
  messages: [
    { role: "system", text: "Be brief." },
    {
      role: "user",
      parts: [
        { content: { case: "text", value: "Hello" } },
        { content: { case: "image", value: { data: Uint8Array.of(0x89, 0x50, 0x4e, 0x47), mimeType: "image/png" } } },
      ],
    },
  ],
  stopSequences: ["END"],
});
const answer = await chat.createChatCompletion(request, { headers });
let streamed = "";
for await (const chunk of chat.streamChatCompletion(request, { headers })) {
  for (const choice of chunk.choices) streamed += choice.delta?.content ?? "";
}
const whole = answer.choices[0]?.message?.text;
console.log(JSON.stringify({ whole, streamed, total: answer.usage?.totalTokens }));
