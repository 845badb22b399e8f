"""Continuations of the OpenAI backend: marks for the server, and removal of a repeated prefix."""

import dataclasses
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI, Prefill
from parley.core.errors import (
    UpstreamRejected,
)
from parley.core.ports import UpstreamCall
from tests.contract.backends import (
    QUESTION,
    call,
    collect,
    reasons,
    text,
)
from tests.upstream import (
    Events,
    Json,
    ScriptedUpstream,
    chunk,
    completion,
    ending,
    stream,
)

DELIVERED = "The wine-dark sea is"


def continuation(delivered: str = DELIVERED, **fields: Any) -> UpstreamCall:
    """Creates a call that continues an answer from its beginning."""
    messages = [*QUESTION["messages"], {"role": "assistant", "content": delivered}]
    return dataclasses.replace(call(messages=messages, **fields), has_prefill=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prefill", "more", "last"),
    [
        ("message", {}, {}),
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}, {}),
        ("prefix", {}, {"prefix": True}),
        ("partial", {}, {"partial": True}),
    ],
)
async def test_prefill_modes(
    upstream: ScriptedUpstream, prefill: Prefill, more: dict[str, Any], last: dict[str, Any], stream: bool
) -> None:
    """A continuation is marked as each server requires; other calls have no mark."""
    backend = OpenAI(upstream.url, prefill=prefill)
    for upstream_call in (continuation(), call()):
        await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    await backend.close()
    sent, usual = (request.json for request in upstream.requests)
    assert {"role": "assistant", "content": DELIVERED, **last} == sent["messages"][-1]
    assert more == {name: sent[name] for name in sent.keys() - usual.keys()}
    assert QUESTION["messages"] == usual["messages"]


@pytest.mark.parametrize(
    ("url", "prefill", "expected"),
    [
        ("https://api.openai.com/v1", None, False),
        ("https://eu.api.openai.com/v1", None, False),
        ("https://my-firm.openai.azure.com/openai/v1", None, False),
        ("https://my-firm.services.ai.azure.com/openai/v1/", None, False),
        ("https://API.OpenAI.com:443/v1", None, False),
        ("https://api.openai.com/v1", "message", True),
        ("https://openrouter.ai/api/v1", None, True),
        ("https://notapi.openai.com.example/v1", None, True),
        ("http://127.0.0.1:8000/v1", None, True),
        ("http://127.0.0.1:8000/v1", "off", False),
    ],
)
def test_default_prefill(url: str, prefill: Prefill | None, expected: bool) -> None:
    """Prefill is off for OpenAI and Azure and on for others, unless configured."""
    assert expected is OpenAI(url, prefill=prefill).supports_prefill


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (" vast.", " vast."),
        ("The wine-dark sea is vast.", " vast."),
        ("The wine-dark sea is", ""),
        ("The wine-dark sea", "The wine-dark sea"),
        ("The wine-dark sea isThe wine-dark sea is", "The wine-dark sea is"),
        ("Vast. The wine-dark sea is", "Vast. The wine-dark sea is"),
        ("", ""),
    ],
)
async def test_repeated_prefix_is_removed(
    backend: OpenAI, upstream: ScriptedUpstream, answered: str, expected: str
) -> None:
    """A full repetition of the delivered text is removed, streaming or not."""
    upstream.answer(completion(answered), stream(answered), stream(*answered), completion(answered))
    assert expected == (await backend.complete(continuation())).choices[0].message.content.string_value
    assert expected == text(await collect(backend, continuation()))
    chunks = await collect(backend, continuation())
    assert (expected, ["stop"]) == (text(chunks), reasons(chunks))
    if answered:
        assert answered == (await backend.complete(call())).choices[0].message.content.string_value


@pytest.mark.parametrize(
    ("prefill", "expected"), [("message", "haha!"), ("vllm", "haha!"), ("partial", "haha!"), ("prefix", "ha!")]
)
async def test_short_prefix(upstream: ScriptedUpstream, prefill: Prefill, expected: str) -> None:
    """A repetition of a short text in a stream is kept, except for servers known to repeat the prefix."""
    backend = OpenAI(upstream.url, prefill=prefill)
    upstream.answer(stream("ha", "ha", "!"))
    assert expected == text(await collect(backend, continuation("ha")))
    await backend.close()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["The wine-dark", " sea", " is", " vast", "."], [" vast", "."]),
        (["The wine-dark", " sea", " was"], ["The wine-dark", " sea", " was"]),
        (["The wine-dark sea is"], []),
    ],
)
async def test_logprobs_of_a_repeated_prefix(
    backend: OpenAI, upstream: ScriptedUpstream, tokens: list[str], expected: list[str]
) -> None:
    """The logprobs of a removed prefix are removed, too, with or without bytes."""
    for as_bytes in (True, False):
        steps = [chunk({"content": token}) for token in tokens]
        for step, token in zip(steps, tokens, strict=True):
            logprob = {"token": token, "logprob": -0.5, "bytes": list(token.encode()) if as_bytes else None}
            step["choices"][0]["logprobs"] = {"content": [logprob]}
        upstream.answer(Events([*steps, *ending()]), Events([*steps, *ending()], together=True))
        for _ in range(2):
            chunks = await collect(backend, continuation(logprobs=True))
            choices = [choice for one in chunks for choice in one.choices]
            assert expected == [item.token for choice in choices for item in choice.logprobs.content]
            assert "".join(expected) == text(chunks)


async def test_prefix_of_each_choice(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The prefix is removed from each choice independently; null content stays null."""
    first, second = chunk({"content": "The wine-dark sea is wet"}), chunk({"content": "The"}, index=1)
    upstream.answer(Events([first, second, chunk({"content": "y"}, "stop", 1), *ending()]), completion(None))
    chunks = await collect(backend, continuation(n=2))
    assert (" wet", "They") == (text(chunks), text(chunks, 1))
    answer = await backend.complete(continuation())
    assert answer.choices[0].message.content.HasField("null_value")


async def test_rejected_prefill(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A server without prefill rejects the request."""
    message = "Assistant response prefill is incompatible with enable_thinking."
    upstream.answer(Json({"error": {"code": 400, "message": message, "type": "invalid_request_error"}}, 400))
    with pytest.raises(UpstreamRejected) as caught:
        await collect(backend, continuation())
    assert (UpstreamRejected, message) == (type(caught.value), caught.value.message)
