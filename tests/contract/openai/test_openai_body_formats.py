"""OpenAI responses in the format of the other kind: JSON for a stream, and events for a complete answer."""

import json

import pytest

from parley.backends.openai.backend import OpenAI
from parley.core.errors import (
    StreamBroken,
    UpstreamRateLimited,
    UpstreamUnreadable,
)
from tests.contract.backends import (
    call,
    collect,
    completion_of,
    failure,
    text,
)
from tests.contract.openai.answers import counted
from tests.upstream import Events, Json, Raw, ScriptedUpstream, chunks, completion, ending

TYPES = ["application/json", "text/event-stream", "text/plain", "application/octet-stream"]


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("before", ["", "\n\n \n"])
async def test_json_for_a_stream(backend: OpenAI, upstream: ScriptedUpstream, content_type: str, before: str) -> None:
    """A JSON response to a streaming request is streamed, whatever its content type."""
    tool = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = before + json.dumps(completion("Hi", tool_calls=[tool], reasoning_content="hm"))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    upstream.answer(Raw([head + body[:9], body[9:]]))
    answer = completion_of(await collect(backend, call()))
    [choice] = answer.choices
    assert ("Hi", "hm", "tool_calls") == (
        choice.message.content.string_value,
        choice.message.reasoning_content,
        choice.finish_reason,
    )
    assert ["f"] == [made.function.name for made in choice.message.tool_calls]
    assert ((9, 3), "fp_scripted") == (counted(answer), answer.system_fingerprint)


@pytest.mark.parametrize("content_type", TYPES)
async def test_events_for_a_complete_answer(backend: OpenAI, upstream: ScriptedUpstream, content_type: str) -> None:
    """Events for a non-streaming request are accumulated; an incomplete stream is a failure."""
    headers = {"Content-Type": content_type}
    upstream.answer(Events([": hi\n\n", *chunks("H", "i"), *ending()], headers=headers))
    upstream.answer(Events([*chunks("H", "i")], headers=headers), Events([{"error": {"code": 429}}], headers=headers))
    answer = await backend.complete(call())
    assert ("Hi", "stop", (9, 3)) == (
        answer.choices[0].message.content.string_value,
        answer.choices[0].finish_reason,
        counted(answer),
    )
    assert UpstreamUnreadable is type(await failure(backend, call()))
    assert UpstreamRateLimited is type(await failure(backend, call()))


async def test_truncated_json_for_a_stream(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A truncated JSON response to a streaming request raises StreamBroken."""
    body = json.dumps(completion("Hi"))[:-9]
    upstream.answer(Events([body]), Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 9}\r\n\r\n{body}"]))
    for _ in range(2):
        assert StreamBroken is type(await failure(backend, call(), stream=True))


@pytest.mark.parametrize("stream", [False, True])
async def test_large_headers(backend: OpenAI, upstream: ScriptedUpstream, stream: bool) -> None:
    """Headers of 60 KB, and two hundred headers, are accepted."""
    headers = {"x-large": "x" * 60_000} | {f"x-{number}": "y" for number in range(200)}
    upstream.answer(
        Events([*chunks("Hi"), *ending()], headers=headers) if stream else Json(completion("Hi"), 200, headers)
    )
    if stream:
        assert "Hi" == text(await collect(backend, call()))
    else:
        assert "Hi" == (await backend.complete(call())).choices[0].message.content.string_value
