"""The backend for another Parley, connected to a real one: server, core and store; its model is scripted."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from parley.backends.parley.backend import Parley
from parley.config import Metadata, Price
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.ports import UpstreamCall
from parley.rpc.shutdown import Shutdown
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Delta
from tests.contract.backends import call, collect, failure, reasons, request, text
from tests.contract.parley_vendor import other_parley
from tests.rpc import scripted
from tests.rpc.conftest import Worker, serving

FAR = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models: [{id: target-1, targets: [{backend: scripted, model: deep}], retries: {attempts: 1}}]
"""
NEAR = """
backends:
  scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  far: {kind: parley, target: "127.0.0.1:1"}
models:
  - {id: myapp-123, targets: [{backend: far, model: target-1}], retries: {attempts: 1}}
  - {id: guarded, targets: [{backend: scripted}], fallbacks: [myapp-123]}
"""
BEGUN: list[dict[str, Any]] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}]


@pytest_asyncio.fixture
async def far(tmp_path: Path) -> AsyncIterator[Worker]:
    """The other Parley. Its model stores sessions by default."""
    async with serving(tmp_path, FAR) as worker:
        yield worker


@pytest_asyncio.fixture
async def backend(far: Worker) -> AsyncIterator[Parley]:
    """The backend, with a valid key of the other Parley."""
    made = other_parley(far.address, far.keys["ada"])
    yield made
    await made.close()


@pytest_asyncio.fixture
async def near(backend: Parley, tmp_path: Path) -> AsyncIterator[Worker]:
    """A Parley in front of the other one, with a further backend."""
    folder = tmp_path / "near"
    folder.mkdir()
    async with serving(folder, NEAR, time.time, {"far": backend}) as worker:
        yield worker


async def test_complete_answer(backend: Parley, far: Worker) -> None:
    """A complete answer has its usage; the other side stores nothing."""
    answer = await backend.complete(call(metadata={"k": "v"}))
    assert ("Hello", "stop") == (answer.choices[0].message.content.string_value, answer.choices[0].finish_reason)
    assert scripted.USAGE == answer.usage
    assert not answer.session_id
    assert ("deep", "target-1") == (far.backend.calls[0].model, far.backend.calls[0].request.model)


async def test_stream(backend: Parley, far: Worker) -> None:
    """A stream has typed chunks: role, text, finish reason, usage."""
    far.backend.answer = lambda _: scripted.chunks("Hel", "lo.")
    chunks = await collect(backend, call())
    assert ("Hello.", ["stop"]) == (text(chunks), reasons(chunks))
    assert "assistant" == chunks[0].choices[0].delta.role
    assert scripted.USAGE == chunks[-1].usage


