"""The embedded model: llama.cpp's own HTTP server, in a process of its own, behind a Unix socket."""

from pathlib import Path
from typing import Any

import orjson

from parley.backends.capabilities import Capabilities
from parley.backends.llama_cpp.launch import abilities_path
from parley.backends.openai.backend import OpenAI
from parley.backends.openai.reasoning import Rule
from parley.config import HealthCheck, HttpHealthCheck
from parley.core.ports import UpstreamCall
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest

# Measured at the server, which takes all of these and says nothing.
_IGNORED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "functions": (),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "service_tier": ("auto", "default"),
    "verbosity": (),
    "web_search_options": (),
}
# These depend on the model's chat template: each is ignored where the server does not name the ability beside it.
_BY_TEMPLATE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("supports_tools", ()),
    "tool_choice": ("supports_tools", ("none", "auto")),
    "parallel_tool_calls": ("supports_tools", (False,)),
    "reasoning_effort": ("supports_reasoning_effort", ("none",)),
}
# The server answers 500 to these parts, and to any other type of tool or of `response_format`, as if it were ill. Other
# words for `tool_choice` are none of its own.
_NO_PARTS = frozenset({"image_url", "input_audio", "file"})
_TOOLS = frozenset({"function"})
_FORMATS = frozenset({"text", "json_object", "json_schema"})
_CHOICES = frozenset({"none", "auto", "required"})


class LlamaCpp(OpenAI):
    """llama.cpp's server on a Unix socket, beside which it has written what the model's template can do.

    It goes on from an assistant message at the end, where the template thinks, too; whole answers repeat that message.
    """

    left_out = frozenset({"timings"})  # how fast this machine was
    capabilities = Capabilities(_IGNORED, _NO_PARTS, _TOOLS, _FORMATS, _CHOICES)

    def __init__(self, unix_socket: Path, health: HealthCheck | None = None) -> None:
        health_check = HttpHealthCheck(**health.model_dump()) if health else None
        super().__init__(
            "http://llama.cpp/v1", unix_socket=unix_socket, reasoning=Rule("reasoning_content"), health=health_check
        )
        self._abilities = abilities_path(unix_socket)

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole. Of several choices the server counts the tokens of one only, but of each in a stream."""
        if call.request.n <= 1:
            return await super().complete(call)
        accumulator = CompletionAccumulator(ChatCompletion())
        async for chunk in self.stream(call):
            accumulator.add(chunk)
        return accumulator.completion()

    def _check(self, body: dict[str, Any], request: CreateChatCompletionRequest) -> None:
        if "n" in body or not body.keys().isdisjoint(_BY_TEMPLATE):
            self._server_capabilities().check(body, request)
        super()._check(body, request)

    def _server_capabilities(self) -> Capabilities:
        """Reads it again each time, as the server may have been restarted with another model."""
        try:
            can = orjson.loads(self._abilities.read_bytes())
        except FileNotFoundError:  # the server does not run: the call will say so
            return Capabilities()
        ignored = {name: none for name, (ability, none) in _BY_TEMPLATE.items() if not can.get(ability)}
        return Capabilities(ignored, ranges={"n": (1, can["slots"])} if "slots" in can else {})

    def _adapt(self, body: dict[str, Any]) -> None:
        """Asks for one rival token where the caller wants none: without, the server sends no probabilities."""
        if body.get("logprobs") and not body.get("top_logprobs"):
            body["top_logprobs"] = 1
