"""Requests, answers and chunks of the backend for another Parley."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from parley.backends.parley.backend import Parley
from parley.core.errors import (
    StreamBroken,
    UpstreamUnreadable,
)
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Delta
from tests.contract.backends import KEY, call, collect, failure
from tests.contract.parley.test_parley_connections import HELLO
from tests.contract.parley_vendor import USAGE, chunk, chunks, completion, ending
from tests.contract.scripted_parley import Answer, ScriptedParley
from tests.upstream import Stall


async def test_request(backend: Parley, upstream: ScriptedParley) -> None:
    """The request is forwarded with the backend's key and without the fields that store a turn."""
    upstream.answer(HELLO)
    function = {"name": "f", "parameters_json": '{"z": 1, "a": 2}'}
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
        "tools": [{"type": "function", "function": function}],
    }
    own: dict[str, Any] = {
        "chatSessionId": "s",
        "store": True,
        "metadata": {"k": "v"},
        "stream": True,
        "stream_options": {"include_usage": True},
        "continue_final_message": True,
    }
    made = call(**fields, **own)
    await backend.complete(made)
    expected = {"model": "target-1", "messages": [{"role": "user", "content": "hi"}], "store": False, **fields}
    assert expected == MessageToDict(upstream.requests[0].message) | {"seed": 7}
    assert f"Bearer {KEY}" == upstream.requests[0].metadata["authorization"]
    assert ("myapp-123", "s") == (made.request.model, made.request.session_id)


@pytest.mark.parametrize("stream", [False, True])
async def test_continuation(backend: Parley, upstream: ScriptedParley, stream: bool) -> None:
    """A continuation sets `continue_final_message`."""
    upstream.answer(Answer([*chunks("lo."), *ending()]) if stream else HELLO)
    upstream_call = call(
        messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}], continues=True
    )
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    assert upstream.requests[0].message.continue_final_message


async def test_the_typed_text_of_the_other_side_is_cleared(backend: Parley, upstream: ScriptedParley) -> None:
    """The text that the other side sets beside `content` is cleared: the core has one form."""
    typed = completion("Hello.")
    typed.choices[0].message.text = "Hello."
    upstream.answer(Answer([typed]))
    message = (await backend.complete(call())).choices[0].message
    assert ("Hello.", False) == (message.content.string_value, message.HasField("text"))


async def test_identity_of_the_other_side_is_cleared(backend: Parley, upstream: ScriptedParley) -> None:
    """Id, time, model name and sequence of the other side are cleared, because the core sets them."""
    non_streaming, part = completion("Hello."), chunk(Delta(content="Hel"), sequence=3)
    non_streaming.session_id = part.session_id = "theirs"
    upstream.answer(Answer([non_streaming]), Answer([part, *ending()]))
    answer = await backend.complete(call())
    first = (await collect(backend, call()))[0]
    assert {"choices", "usage"} == {field.name for field, _ in answer.ListFields()}
    assert {"choices"} == {field.name for field, _ in first.ListFields()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("deadline", "expected"), [(20.0, 20.0), (None, 30.0), (40.0, 30.0)])
async def test_deadline_is_propagated(
    backend: Parley, upstream: ScriptedParley, deadline: float | None, expected: float, stream: bool
) -> None:
    """The call's deadline is sent: the rest of the caller's deadline, at most `total`."""
    upstream.answer(Answer([*chunks("Hello."), *ending()]) if stream else HELLO)
    upstream_call = call(deadline=deadline, timeouts={"total": 30})
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    seconds = upstream.requests[0].seconds
    assert seconds is not None
    assert expected - 10 < seconds <= expected + 0.5


@pytest.mark.parametrize("message", [b"\xff\xff\xff", ChatCompletion()], ids=["garbage", "no choices"])
async def test_malformed_answer(backend: Parley, upstream: ScriptedParley, message: Any) -> None:
    """A malformed complete response maps to UpstreamUnreadable, which is not retried."""
    upstream.answer(Answer([message]))
    failed = await failure(backend, call())
    assert UpstreamUnreadable is type(failed)
    assert failed.cause


async def test_size_limit_of_an_answer(backend: Parley, upstream: ScriptedParley) -> None:
    """A response over 64 MiB is not read into memory."""
    upstream.answer(Answer([completion("x" * (65 * 1024 * 1024))]))
    failed = await failure(backend, call())
    assert UpstreamUnreadable is type(failed)
    assert "larger than max" in (failed.cause or "")


