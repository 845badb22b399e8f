"""Clients of Parley under load: reads a plan from stdin, calls until stdin closes, prints one line a call.

The plan is one line of JSON, see `pods.clients`. Each of its channels starts a call every `interval` seconds, unary
and streamed by turns. A line is `{"language", "target", "setting", "started", "ended", "status", "message"}`; times are
of CLOCK_MONOTONIC. Beside them, a REST client does the same, as behind a load balancer that knows both pods, and so
does parley-client.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import aiohttp
import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message
from parley_client import AsyncClient, ParleyError

Metadata = list[tuple[str, str]]
_DEADLINE = 120.0  # seconds of one call
_BACKOFF = 2_000  # milliseconds until a client connects again, at most
_BODY = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


class Truncated(Exception):
    """A stream has ended without its last message."""


async def _run(plan: dict[str, Any]) -> None:
    """Calls over every channel until stdin closes; ends after the last call has ended."""
    stop = asyncio.Event()
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())
    pause = plan["interval"] / len(plan["channels"])
    async with asyncio.TaskGroup() as group:
        for place, channel in enumerate(plan["channels"]):
            group.create_task(_call_steadily(plan, channel, place * pause, stop))
        group.create_task(_call_rest_steadily(plan, stop))
        group.create_task(_call_client_steadily(plan, stop))


async def _call_steadily(plan: dict[str, Any], channel: dict[str, Any], delay: float, stop: asyncio.Event) -> None:
    options = [
        ("grpc.service_config", json.dumps(channel["service_config"])),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_reconnect_backoff_ms", _BACKOFF),
    ]
    await asyncio.sleep(delay)
    async with grpc.aio.insecure_channel(channel["address"], options) as connected, asyncio.TaskGroup() as group:
        stub: Any = ChatCompletionsStub(connected)
        for number in count():
            if stop.is_set():
                return
            metadata = [("authorization", f"Bearer {plan['key']}")]
            if channel["idempotency_keys"]:
                metadata.append(("idempotency-key", f"python-{channel['target']}-{number}"))
            call = (_unary, _streamed)[number % 2]
            group.create_task(_recorded(channel, _repeated(call, stub, metadata, repeat=channel["idempotency_keys"])))
            await asyncio.sleep(plan["interval"])


async def _repeated(
    call: Callable[[Any, Metadata], Awaitable[None]], stub: Any, metadata: Metadata, *, repeat: bool
) -> None:
    """Makes a call; with a key once more where it fails, because a library cannot repeat a stream that has begun."""
    try:
        await call(stub, metadata)
    except (grpc.RpcError, Truncated):
        if not repeat:
            raise
        await call(stub, metadata)


def _request() -> CreateChatCompletionRequest:
    message = Message(role="user")
    message.content.string_value = "Hi"
    return CreateChatCompletionRequest(model="scripted", messages=[message])


async def _unary(stub: Any, metadata: Metadata) -> None:
    await stub.CreateChatCompletion(_request(), metadata=metadata, timeout=_DEADLINE)


async def _streamed(stub: Any, metadata: Metadata) -> None:
    stream = stub.StreamChatCompletion(_request(), metadata=metadata, timeout=_DEADLINE)
    ends = [choice.finish_reason async for chunk in stream for choice in chunk.choices]
    if not any(ends):
        raise Truncated


async def _call_rest_steadily(plan: dict[str, Any], stop: asyncio.Event) -> None:
    """Makes one REST call after another on a connection that is kept alive."""
    headers = {"authorization": f"Bearer {plan['key']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in count():
            if stop.is_set():
                return
            body = _BODY | {"stream": bool(number % 2)}
            await _recorded({"target": "two", "setting": "REST"}, _rest(session, plan["http"], body))
            await asyncio.sleep(plan["interval"])


async def _rest(session: aiohttp.ClientSession, pods: list[str], body: dict[str, Any]) -> None:
    """Makes a call at the first pod that accepts the connection."""
    async with _connected(session, pods, body) as response:
        text = await response.text()
        if response.status != 200 or (body["stream"] and not text.endswith("data: [DONE]\n\n")):
            raise Truncated(f"{response.status} {text}")


@asynccontextmanager
async def _connected(
    session: aiohttp.ClientSession, pods: list[str], body: dict[str, Any]
) -> AsyncIterator[aiohttp.ClientResponse]:
    for pod in pods:
        try:
            response = await session.post(f"{pod}/v1/chat/completions", json=body)
        except aiohttp.ClientConnectorError:
            continue
        async with response:
            yield response
        return
    raise Truncated("no pod accepts connections")


async def _call_client_steadily(plan: dict[str, Any], stop: asyncio.Event) -> None:
    """Makes one call after another with parley-client as it is, unary and streamed by turns."""
    address = next(one["address"] for one in plan["channels"] if one["target"] == "two")
    async with AsyncClient(address, key=plan["key"], tls=False) as client:
        for number in count():
            if stop.is_set():
                return
            call = (client.chat.create, partial(_client_stream, client))[number % 2]
            await _recorded({"target": "two", "setting": "parley-client"}, call("Hi", model="scripted"))
            await asyncio.sleep(plan["interval"])


async def _client_stream(client: AsyncClient, text: str, *, model: str) -> None:
    async with client.chat.stream(text, model=model) as stream:
        answer = await stream.result()
    if (answer.text, answer.finish_reason) != ("Hello", "stop"):
        raise Truncated(answer.text)


async def _recorded(channel: dict[str, Any], call: Awaitable[object]) -> None:
    """Makes a call and prints its line."""
    started, status, text = time.monotonic(), "OK", ""
    try:
        await call
    except grpc.RpcError as error:
        status, text = error.code().name, error.details() or ""
    except ParleyError as error:
        status, text = error.code.name, error.message
    except (aiohttp.ClientError, Truncated) as error:
        status, text = type(error).__name__, str(error)
    line = {"language": "Python", "target": channel["target"], "setting": channel["setting"], "started": started}
    sys.stdout.write(json.dumps(line | {"ended": time.monotonic(), "status": status, "message": text}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.stdin.readline())))
