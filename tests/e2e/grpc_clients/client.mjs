// Calls Parley from Node with @grpc/proto-loader, which reads protos/ and nothing else. Prints JSON.
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const file = "parley/v1/chat_completions.proto";
const loaded = loadSync(file, { includeDirs: [process.env.PROTOS], keepCase: true, defaults: false, oneofs: true });
const { ChatCompletions } = grpc.loadPackageDefinition(loaded).parley.v1;
const chat = new ChatCompletions(process.env.PARLEY_GRPC, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.KEY}`);
const image = { data: Buffer.from("\x89PNG", "latin1"), mime_type: "image/png" };
const instruction = { role: "system", text: "Be brief." };
const question = { role: "user", parts: [{ text: "Hello" }, { image }] };
const request = { model: "scripted", messages: [instruction, question], stop_sequences: ["END"] };
const answer = await new Promise((resolve, reject) =>
  chat.CreateChatCompletion(request, metadata, (error, value) => (error ? reject(error) : resolve(value))),
);
let streamed = "";
for await (const chunk of chat.StreamChatCompletion(request, metadata)) {
  for (const choice of chunk.choices ?? []) streamed += choice.delta?.content ?? "";
}
const whole = answer.choices[0].message.text;
console.log(JSON.stringify({ whole, streamed, total: answer.usage.total_tokens }));
chat.close();