async def test_tool_calls(backend: Parley, far: Worker) -> None:
    """The fragments of a tool call are forwarded unchanged."""
    piece = ChatCompletionChunk()
    call_piece = piece.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="c", type="function")
    call_piece.function.name, call_piece.function.arguments = "f", '{"x":'
    far.backend.answer = lambda _: [piece, *scripted.chunks()]
    chunks = await collect(backend, call(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert [call_piece] == [found for chunk in chunks for one in chunk.choices for found in one.delta.tool_calls]


@pytest.mark.parametrize("stream", [False, True])
async def test_deadline_reaches_the_far_backend(backend: Parley, far: Worker, stream: bool) -> None:
    """The caller's deadline limits the call of the other side's backend."""
    far.backend.answer = lambda _: scripted.chunks("Hello") if stream else scripted.completion("Hello")
    upstream_call = call(deadline=20)
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    assert upstream_call.deadline is not None
    assert upstream_call.deadline == pytest.approx(far.backend.calls[0].deadline, abs=1)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancellation_reaches_the_far_backend(backend: Parley, far: Worker, stream: bool) -> None:
    """Cancelling the task ends the call of the other side's backend."""
    silent = asyncio.Event()
    far.backend.answer = lambda _: [*scripted.chunks("Hel")[:1], silent] if stream else silent
    task = asyncio.ensure_future(collect(backend, call()) if stream else backend.complete(call()))
    async with asyncio.timeout(60):
        while not far.backend.calls:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(far.backend.closed.wait(), 60)


async def test_closing_the_iterator_reaches_the_far_backend(backend: Parley, far: Worker) -> None:
    """Closing a stream ends the call of the other side's backend."""
    far.backend.answer = lambda _: [*scripted.chunks("Hel")[:1], asyncio.Event()]
    chunks = backend.stream(call())
    await anext(chunks)
    await chunks.aclose()
    await asyncio.wait_for(far.backend.closed.wait(), 60)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        ContextLengthExceeded("9120 tokens are too many", param="messages", code="context_length_exceeded"),
        ContentPolicy("rejected by the safety system", code="content_filter"),
        UpstreamRejected("no tools here", param="tools[0].type", code="no_tools"),
        UnsupportedParameter('`audio` is not supported by the model "myapp-123"', param="audio"),
        UpstreamRateLimited("slow down", retry_after=7.5),
        UpstreamUnavailable("gone"),
        UpstreamTimeout("too slow"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ParleyError) else str(value),
)
async def test_error(backend: Parley, far: Worker, error: ParleyError, stream: bool) -> None:
    """A failure of the other side's backend maps to the same error here."""
    far.backend.answer = lambda _: error
    failed = await failure(backend, call(), stream=stream)
    assert type(error) is type(failed)
    assert error.param == failed.param
    if isinstance(error, UpstreamRejected | UnsupportedParameter):
        assert error.message == failed.message
    if isinstance(error, UpstreamRejected):
        assert error.code == getattr(failed, "code", None)
    if error.retry_after is not None:
        assert error.retry_after == failed.retry_after


async def test_rejected_keys_and_models(backend: Parley, far: Worker) -> None:
    """A wrong key, a key of a free plan and an unknown model are misconfigurations; the key is redacted."""
    for secret in ("sk-wrong-key", far.keys["eve"]):
        other = other_parley(far.address, secret)
        failed = await failure(other, call())
        await other.close()
        assert UpstreamMisconfigured is type(failed)
        assert secret not in f"{failed!r} {failed.cause}"
    unknown = UpstreamCall(request(), "nobody", call().timeouts)
    assert UpstreamMisconfigured is type(await failure(backend, unknown))


async def test_invalid_request(backend: Parley) -> None:
    """An invalid request is rejected with the field that the other side names."""
    failed = await failure(backend, call(temperature=9))
    assert (UpstreamRejected, "temperature") == (type(failed), failed.param)


async def test_stream_that_breaks_there(backend: Parley, far: Worker) -> None:
    """A stream that breaks at the other side's backend raises StreamBroken after its text was delivered."""
    far.backend.answer = lambda _: [*scripted.chunks("Hel")[:1], StreamBroken("cut")]
    stream = backend.stream(call())
    assert "Hel" == text([await anext(stream), await anext(stream)])
    with pytest.raises(StreamBroken):
        await anext(stream)


async def test_other_side_stops(backend: Parley, far: Worker) -> None:
    """A Parley that stops breaks its streams, refuses new calls immediately, and is unhealthy."""
    far.backend.answer = lambda _: [*scripted.chunks("Hel")[:1], asyncio.Event()]
    stream = backend.stream(call())
    await anext(stream)
    await backend.check()
    stopping = asyncio.ensure_future(far.server.stop(Shutdown(grace=0)))
    with pytest.raises(StreamBroken):
        await _to_the_end(stream)
    await stopping
    assert UpstreamUnavailable is type(await failure(backend, call()))
    with pytest.raises(UpstreamUnavailable):
        await backend.check()


async def _to_the_end(stream: AsyncGenerator[ChatCompletionChunk, None]) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("stream", [False, True])
async def test_continued_answer(backend: Parley, far: Worker, stream: bool) -> None:
    """The other side's backend continues the answer from its beginning."""
    far.backend.answer = lambda _: scripted.chunks("lo.") if stream else scripted.completion("lo.")
    upstream_call = call(messages=BEGUN, continues=True)
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    made = far.backend.calls[0]
    assert made.has_prefill
    assert "Hel" == made.request.messages[-1].content.string_value


async def test_backend_that_cannot_continue(backend: Parley, far: Worker) -> None:
    """A backend of the other side without prefill rejects a continuation."""
    far.backend.supports_prefill = False
    assert UpstreamRejected is type(await failure(backend, call(messages=BEGUN, continues=True)))


async def test_broken_stream_is_continued_there(far: Worker, near: Worker) -> None:
    """A stream that breaks at one backend is completed by the other Parley, without repetition."""
    near.backend.answer = lambda _: [*scripted.chunks("Hel")[:1], StreamBroken("cut")]
    far.backend.answer = lambda _: scripted.chunks("lo", ".")
    metadata = (("authorization", f"Bearer {near.keys['bob']}"),)
    async with grpc.aio.insecure_channel(near.address) as channel:
        stream = ChatCompletionsStub(channel).StreamChatCompletion(request(model="guarded"), metadata=metadata)
        chunks = [chunk async for chunk in stream]
    assert ("Hello.", ["stop"]) == (text(chunks), reasons(chunks))
    assert far.backend.calls[0].has_prefill
    assert "Hel" == far.backend.calls[0].request.messages[-1].content.string_value


async def test_keys_stay_in_order_through_both(far: Worker, near: Worker) -> None:
    """Schemas and `extra_body` keep their key order through two Parleys."""
    ordered = '{"type":"object","properties":{"zeta":{"type":"string"},"alpha":{"type":"number"},"mid":{}}}'
    function = {"name": "f", "parameters_json": ordered}
    request_ = request(
        tools=[{"type": "function", "function": function}],
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema_json": ordered}},
        extra_body_json='{"zz": 1, "aa": {"y": 1, "b": 2}}',
    )
    metadata = (("authorization", f"Bearer {near.keys['bob']}"),)
    async with grpc.aio.insecure_channel(near.address) as channel:
        answer = await ChatCompletionsStub(channel).CreateChatCompletion(request_, metadata=metadata)
    assert "myapp-123" == answer.model
    made = far.backend.calls[0].request
    assert ordered == made.tools[0].function.parameters_json
    assert ordered == made.response_format.json_schema.schema_json
    assert '{"zz": 1, "aa": {"y": 1, "b": 2}}' == made.extra_body_json


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_through_both(far: Worker, near: Worker, stream: bool) -> None:
    """Unknown fields of requests and responses are preserved exactly through two Parleys, at every level."""
    exact = '{"zeta":18446744073709551616,"alpha":[1.10,{"x":null}]}'
    answer = scripted.completion("Hello")
    answer.choices[0].message.extra_json = answer.choices[0].extra_json = answer.usage.extra_json = exact
    delta = ChatCompletionChunk()
    delta.choices.add(index=0, delta=Delta(content="Hello", extra_json=exact), extra_json=exact)
    end = scripted.chunks()
    end[-1].usage.extra_json = exact
    far.backend.answer = lambda _: [delta, *end] if stream else answer
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_json": exact}
    earlier = {"role": "assistant", "tool_calls": [called], "extra_json": exact}
    result = {"role": "tool", "tool_call_id": "c", "content": "1", "extra_json": exact}
    request_ = request(messages=[earlier, result], tools=[{"type": "web_search", "extra_json": exact}])
    metadata = (("authorization", f"Bearer {near.keys['bob']}"),)
    async with grpc.aio.insecure_channel(near.address) as channel:
        stub = ChatCompletionsStub(channel)
        if stream:
            chunks = [chunk async for chunk in stub.StreamChatCompletion(request_, metadata=metadata)]
            found = [choice.extra_json for chunk in chunks for choice in chunk.choices if choice.extra_json]
            found += [
                choice.delta.extra_json for chunk in chunks for choice in chunk.choices if choice.delta.extra_json
            ]
            usage = chunks[-1].usage
        else:
            non_streaming = await stub.CreateChatCompletion(request_, metadata=metadata)
            found, usage = (
                [non_streaming.choices[0].extra_json, non_streaming.choices[0].message.extra_json],
                non_streaming.usage,
            )
    assert [exact] * 3 == [*found, usage.extra_json]
    made = far.backend.calls[0].request
    sent = [made.messages[0].extra_json, made.messages[0].tool_calls[0].extra_json, made.messages[1].extra_json]
    assert [exact] * 4 == [*sent, made.tools[0].extra_json]


DESCRIBED = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {id: "other/*", targets: [{backend: scripted, model: "*"}]}
  - id: target-1
    targets: [{backend: scripted, model: deep}]
    metadata:
      {name: Deep, owner: lab, context_length: 8192, max_output: 512, modalities: [text, image], reasoning: true}
prices: {scripted/deep: {prompt: 0.25, completion: 2}}
"""


async def test_the_models_of_the_other_side_are_read_with_what_it_knows_of_them(tmp_path: Path) -> None:
    """Nothing is lost or added: what the other side does not know is not known here."""
    async with serving(tmp_path, DESCRIBED) as far:
        made = other_parley(far.address, far.keys["ada"])
        listed = await made.list_models()
        await made.close()
    assert ["other/*", "target-1"] == list(listed)
    assert Metadata(owner="scripted") == listed["other/*"]
    assert (
        Metadata(
            name="Deep",
            owner="lab",
            context_length=8192,
            max_output=512,
            modalities=["text", "image"],
            output_modalities=["text"],
            reasoning=True,
            price=Price(prompt=0.25, completion=2),
        )
        == listed["target-1"]
    )


async def test_a_list_that_cannot_be_read_is_a_failure_of_the_backend(far: Worker) -> None:
    """A wrong key is reported, without the words of the other side."""
    made = other_parley(far.address, "sk-wrong-key")
    with pytest.raises(UpstreamUnavailable) as raised:
        await made.list_models()
    await made.close()
    assert "ListModels: UNAUTHENTICATED" == raised.value.cause
