"""Calls Parley with an installed parley-client, and nothing of the service; prints what it has seen as JSON."""

import asyncio
import importlib.util
import json
import os
import pickle
from typing import Any

import google.protobuf
import grpc

import parley_client
from parley_client import AsyncClient, Client

OPTIONS: dict[str, Any] = {"key": os.environ["KEY"]}
TARGET = os.environ["PARLEY_GRPC"]


def call() -> dict[str, Any]:
    """Makes a unary call, a stream in a session, and a call that fails."""
    with Client(TARGET, **OPTIONS) as client:
        session = client.sessions.open(model="scripted")
        whole = session.create([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], extra_body={"top_k": 7})
        with session.stream("And?") as stream:
            text = "".join(stream.text())
            joined = stream.result()
        messages = [one.message.content.string_value for one in client.sessions.messages(str(session.id))]
        try:
            client.chat.create("Hi", model="nope")
        except parley_client.NotFoundError as error:
            reason = error.reason
    receipt = pickle.loads(pickle.dumps(joined.receipt)).attempts[0].outcome
    return {
        "whole": [whole.text, whole.usage.total_tokens],
        "streamed": [text, joined.text, receipt],
        "messages": messages[1:],
        "reason": reason,
    }


async def call_async() -> str:
    """Makes a unary call with asyncio."""
    async with AsyncClient(TARGET, **OPTIONS) as client:
        return (await client.chat.create("Hi", model="scripted")).text


if __name__ == "__main__":
    seen = call() | {"asynchronous": asyncio.run(call_async())}
    seen |= {"protobuf": google.protobuf.__version__, "grpcio": grpc.__version__}
    seen["service"] = importlib.util.find_spec("parley") is not None
    print(json.dumps(seen))
