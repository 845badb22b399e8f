// The same client as caller.py with @grpc/grpc-js: the same plan on stdin, the same lines on stdout.
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const DEADLINE = 60_000; // milliseconds of one call
const lines = createInterface({ input: process.stdin });
const plan = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
const file = "parley/v1/chat_completions.proto";
const loaded = loadSync(file, { includeDirs: [plan.protos], keepCase: true, defaults: false, oneofs: true });
const { ChatCompletions } = grpc.loadPackageDefinition(loaded).parley.v1;
const request = { model: "scripted", messages: [{ role: "user", content: { stringValue: "Hi" } }] };
const running = new Set();
let stopped = false;
process.stdin.on("close", () => (stopped = true));
lines.on("close", () => (stopped = true));

const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function unary(stub, metadata, options) {
  await new Promise((resolve, reject) =>
    stub.CreateChatCompletion(request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer))),
  );
  return "OK";
}

async function streamed(stub, metadata, options) {
  let ended = false;
  for await (const chunk of stub.StreamChatCompletion(request, metadata, options)) {
    ended ||= (chunk.choices ?? []).some((choice) => choice.finish_reason);
  }
  return ended ? "OK" : "TRUNCATED";
}

async function call(stub, metadata, labels) {
  const options = { deadline: Date.now() + DEADLINE };
  const started = now();
  let [status, message] = ["OK", ""];
  try {
    status = await (labels.method === "CreateChatCompletion" ? unary : streamed)(stub, metadata, options);
  } catch (error) {
    [status, message] = [grpc.status[error.code] ?? "UNKNOWN", error.details ?? String(error)];
  }
  process.stdout.write(JSON.stringify({ ...labels, started, ended: now(), status, message }) + "\n");
}

async function callSteadily(target, setting, delay) {
  const chosen = plan.settings[setting];
  await sleep(delay);
  const stub = new ChatCompletions(plan.targets[target], grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.service_config": JSON.stringify(chosen.service_config),
  });
  for (let number = 0; !stopped; number++) {
    const metadata = new grpc.Metadata({ waitForReady: chosen.wait_for_ready });
    metadata.set("authorization", `Bearer ${plan.key}`);
    if (chosen.idempotency_keys) metadata.set("idempotency-key", `node-${target}-${setting}-${number}`);
    const method = ["CreateChatCompletion", "StreamChatCompletion"][number % 2];
    const labels = { target, setting, method, has_key: chosen.idempotency_keys };
    const one = call(stub, metadata, labels).finally(() => running.delete(one));
    running.add(one);
    await sleep(plan.interval);
  }
}

const channels = Object.keys(plan.targets).flatMap((target) => Object.keys(plan.settings).map((setting) => [target, setting]));
await Promise.all(channels.map(([target, setting], place) => callSteadily(target, setting, (place * plan.interval) / channels.length)));
await Promise.all(running);
process.exit(0);
