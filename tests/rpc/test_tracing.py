"""Spans of calls whose messages are captured, or whose trace is not sampled."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from parley.tracing import settings
from parley.tracing.spans import FinishedSpan, SpanQueue
from parley.tracing.tracer import OtelTracer
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.rpc.calling import chat_request
from tests.rpc.conftest import serving


class Spans(SpanQueue):
    """Keeps the spans instead of exporting them."""

    def __init__(self) -> None:
        self.all: list[FinishedSpan] = []

    def add(self, span: FinishedSpan) -> None:
        """Keeps a span."""
        self.all.append(span)


async def _spans(folder: Path, *, content: bool, flags: str) -> Sequence[FinishedSpan]:
    """Returns the spans of a streamed call without a session."""
    found = settings.read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"})
    assert found is not None
    spans = Spans()
    tracer = OtelTracer(replace(found, captures_content=content), {}, spans)
    async with serving(folder, tracer=tracer) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        context = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-{flags}")
        metadata = (("authorization", f"Bearer {worker.keys['ada']}"), context)
        call = ChatCompletionsStub(channel).StreamChatCompletion(
            chat_request("A question", model="stateless"), metadata=metadata
        )
        assert [chunk async for chunk in call]
        await asyncio.sleep(0)
    return spans.all


@pytest.mark.parametrize("content", [True, False])
async def test_messages_are_in_spans_only_on_request(content: bool, tmp_path: Path) -> None:
    """The span of the call has the question and the answer if the trace captures content, otherwise no text of them."""
    spans = await _spans(tmp_path, content=content, flags="01")
    (call,) = [span for span in spans if "parley.v1.ChatCompletions/StreamChatCompletion" == span.name]
    assert content is ("A question" in str(call.attributes.get("gen_ai.input.messages")))
    assert content is ("gen_ai.output.messages" in call.attributes)
    assert content is ("A question" in str(spans))


async def test_a_call_that_is_not_sampled_has_no_spans(tmp_path: Path) -> None:
    """The caller's decision holds."""
    assert [] == await _spans(tmp_path, content=True, flags="00")
