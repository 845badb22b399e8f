"""Answers of the built-in model: parameters, formats and limits, with the real model."""

import asyncio
from pathlib import Path

import orjson
import pytest

from parley.backends.llama_cpp.backend import LlamaCpp
from parley.core.errors import (
    ContextLengthExceeded,
    UnsupportedParameter,
)
from tests.contract.backends import call, collect, completion_of, failure, reasons, text
from tests.contract.llama_cpp.server import SHORT

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}


async def test_complete_answer(backend: LlamaCpp) -> None:
    """A complete answer has text and usage."""
    answer = await backend.complete(call(**SHORT))
    assert "" != answer.choices[0].message.content.string_value
    assert "length" == answer.choices[0].finish_reason
    assert 6 == answer.usage.completion_tokens
    assert 0 < answer.usage.prompt_tokens == answer.usage.total_tokens - 6


async def test_stream(backend: LlamaCpp) -> None:
    """A stream has the text of the complete answer, and ends with the usage."""
    non_streaming = await backend.complete(call(**SHORT))
    chunks = await collect(backend, call(**SHORT))
    assert non_streaming.choices[0].message.content.string_value == text(chunks)
    assert ["length"] == reasons(chunks)
    assert 6 == completion_of(chunks).usage.completion_tokens


async def test_several_choices(backend: LlamaCpp) -> None:
    """`n` gives as many choices; the usage is their sum, streaming or not."""
    answer = await backend.complete(call(**SHORT, n=2))
    assert [0, 1] == sorted(choice.index for choice in answer.choices)
    assert 12 == answer.usage.completion_tokens
    assert ["length", "length"] == [choice.finish_reason for choice in answer.choices]
    chunks = await collect(backend, call(**SHORT, n=2))
    assert text(chunks, 0) == text(chunks, 1) != ""
    assert 12 == completion_of(chunks).usage.completion_tokens


async def test_more_choices_than_slots(backend: LlamaCpp) -> None:
    """`n` above the number of slots is rejected with the supported range."""
    with pytest.raises(UnsupportedParameter) as caught:
        await backend.complete(call(**SHORT, n=3))
    assert ("n", '`n` must be from 1 to 2 for the model "myapp-123"') == (caught.value.param, caught.value.message)


async def test_stop(backend: LlamaCpp) -> None:
    """The answer ends before the stop text."""
    non_streaming = (await backend.complete(call(**SHORT))).choices[0].message.content.string_value
    answer = await backend.complete(call(**SHORT, stop=[non_streaming[2:4]]))
    assert (non_streaming[:2], "stop") == (
        answer.choices[0].message.content.string_value,
        answer.choices[0].finish_reason,
    )


async def test_seed(backend: LlamaCpp) -> None:
    """The same seed gives the same answer at any temperature; different seeds give different answers."""
    delivered = []
    for seed in (5, 5, 6, 7, 8):
        answer = await backend.complete(call(**SHORT | {"temperature": 1.5, "seed": seed}))
        delivered.append(answer.choices[0].message.content.string_value)
    assert delivered[0] == delivered[1]
    assert len(set(delivered)) > 1


async def test_max_completion_tokens(backend: LlamaCpp) -> None:
    """`max_completion_tokens` limits the answer."""
    answer = await backend.complete(call(temperature=0, max_completion_tokens=2))
    assert 2 == answer.usage.completion_tokens


async def test_logit_bias(backend: LlamaCpp, socket: Path) -> None:
    """A token with a strongly negative bias does not occur."""
    upstream_call = SHORT | {"max_tokens": 1, "logprobs": True, "top_logprobs": 1}
    first = (await backend.complete(call(**upstream_call))).choices[0].logprobs.content[0].token
    ids = await tokens(socket, first)
    other = await backend.complete(call(**upstream_call, logit_bias={str(ids[0]): -100}))
    assert first != other.choices[0].logprobs.content[0].token


async def tokens(socket: Path, delivered: str) -> list[int]:
    """Returns llama.cpp's tokens of a text."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    body = orjson.dumps({"content": delivered})
    head = f"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    found: list[int] = orjson.loads(answer.partition(b"\r\n\r\n")[2])["tokens"]
    return found


@pytest.mark.parametrize("top", [None, 0, 2])
async def test_logprobs(backend: LlamaCpp, top: int | None) -> None:
    """Logprobs have bytes, and the requested number of alternatives."""
    fields = {} if top is None else {"top_logprobs": top}
    choice = (await backend.complete(call(**SHORT | {"logprobs": True} | fields))).choices[0]
    found = choice.logprobs.content
    assert 6 == len(found)
    assert choice.message.content.string_value.encode() == b"".join(bytes(token.bytes) for token in found)
    assert all(token.HasField("logprob") and token.logprob <= 0 for token in found)
    assert {top or 0} == {len(token.top_logprobs) for token in found}


async def test_json_schema(backend: LlamaCpp) -> None:
    """The answer follows the JSON Schema."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
    answer = await backend.complete(call(**SHORT | {"max_tokens": 40}, response_format=form))
    assert {"city"} == set(orjson.loads(answer.choices[0].message.content.string_value))


async def test_json_object(backend: LlamaCpp) -> None:
    """The answer begins as a JSON object."""
    answer = await backend.complete(call(**SHORT, response_format={"type": "json_object"}))
    assert answer.choices[0].message.content.string_value.startswith("{")


async def test_text_parts(backend: LlamaCpp) -> None:
    """Content may be a list of text parts."""
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = await backend.complete(call(**SHORT, messages=[{"role": "user", "content": parts}]))
    assert 6 == answer.usage.completion_tokens


async def test_too_long(backend: LlamaCpp) -> None:
    """A conversation over the context of a slot maps to ContextLengthExceeded."""
    failed = await failure(backend, call(**SHORT | {"messages": [{"role": "user", "content": "word " * 2000}]}))
    assert ContextLengthExceeded is type(failed)
    assert "1024 tokens" in failed.message


async def test_cancellation(backend: LlamaCpp) -> None:
    """A closed stream frees its slot: two further calls succeed."""
    long = SHORT | {"max_tokens": 900, "messages": [{"role": "user", "content": "Count to one thousand."}]}
    for _ in range(2):
        chunks = backend.stream(call(**long))
        await anext(chunks)
        await chunks.aclose()
    async with asyncio.timeout(10):
        answer = await backend.complete(call(**SHORT, n=2))
    assert 2 == len(answer.choices)
