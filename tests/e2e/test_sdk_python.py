"""OpenAI's Python package with another base URL. The upstream has the formats of OpenAI's API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.e2e import vendor
from tests.processes import Parley
from tests.upstream import Events, Gate, ScriptedUpstream

REQUEST: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}]}
# Fields of an answer that Parley sets.
OURS = {"id", "created", "model", "chatSessionId"}


@pytest.fixture
async def aclient(stack: Parley) -> AsyncIterator[openai.AsyncOpenAI]:
    """The package's asynchronous client."""
    async with openai.AsyncOpenAI(base_url=f"{stack.http}/v1", api_key=stack.key, max_retries=0) as client:
        yield client


def theirs(answer: BaseModel) -> dict[str, Any]:
    """Returns the upstream's part of an answer as on the wire: without unset fields."""
    return {name: value for name, value in answer.to_dict().items() if name not in OURS}  # type: ignore[attr-defined]


def without_nulls(value: Any) -> Any:
    """Returns JSON without nulls and empty arrays, which Parley omits."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item not in (None, [])}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def of_upstream(answer: dict[str, Any]) -> Any:
    """Returns the part of an upstream's answer that must reach the caller."""
    return without_nulls({name: value for name, value in answer.items() if name not in OURS})


ANSWERS = {
    "text, usage details, fingerprint, tier": vendor.choice(),
    "parallel tool calls": vendor.choice(None, tool_calls=vendor.PARALLEL_CALLS),
    "a refusal": vendor.choice(None, refusal="I'm sorry, I can't help with that."),
    "a filtered answer": vendor.choice("I", finish_reason="content_filter"),
    "a citation": vendor.choice("News.", annotations=[vendor.CITATION]),
    "reasoning": vendor.choice("42", reasoning_content="Six times seven."),
    "probabilities": vendor.choice("Hello\N{GRINNING FACE}", logprobs=vendor.LOGPROBS),
    "speech": vendor.choice(None, audio=vendor.AUDIO),
    "a custom tool's call": vendor.choice(
        None, tool_calls=[{"id": "call_1", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}]
    ),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_everything_that_the_upstream_returns_reaches_the_caller(
    client: openai.OpenAI, upstream: ScriptedUpstream, what: str
) -> None:
    """Each field of OpenAI's answers is where the package reads it."""
    answer = vendor.complete_answer(ANSWERS[what])
    upstream.answer(answer)
    got = client.chat.completions.create(**REQUEST, logprobs=True, top_logprobs=2)
    assert of_upstream(answer) == without_nulls(theirs(got))
    assert got.id.startswith("chatcmpl-")
    assert "scripted" == got.model


async def test_the_async_client(aclient: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    """Concurrent unary and streaming calls of the asynchronous client return the same."""
    upstream.default = vendor.complete_answer()
    answers = await asyncio.gather(*(aclient.chat.completions.create(**REQUEST) for _ in range(4)))
    assert [of_upstream(vendor.complete_answer())] * 4 == [without_nulls(theirs(answer)) for answer in answers]
    assert 4 == len({answer.id for answer in answers})
    upstream.default = vendor.text("Hel", "lo!")
    streams = await asyncio.gather(*(aclient.chat.completions.create(**REQUEST, stream=True) for _ in range(3)))
    for stream in streams:
        assert "Hello!" == "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_a_stream_has_openais_sequence(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """A stream has role, deltas, finish reason, and usage on request; id, time and model are constant."""
    for usage in (True, False):
        upstream.answer(vendor.text("Hel", "lo", "!"))
        chunks = list(client.chat.completions.create(**REQUEST, stream=True, stream_options={"include_usage": usage}))
        last = chunks.pop() if usage else None
        assert 1 == len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks})
        assert {vendor.TAGS["system_fingerprint"]} == {chunk.system_fingerprint for chunk in chunks}
        deltas = [chunk.choices[0].delta.to_dict() for chunk in chunks]
        assert [{"role": "assistant", "content": ""}, {}] == [deltas[0], deltas[-1]]
        assert "Hello!" == "".join(str(delta["content"]) for delta in deltas[1:-1])
        assert [None] * (len(chunks) - 1) + ["stop"] == [chunk.choices[0].finish_reason for chunk in chunks]
        if last:
            assert ([], vendor.USAGE) == (last.choices, last.usage and last.usage.to_dict())


DELTAS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a refusal": ([{"refusal": "I can"}, {"refusal": "not."}], {"refusal": "I cannot."}),
    "reasoning": (
        [{"reasoning_content": "Six "}, {"reasoning_content": "times seven."}, {"content": "42"}],
        {"reasoning_content": "Six times seven.", "content": "42"},
    ),
    "a citation": (
        [{"content": "News."}, {"annotations": [vendor.CITATION]}],
        {"content": "News.", "annotations": [vendor.CITATION]},
    ),
    "speech": (
        [
            {"audio": {"id": vendor.AUDIO["id"], "transcript": "Yes: golden retrievers "}},
            {"audio": {"data": "UklGRiQAAABXQVZF"}},
            {"audio": {"data": "Zm10IBAAAAABAAEA", "transcript": "are known to be friendly."}},
            {"audio": {"expires_at": vendor.AUDIO["expires_at"]}},
        ],
        {"audio": vendor.AUDIO},
    ),
}


@pytest.mark.parametrize("what", DELTAS)
def test_everything_that_the_upstream_streams_reaches_the_caller(
    client: openai.OpenAI, upstream: ScriptedUpstream, what: str
) -> None:
    """Deltas other than text and tool calls arrive in pieces, too."""
    deltas, expected = DELTAS[what]
    upstream.answer(vendor.stream(deltas))
    got: dict[str, Any] = {}
    for chunk in client.chat.completions.create(**REQUEST, stream=True):
        for name, value in chunk.choices[0].delta.to_dict().items():
            got[name] = _joined(got.get(name), value)
    assert expected == {name: value for name, value in got.items() if value and name != "role"}


def _joined(earlier: Any, more: Any) -> Any:
    if isinstance(more, dict):
        return {**(earlier or {}), **{name: _joined((earlier or {}).get(name), value) for name, value in more.items()}}
    return more if earlier is None or isinstance(more, int) else earlier + more


def test_a_stream_has_the_probabilities_of_its_tokens(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Each token has its logprobs with bytes and alternatives, also beside the finish reason."""
    hello, half = vendor.LOGPROBS["content"]
    steps = [vendor.chunk({"content": "Hello"}, logprobs={"content": [hello]})]
    steps += [vendor.chunk({}, "stop", logprobs={"content": [half]})]
    upstream.answer(Events([*steps, "data: [DONE]\n\n"]))
    chunks = client.chat.completions.create(**REQUEST, stream=True, logprobs=True, top_logprobs=2)
    got = [chunk.choices[0].logprobs for chunk in chunks]
    tokens = [token.to_dict() for part in got if part for token in part.content or []]
    assert without_nulls([hello, half]) == without_nulls(tokens)


def test_several_choices(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The choices of `n` are complete, and interleaved in a stream, each with its index."""
    answer = vendor.complete_answer(vendor.choice("One"), vendor.choice("Two", 1, finish_reason="length"))
    upstream.answer(answer)
    got = client.chat.completions.create(**REQUEST, n=2)
    assert of_upstream(answer) == without_nulls(theirs(got))
    steps = [vendor.chunk({"role": "assistant", "content": ""}, index=index) for index in (0, 1)]
    for first, second in zip("One", "Two", strict=True):
        steps += [vendor.chunk({"content": first}), vendor.chunk({"content": second}, index=1)]
    steps += [vendor.chunk({}, "length", 1), vendor.chunk({}, "stop")]
    upstream.answer(Events([*steps, "data: [DONE]\n\n"]))
    texts, reasons = ["", ""], ["", ""]
    for chunk in client.chat.completions.create(**REQUEST, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason or ""
    assert (["One", "Two"], ["stop", "length"]) == (texts, reasons)
    assert [2, 2] == [request.json["n"] for request in upstream.requests]


async def test_cancelling_an_async_call_closes_the_upstream_connection(
    aclient: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    """A cancelled task, and a stream that is closed early, close the upstream's connection."""
    gate = Gate()
    upstream.answer(Events([gate]), Events([*list(vendor.text("Hel").events)[:2], gate]))
    waiting = asyncio.create_task(aclient.chat.completions.create(**REQUEST))
    request = await upstream.arrives(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await request.closed.arrives()
    stream = await aclient.chat.completions.create(**REQUEST, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    request = await upstream.arrives(1)
    assert not request.closed.is_set()
    await stream.close()
    assert await request.closed.arrives()
    gate.set()


def test_raw_responses_have_their_headers(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Raw responses have the ids of the request, the session and the caller."""
    upstream.answer(vendor.complete_answer())
    raw = client.chat.completions.with_raw_response.create(**REQUEST, extra_headers={"x-correlation-id": "mine-1"})
    answer: ChatCompletion = raw.parse()
    assert raw.headers["x-request-id"] == raw.request_id == answer._request_id  # noqa: SLF001 - so it is documented
    assert answer.to_dict()["chatSessionId"] == raw.headers["x-chat-session-id"]
    assert "mine-1" == raw.headers["x-correlation-id"]
    assert int(raw.headers["parley-processing-ms"]) >= 0
    upstream.answer(vendor.text("Hello"))
    with client.chat.completions.with_streaming_response.create(**REQUEST, stream=True) as response:
        assert "text/event-stream" == response.headers["content-type"]
        assert response.headers["x-chat-session-id"]
        lines = list(response.iter_lines())
    assert ("data: {", "data: [DONE]") == (lines[0][:7], [line for line in lines if line][-1])
