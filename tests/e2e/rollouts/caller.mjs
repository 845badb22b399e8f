// The gRPC clients of caller.py with @grpc/grpc-js: the same plan on stdin, the same lines on stdout.
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const DEADLINE = 120_000; // milliseconds of one call
const BACKOFF = 2_000; // milliseconds until a client connects again, at most
const lines = createInterface({ input: process.stdin });
const plan = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
let stopped = false;
lines.on("close", () => (stopped = true));

const file = "parley/v1/chat_completions.proto";
const loaded = loadSync(file, { includeDirs: [process.env.PROTOS], keepCase: true, defaults: false, oneofs: true });
const { ChatCompletions } = grpc.loadPackageDefinition(loaded).parley.v1;
const request = { model: "scripted", messages: [{ role: "user", content: { stringValue: "Hi" } }] };

const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const options = () => ({ deadline: Date.now() + DEADLINE });

function unary(stub, metadata) {
  return new Promise((resolve, reject) =>
    stub.CreateChatCompletion(request, metadata, options(), (error) => (error ? reject(error) : resolve())),
  );
}

async function streamed(stub, metadata) {
  let ended = false;
  for await (const chunk of stub.StreamChatCompletion(request, metadata, options())) {
    ended ||= (chunk.choices ?? []).some((choice) => choice.finish_reason);
  }
  if (!ended) throw new Error("truncated");
}

async function call(channel, stub, metadata, number) {
  const method = [unary, streamed][number % 2];
  const started = now();
  let [status, message] = ["OK", ""];
  try {
    // With a key once more where it fails, because a library cannot repeat a stream that has begun.
    const first = method(stub, metadata);
    await (channel.idempotency_keys ? first.catch(() => method(stub, metadata)) : first);
  } catch (error) {
    [status, message] = [grpc.status[error.code] ?? "UNKNOWN", error.details ?? String(error)];
  }
  const { target, setting } = channel;
  const line = { language: "Node", target, setting, started, ended: now(), status, message };
  process.stdout.write(JSON.stringify(line) + "\n");
}

async function callSteadily(channel, delay) {
  await sleep(delay);
  const stub = new ChatCompletions(channel.address, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_reconnect_backoff_ms": BACKOFF,
    "grpc.service_config": JSON.stringify(channel.service_config),
  });
  const running = [];
  for (let number = 0; !stopped; number++) {
    const metadata = new grpc.Metadata({ waitForReady: channel.wait_for_ready });
    metadata.set("authorization", `Bearer ${plan.key}`);
    if (channel.idempotency_keys) metadata.set("idempotency-key", `node-${channel.target}-${number}`);
    running.push(call(channel, stub, metadata, number));
    await sleep(plan.interval);
  }
  await Promise.all(running);
  stub.close();
}

const pause = plan.interval / plan.channels.length;
await Promise.all(plan.channels.map((channel, place) => callSteadily(channel, place * pause)));
