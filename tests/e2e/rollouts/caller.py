"""A gRPC client of Parley under load: reads its plan from stdin, calls until stdin closes, prints one line a call.

The plan is one line of JSON: `targets`, `settings` (see `settings.py`), `key`, `interval` and `protos`. Every setting
has a channel to every target, which starts a call each `interval` seconds, unary and streamed by turns. A line is
`{"target", "setting", "method", "has_key", "started", "ended", "status", "message"}`; times are of CLOCK_MONOTONIC.
"""

import asyncio
import json
import sys
import time
from itertools import count
from typing import Any

import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message

_DEADLINE = 60.0  # seconds of one call


async def _run(plan: dict[str, Any]) -> None:
    """Calls over every channel until stdin closes; ends after the last call has ended."""
    stop = asyncio.Event()
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())
    channels = [(target, setting) for target in plan["targets"] for setting in plan["settings"]]
    pause = plan["interval"] / len(channels)
    async with asyncio.TaskGroup() as group:
        for place, (target, setting) in enumerate(channels):
            group.create_task(_call_steadily(plan, target, setting, place * pause, stop))


async def _call_steadily(plan: dict[str, Any], target: str, setting: str, delay: float, stop: asyncio.Event) -> None:
    chosen = plan["settings"][setting]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", json.dumps(chosen["service_config"]))]
    await asyncio.sleep(delay)
    async with grpc.aio.insecure_channel(plan["targets"][target], options) as channel, asyncio.TaskGroup() as group:
        stub: Any = ChatCompletionsStub(channel)
        for number in count():
            if stop.is_set():
                return
            has_key = chosen["idempotency_keys"]
            metadata = [("authorization", f"Bearer {plan['key']}")]
            if has_key:
                metadata.append(("idempotency-key", f"python-{target}-{setting}-{number}"))
            method = ("CreateChatCompletion", "StreamChatCompletion")[number % 2]
            labels = {"target": target, "setting": setting, "method": method, "has_key": has_key}
            group.create_task(_call(stub, metadata, labels))
            await asyncio.sleep(plan["interval"])


async def _call(stub: Any, metadata: list[tuple[str, str]], labels: dict[str, Any]) -> None:
    """Makes one call and prints its line. A stream that ends without `finish_reason` is reported as `TRUNCATED`."""
    message = Message(role="user")
    message.content.string_value = "Hi"
    request = CreateChatCompletionRequest(model="scripted", messages=[message])
    started, status, text = time.monotonic(), "OK", ""
    try:
        if labels["method"] == "CreateChatCompletion":
            await stub.CreateChatCompletion(request, metadata=metadata, timeout=_DEADLINE)
        else:
            stream = stub.StreamChatCompletion(request, metadata=metadata, timeout=_DEADLINE)
            ends = [choice.finish_reason async for chunk in stream for choice in chunk.choices]
            status = "OK" if any(ends) else "TRUNCATED"
    except grpc.RpcError as error:
        status, text = error.code().name, error.details() or ""
    line = labels | {"started": started, "ended": time.monotonic(), "status": status, "message": text}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.stdin.readline())))