async def test_malformed_chunk(backend: Parley, upstream: ScriptedParley) -> None:
    """A malformed chunk raises StreamBroken and cancels the call."""
    upstream.answer(Answer([*chunks("Hel"), b"\xff\xff\xff", Stall()]))
    assert StreamBroken is type(await failure(backend, call(), stream=True))
    assert await upstream.requests[0].closed.arrives(1)


async def test_stream_without_chunks(backend: Parley, upstream: ScriptedParley) -> None:
    """A stream without chunks raises StreamBroken even if its status is OK."""
    upstream.answer(Answer([]))
    assert StreamBroken is type(await failure(backend, call(), stream=True))


async def test_unfinished_choice(backend: Parley, upstream: ScriptedParley) -> None:
    """A stream is complete only if every choice is finished."""
    other = ChatCompletionChunk()
    other.choices.add(index=1, delta=Delta(content="x"))
    upstream.answer(Answer([*chunks("Hel"), other, *ending()]))
    assert StreamBroken is type(await failure(backend, call(n=2), stream=True))


async def test_tool_calls_and_usage(backend: Parley, upstream: ScriptedParley) -> None:
    """Tool calls, logprobs and usage in chunks are forwarded unchanged."""
    piece = chunk(Delta())
    piece.choices[0].delta.tool_calls.add(index=0, id="c", type="function").function.name = "f"
    piece.choices[0].logprobs.content.add(token="x", logprob=-1.0)
    upstream.answer(Answer([*chunks(), piece, chunk(finish="tool_calls"), chunk(usage=USAGE)]))
    got = await collect(backend, call())
    assert piece.choices[0] == got[1].choices[0]
    assert USAGE == got[-1].usage


EXTRA = '{"z":18446744073709551616,"a":[1.10]}'


async def test_unknown_fields_of_a_request(backend: Parley, upstream: ScriptedParley) -> None:
    """Unknown fields of a request are forwarded at every level."""
    function = {"name": "f", "arguments": "{}", "extra_json": EXTRA}
    fields: dict[str, Any] = {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": function, "extra_json": EXTRA}]},
            {"role": "tool", "tool_call_id": "c", "content": "1", "extra_json": EXTRA},
        ],
        "tools": [{"type": "web_search", "extra_json": EXTRA}],
        "response_format": {"type": "json_object", "extra_json": EXTRA},
        "stream_options": {"include_usage": True, "extra_json": EXTRA},
        "extra_body_json": EXTRA,
    }
    upstream.answer(HELLO, Answer([*chunks("x"), *ending()]))
    await backend.complete(call(**fields))
    await collect(backend, call(**fields))
    non_streaming, is_stream = [
        MessageToDict(got.message, preserving_proto_field_name=True) for got in upstream.requests
    ]
    for sent in (non_streaming, is_stream):
        assert fields["messages"][0]["tool_calls"] == sent["messages"][0]["tool_calls"]
        assert fields["messages"][1:] == sent["messages"][1:]
        assert {name: fields[name] for name in ("tools", "response_format", "extra_body_json")}.items() <= sent.items()
    assert ("stream_options" in non_streaming, {"extra_json": EXTRA}) == (False, is_stream["stream_options"])


async def test_unknown_fields_of_an_answer(backend: Parley, upstream: ScriptedParley) -> None:
    """Unknown fields of a response are returned as text at every level, converted from the Struct if necessary."""
    both: Any = {"extra": {"z": 1}, "extra_json": EXTRA}
    piece: Any = {"index": 0, "function": {"arguments": "{}", **both}, "extra": {"own": 1}}
    deltas: list[Any] = [{"content": "x", **both}, {"tool_calls": [piece]}, {"content": "y"}]
    made = [ParseDict({"choices": [{"index": 0, "delta": delta, **both}]}, ChatCompletionChunk()) for delta in deltas]
    message = {"content": "x", "tool_calls": [{"id": "c", "extra": {"own": 1}}], **both}
    non_streaming = ParseDict({"choices": [{"message": message, **both}], "usage": both, **both}, ChatCompletion())
    upstream.answer(Answer([non_streaming]), Answer([*made, *ending()]))
    answer = await backend.complete(call())
    assert "extra {" not in str(answer)
    assert 4 == str(answer).count("18446744073709551616")
    assert '{"own":1}' == answer.choices[0].message.tool_calls[0].extra_json
    is_stream = await collect(backend, call())
    assert "extra {" not in str(is_stream)
    assert [EXTRA, "", ""] == [one.choices[0].delta.extra_json for one in is_stream[:3]]
    assert [EXTRA] * 3 == [one.choices[0].extra_json for one in is_stream[:3]]
    call_piece = is_stream[1].choices[0].delta.tool_calls[0]
    assert ('{"own":1}', EXTRA) == (call_piece.extra_json, call_piece.function.extra_json)
