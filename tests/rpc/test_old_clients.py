"""A client of the first protos calls today's server. `first_client.binpb` has the descriptors of its generated code.

`make check` compares today's protos with the same file (`buf breaking`).
"""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from tests.rpc.calling import Metadata
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion

FIRST = Path(__file__).with_name("first_client.binpb")
MESSAGES = [{"role": "user", "content": "Hi"}]


class FirstClient:
    """Calls methods with the messages of the first descriptors; answers are JSON of the fields that those know."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(FIRST.read_bytes()).file:
            pool.Add(file)
        self._pool, self._channel, self._metadata = pool, channel, metadata

    def call(self, method: str, **request: Any) -> Any:
        """Makes a call of `Service/Method`; a stream is a list. Fails if the method has not existed."""
        service, _, name = method.partition("/")
        found = self._pool.FindServiceByName(f"parley.v1.{service}").methods_by_name[name]
        make = self._channel.unary_stream if found.server_streaming else self._channel.unary_unary
        rpc: Any = make(
            f"/parley.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        message = ParseDict(request, GetMessageClass(found.input_type)())
        answer = rpc(message, metadata=self._metadata, timeout=60)
        if found.server_streaming:
            return [MessageToDict(one, preserving_proto_field_name=True) for one in answer]
        return MessageToDict(answer, preserving_proto_field_name=True)


@pytest.fixture
def client(grpc_channel: grpc.Channel, ada: Metadata) -> FirstClient:
    """A client of the first protos."""
    return FirstClient(grpc_channel, ada)


def test_chat(worker: Worker, client: FirstClient) -> None:
    """An answer and a stream have the fields that the first client knows."""
    worker.backend.answer = lambda call: chunks("Hel", "lo") if call.request.stream else completion("Hello")
    answer = client.call("ChatCompletions/CreateChatCompletion", model="kept", messages=MESSAGES)
    (choice,) = answer["choices"]
    assert ("stop", "assistant", "Hello") == (choice["finish_reason"], *map(choice["message"].get, ("role", "content")))
    assert 5 == answer["usage"]["total_tokens"]
    stream = client.call("ChatCompletions/StreamChatCompletion", model="kept", messages=MESSAGES, stream=True)
    choices = [choice for chunk in stream for choice in chunk.get("choices", [])]
    assert "Hello" == "".join(choice["delta"].get("content", "") for choice in choices)
    assert "stop" == choices[-1]["finish_reason"]
    assert "kept" in [model["id"] for model in client.call("Models/ListModels")["data"]]


def test_sessions(worker: Worker, client: FirstClient) -> None:
    """A session goes on, is listed and read, and is deleted."""
    worker.backend.answer = lambda _: completion("Hello")
    first = client.call("ChatCompletions/CreateChatCompletion", model="kept", messages=MESSAGES)
    session = first["session_id"]
    client.call("ChatCompletions/CreateChatCompletion", model="kept", messages=MESSAGES, session_id=session)
    assert 2 == client.call("Sessions/GetSession", session_id=session)["turn_count"]
    assert session in [one["id"] for one in client.call("Sessions/ListSessions")["sessions"]]
    messages = client.call("Sessions/ListSessionMessages", session_id=session)["messages"]
    assert ["Hi", "Hello"] * 2 == [one["message"]["content"] for one in messages]
    client.call("Sessions/DeleteSession", session_id=session)
    with pytest.raises(grpc.RpcError) as failed:
        client.call("Sessions/GetSession", session_id=session)
    assert grpc.StatusCode.NOT_FOUND == failed.value.code()


def test_every_method_exists(client: FirstClient, grpc_channel: grpc.Channel) -> None:
    """Today's server implements every method of the first protos."""
    for name in ("ChatCompletions", "Sessions", "Models"):
        for method in client._pool.FindServiceByName(f"parley.v1.{name}").methods:  # noqa: SLF001 - its descriptors
            call: Any = grpc_channel.unary_stream(f"/parley.v1.{name}/{method.name}")
            with pytest.raises(grpc.RpcError) as failed:
                list(call(b"", timeout=60))
            assert grpc.StatusCode.UNAUTHENTICATED == failed.value.code(), method.name
