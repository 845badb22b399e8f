"""A router whose backends are scripted at their port, and the results of its calls."""

from parley.config.loader import parse
from parley.core.errors import (
    StreamBroken,
)
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.plain_text import as_chunk, parts
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.rpc.scripted import ScriptedBackend, chunks
from tests.unit.routing.routes import new_execution

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  c: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - id: m
    targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}]
    fallbacks: [spare]
    instructions: "Be kind."
  - {id: spare, targets: [{backend: c}], defaults: {temperature: 0}}
  - {id: alone, targets: [{backend: a, model: one}]}
  - {id: hedged, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], hedge: 20ms}
  - {id: hasty, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], fallbacks: [spare], hedge: 20ms}
  - {id: strict, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], on_stream_failure: fail}
  - {id: only, targets: [{backend: a}], defaults: &set {temperature: 1.5, max_tokens: 10}}
  - {id: extra, targets: [{backend: a}], defaults: {extra_body_json: '{"top_k": 0, "n": 2}'}}
  - {id: preset, targets: [{backend: a, weight: 1000000000}, {backend: b}], defaults: *set}
  - {id: narrow, targets: [{backend: a, model: two, max_concurrent: 1, max_queued: 1}], timeouts: {connect: 50ms}}
prices:
  a/one: {prompt: 10, completion: 100, cached_prompt: 1}
  c: {prompt: 1, completion: 2}
"""


class Stack:
    """A router with three scripted backends: `a` has nearly all the weight, then `b`, then the fallback's `c`."""

    def __init__(self) -> None:
        self.backends = {name: ScriptedBackend() for name in "abc"}
        self.router = Router(parse(CONFIG, "f"), self.backends)

    def answers(self, **answers: object) -> "Stack":
        """Scripts the answers of backends: a completion, chunks, an exception, or a function of the call."""
        for name, answer in answers.items():
            self.backends[name].answer = answer if callable(answer) else lambda _, answer=answer: answer  # type: ignore[misc]
        return self

    def run(
        self, model: str = "m", request: CreateChatCompletionRequest | None = None, deadline: float | None = None
    ) -> Execution:
        """Prepares the execution of a call."""
        return new_execution(self.router, model, request, deadline)

    def called(self) -> str:
        """Returns the called backends, sorted: `aab`."""
        return "".join(name * len(self.backends[name].calls) for name in "abc")


def broken_stream(*texts: str) -> list[object]:
    """Returns a stream that breaks after these texts."""
    return [*chunks(*texts)[:-1], StreamBroken("m broke off", cause="cut")]


async def read_text(execution: Execution) -> tuple[str, ChatCompletion]:
    """Reads a stream; returns its text, and the accumulated answer."""
    accumulator = CompletionAccumulator(ChatCompletion())
    text = ""
    async for batch in execution.stream():
        for part in parts(batch):
            text += "".join(choice.delta.content for choice in as_chunk(part).choices)
            accumulator.add(part)
    return text, accumulator.completion()


def attempts(execution: Execution) -> list[tuple[str, str, str, str]]:
    """Returns backend, kind, outcome and reason of each attempt in the receipt."""
    return [(one.backend, one.kind, one.outcome, one.reason) for one in execution.receipt().attempts]
