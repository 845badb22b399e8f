// Makes one call with a service config; prints the status of its failure and the pushback of the server.
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const file = "parley/v1/chat_completions.proto";
const loaded = loadSync(file, { includeDirs: [process.env.PROTOS], keepCase: true, oneofs: true });
const { ChatCompletions } = grpc.loadPackageDefinition(loaded).parley.v1;
const options = { "grpc.service_config": process.env.SERVICE_CONFIG };
const chat = new ChatCompletions(process.env.PARLEY_GRPC, grpc.credentials.createInsecure(), options);
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.KEY}`);
const request = { model: "scripted", messages: [{ role: "user", content: { stringValue: "Hello" } }] };
chat.CreateChatCompletion(request, metadata, (error) => {
  console.log(grpc.status[error.code], error.metadata.get("grpc-retry-pushback-ms").join());
  chat.close();
});
