"""Guards of streams over REST's events, and their spans."""

import asyncio
from pathlib import Path

import grpc

from parley.rpc.sse import KEEP_ALIVE
from parley.tracing import settings
from parley.tracing.tracer import OtelTracer
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import sse
from tests.rpc.calling import chat_request
from tests.rpc.conftest import serving
from tests.rpc.guarding import ALLOW, guard_server, redacting
from tests.rpc.scripted import chunks
from tests.rpc.test_tracing import Spans

CONFIG = """
backends: {{scripted: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
guards:
  slow: {{address: "{address}", deadline: 20s, window: 4, overlap: 2}}
  words: {{patterns: [bluebird], replacement: "(x)"}}
default_guards: [slow, words]
models: [{{id: m, targets: [{{backend: scripted}}], sessions: "off"}}]
"""


async def test_comments_flow_while_text_is_held_back(tmp_path: Path, log_file: Path) -> None:
    """Comments keep the connection alive before the first window and during a check; then the text follows."""
    with guard_server() as (guard, address):
        config = CONFIG.format(address=address)
        async with (
            serving(tmp_path, config, keep_alive_seconds=0.05) as worker,
            grpc.aio.insecure_channel(worker.address) as channel,
        ):
            gate = asyncio.Event()
            guard.decide = lambda request: ALLOW if request.phase == 1 else guard.gate.wait(20) and ALLOW
            worker.backend.answer = lambda _: [chunks("ab")[0], gate, *chunks("cdef")]
            metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
            bodies = aiter(
                ChatCompletionsStub(channel).StreamChatCompletionEvents(chat_request(model="m"), metadata=metadata)
            )
            assert KEEP_ALIVE == (await anext(bodies)).data
            gate.set()
            while len(guard.requests) < 2:
                assert KEEP_ALIVE == (await anext(bodies)).data
            guard.gate.set()
            rest = b"".join([body.data async for body in bodies])
            assert "abcdef" == sse.text(sse.chunks(rest))


async def test_guards_have_spans(tmp_path: Path, log_file: Path) -> None:
    """A trace has a span for each guard and phase, and contents only as the guards let them pass."""
    found = settings.read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
        }
    )
    assert found is not None
    spans = Spans()
    with guard_server() as (guard, address):
        guard.decide = redacting("cuckoo")
        async with (
            serving(tmp_path, CONFIG.format(address=address), tracer=OtelTracer(found, {}, spans)) as worker,
            grpc.aio.insecure_channel(worker.address) as channel,
        ):
            worker.backend.answer = lambda _: chunks(*"The bluebird")
            metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
            call = ChatCompletionsStub(channel).StreamChatCompletion(
                chat_request("cuckoo", model="m"), metadata=metadata
            )
            assert [chunk async for chunk in call]
            await asyncio.sleep(0)
    seen = {
        (span.name, span.attributes["parley.guard.phase"]): span.attributes["parley.guard.outcome"]
        for span in spans.all
        if span.name.startswith("guard ")
    }
    assert {
        ("guard slow", "before"): "redacted",
        ("guard words", "before"): "allowed",
        ("guard slow", "after"): "allowed",
        ("guard words", "after"): "redacted",
    } == seen
    assert all(span.start <= span.end for span in spans.all)
    shown = str([span.attributes for span in spans.all])
    assert "The (x)" in shown
    assert not any(word in shown for word in ("bluebird", "cuckoo"))
