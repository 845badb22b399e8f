"""Backend for llama.cpp's HTTP server in a separate process, on a Unix socket."""

from pathlib import Path
from typing import Any

import orjson

from parley.backends.capabilities import Capabilities
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.llama_cpp.command import capabilities_path
from parley.backends.openai.backend import OpenAI
from parley.config import HealthCheck, HttpHealthCheck, ReasoningRule
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports import UpstreamCall
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest

# Measured: the server silently ignores these parameters.
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
# These depend on the model's chat template: each is ignored unless the server reports the named capability.
_BY_TEMPLATE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("supports_tools", ()),
    "tool_choice": ("supports_tools", ("none", "auto")),
    "parallel_tool_calls": ("supports_tools", (False,)),
    "reasoning_effort": ("supports_reasoning_effort", ("none",)),
}
# The server returns 500 for these parts, and for other types of tools and of `response_format`, which would count as a
# failure of the backend. It has no other values of `tool_choice`.
_NO_PARTS = frozenset({"image_url", "input_audio", "file"})
_TOOLS = frozenset({"function"})
_FORMATS = frozenset({"text", "json_object", "json_schema"})
_CHOICES = frozenset({"none", "auto", "required"})


class LlamaCpp(OpenAI):
    """llama.cpp's server on a Unix socket.

    A file beside the socket lists the capabilities of the model's chat template. The server continues a final assistant
    message, also with a reasoning template; non-streaming responses repeat that message.

    Args:
        unix_socket: Socket of the server.
        health: Timeout and interval of the health check.
        extra_body: The vendor parameters that are passed on.
    """

    hidden_fields = frozenset({"timings"})  # the speed of this machine
    capabilities = Capabilities(_IGNORED, _NO_PARTS, _TOOLS, _FORMATS, _CHOICES)

    def __init__(
        self, unix_socket: Path, health: HealthCheck | None = None, extra_body: ExtraBodyPolicy = EVERYTHING
    ) -> None:
        health_check = HttpHealthCheck(interval=health.interval, timeout=health.timeout) if health else None
        super().__init__(
            "http://llama.cpp/v1",
            unix_socket=unix_socket,
            reasoning=ReasoningRule("reasoning_content"),
            health=health_check,
            extra_body=extra_body,
        )
        self._capabilities_path = capabilities_path(unix_socket)

    async def complete_compact(self, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """See `HttpBackend.complete_compact`.

        Several choices are requested as a stream: otherwise the server reports the usage of one choice only.
        """
        if call.request.n <= 1:
            return await super().complete_compact(call)
        accumulator = CompletionAccumulator(ChatCompletion())
        async for part in self.stream(call):
            accumulator.add(part)
        return accumulator.completion()

    def _check(self, body: dict[str, Any], request: CreateChatCompletionRequest) -> None:
        if "n" in body or not body.keys().isdisjoint(_BY_TEMPLATE):
            self._server_capabilities().check(body, request)
        super()._check(body, request)
        if body.get("logprobs") and not body.get("top_logprobs"):
            body["top_logprobs"] = 1  # without an alternative token the server sends no logprobs

    def _server_capabilities(self) -> Capabilities:
        """Reads the capabilities file on each call, because the server may have restarted with another model."""
        try:
            known = orjson.loads(self._capabilities_path.read_bytes())
        except FileNotFoundError:  # the server is not running; the call itself will fail
            return Capabilities()
        ignored = {name: no_op for name, (capability, no_op) in _BY_TEMPLATE.items() if not known.get(capability)}
        return Capabilities(ignored, ranges={"n": (1, known["slots"])} if "slots" in known else {})
