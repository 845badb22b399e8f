"""The backends that the contract suite runs on, and how to make calls to them.

A new vendor joins by an entry in VENDORS: how its backend is made, and how its upstream says what the suite needs.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from parley.backends.openai import OpenAI
from parley.config import Timeouts
from parley.core.ports import Backend, UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from tests import upstream as openai
from tests.upstream import Events, Json, ScriptedUpstream, Step

KEY = "tgp_v1_the.secret+of/this=test"
QUESTION = {"model": "myapp-123", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True)
class Vendor:
    """A vendor's backend, and its upstream's way of saying things.

    `begins` are a stream's first events with the pieces of text in them, `ends` the last ones; `fault` is an error's
    body, `fault_event` the same in a stream. `context_fault` and `policy_fault` are the vendor's own for these.
    """

    name: str
    backend: Callable[[str], Backend]
    whole: Callable[[str], dict[str, Any]]
    begins: Callable[..., list[Step]]
    ends: Callable[[], list[Step]]
    fault: Callable[[str], dict[str, Any]]
    fault_event: dict[str, Any]
    context_fault: dict[str, Any]
    policy_fault: dict[str, Any]

    def __repr__(self) -> str:
        """Returns the name that pytest shows."""
        return self.name

    def stream(self, *pieces: str) -> Events:
        """Returns a whole stream that says the pieces."""
        return Events([*self.begins(*pieces), *self.ends()])

    def refuses(self, status: int, words: str = "no", **headers: str) -> Json:
        """Returns an error answer; `_` in a header's name stands for `-`."""
        return Json(self.fault(words), status, {name.replace("_", "-"): value for name, value in headers.items()})


OPENAI = Vendor(
    name="openai",
    backend=lambda url: OpenAI(url, KEY),
    whole=openai.completion,
    begins=openai.chunks,
    ends=openai.ending,
    fault=lambda words: {"error": {"message": words, "type": "some_error", "param": None, "code": None}},
    fault_event={"error": {"message": "the GPU is gone", "type": "server_error"}},
    context_fault={"error": {"message": "too many tokens", "type": "x", "code": "context_length_exceeded"}},
    policy_fault={"error": {"message": "rejected by the safety system", "code": "content_policy_violation"}},
)

VENDORS = [OPENAI]


def request(**fields: Any) -> CreateChatCompletionRequest:
    """Returns a request from its JSON; without `messages` it asks a short question."""
    return json_format.ParseDict(QUESTION | fields, CreateChatCompletionRequest())


def call(*, deadline: float | None = None, timeouts: dict[str, float] | None = None, **fields: Any) -> UpstreamCall:
    """Returns a call of the target `target-1`. `deadline` is in seconds from now, `timeouts` replaces defaults."""
    until = None if deadline is None else asyncio.get_running_loop().time() + deadline
    return UpstreamCall(request(**fields), "target-1", Timeouts(**(timeouts or {})), until)


async def collect(backend: Backend, asked: UpstreamCall) -> list[ChatCompletionChunk]:
    """Returns all chunks of a stream."""
    return [chunk async for chunk in backend.stream(asked)]


def text(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """Returns what the chunks say in one choice."""
    return "".join(choice.delta.content for chunk in chunks for choice in chunk.choices if choice.index == index)


def reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    """Returns every `finish_reason` of the chunks, in order."""
    return [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.HasField("finish_reason")]


__all__ = ["KEY", "OPENAI", "VENDORS", "ScriptedUpstream", "Vendor", "call", "collect", "reasons", "request", "text"]
