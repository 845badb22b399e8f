"""Streams with `coalesce`: what arrives within the time leaves together; beginning, end and failures never wait."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from parley.core.errors import StreamBroken
from parley.core.ports import Backend, UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from tests import upstream as openai
from tests.contract.backends import Mark, broken_off, call, collect, completion_of, reasons, stream_of, text
from tests.contract.http_vendors import OPENAI, HttpVendor
from tests.upstream import PATIENCE, Cut, Delay, Events, Gate, ScriptedUpstream, Stall

FOREVER = 10 * PATIENCE
"""Seconds: a test in which something waits for this time fails."""
LONG = "x" * 200_000
"""More than a connection buffers."""


def _coalesced(seconds: float = FOREVER, **fields: Any) -> UpstreamCall:
    return replace(call(**fields), coalesce=seconds)


def _texts(chunks: Sequence[ChatCompletionChunk]) -> list[str]:
    return [found for chunk in chunks if (found := text([chunk]))]


async def test_tokens_leave_together(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """The first token leaves at once; later ones leave together with the end, which does not wait either."""
    gate = Gate()
    upstream.answer(vendor.stream("Hel", gate, "lo", Delay(0.01), " there", Delay(0.01), ".", Mark.END))
    chunks, error = await broken_off(backend, _coalesced(), gate)
    assert (["Hel", "lo there."], None) == (_texts(chunks), error)
    assert ["stop"] == reasons(chunks)
    assert 12 == completion_of(chunks).usage.total_tokens


async def test_tokens_leave_after_the_time(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Tokens that have waited for the time leave although the stream goes on."""
    gate, rest = Gate(), Gate()
    upstream.answer(vendor.stream("Hel", gate, "lo", rest, ".", Mark.END))
    delivered = ""
    async for chunk in stream_of(backend, _coalesced(0.02)):
        delivered += text([chunk])
        {"Hel": gate, "Hello": rest}.get(delivered, gate).set()
    assert "Hello." == delivered


async def test_tokens_before_a_failure_leave(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream that breaks delivers the tokens that waited, and then fails, so that another target can continue it."""
    gate = Gate()
    upstream.answer(vendor.stream("Hel", gate, "lo", Cut()))
    chunks, error = await broken_off(backend, _coalesced(), gate)
    assert (["Hel", "lo"], StreamBroken) == (_texts(chunks), type(error))


async def test_much_text_does_not_wait(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Text that fills the buffer of the connection leaves before the time."""
    gate, rest = Gate(), Gate()
    upstream.answer(vendor.stream("Hel", gate, LONG, rest, ".", Mark.END))
    delivered = ""
    async for chunk in stream_of(backend, _coalesced()):
        delivered += text([chunk])
        gate.set()
        if len(delivered) >= len(LONG):
            rest.set()
    assert f"Hel{LONG}." == delivered


async def test_a_closed_stream_closes_the_connection(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """A caller that leaves while tokens wait closes the connection to the upstream."""
    gate = Gate()
    upstream.answer(vendor.stream("Hel", gate, "lo", Stall()))
    stream = stream_of(backend, _coalesced())
    async for chunk in stream:
        if text([chunk]):
            break
    gate.set()
    await stream.aclose()
    assert await upstream.requests[0].closed.arrives(1)


PARTS: list[dict[str, Any]] = [
    openai.chunk({"role": "assistant", "content": ""}),
    openai.chunk({"reasoning_content": "Let me "}),
    openai.chunk({"reasoning_content": "see."}, index=1),
    openai.chunk({"reasoning_content": "see."}),
    openai.chunk({"content": "One "}),
    openai.chunk({"content": "Two "}, index=1),
    openai.chunk({"content": "moment."}),
    openai.chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]}),
    openai.chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
    openai.chunk({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g"}}]}),
    openai.chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
    openai.chunk({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
    openai.chunk({"content": "moments."}, index=1),
    openai.chunk({}, "tool_calls"),
    openai.chunk({}, "length", index=1),
    openai.chunk(choices=[], usage=openai.USAGE),
]


@pytest.mark.parametrize("vendor", [OPENAI], ids=["openai"])
async def test_the_answer_is_the_same(backend: Backend, upstream: ScriptedUpstream) -> None:
    """Reasoning, tool calls, several choices, finish reasons and usage are those of a stream without `coalesce`."""
    steps = [step for part in PARTS for step in (part, Delay(0.002))]
    upstream.answer(Events([*steps, openai.DONE]), Events([*steps, openai.DONE]))
    each = await collect(backend, call(n=2))
    together = await collect(backend, _coalesced(n=2))
    assert completion_of(each) == completion_of(together)
    assert len(each) > len(together)
