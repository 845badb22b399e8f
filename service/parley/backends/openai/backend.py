"""Backend for any server with OpenAI's chat completions API over HTTP."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from parley.backends.capabilities import UNLIMITED, without
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.http.adaptive import AdaptiveBackend
from parley.backends.openai import request as openai_request
from parley.backends.openai import response as openai_response
from parley.backends.openai.choice import ExpectedAnswer
from parley.backends.openai.learned_fields import LearnedFields
from parley.backends.openai.reasoning import REJECTION, ReasoningHistory, rule_for
from parley.backends.openai.stream import StreamReader
from parley.config import HttpHealthCheck, ReasoningRule, UpstreamRequests, vendor_of
from parley.core.messages.extra_fields import dump_bytes
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest

Prefill = Literal["message", "vllm", "prefix", "partial", "off"]
"""How a request marks its last message as the beginning of the answer; see the configuration."""

_OPTIONS = "stream_options"
_SHORT = 16  # characters; a shorter prefix may recur in an answer by chance


class OpenAI(AdaptiveBackend):
    """A backend with OpenAI's chat completions API.

    Args:
        base_url: URL of the API, without `/chat/completions`.
        api_key: Sent as a bearer token.
        unix_socket: Connects over this socket instead of TCP.
        prefill: How to continue an answer. Default: as the vendor whose host the URL names, else `message`.
        reasoning: How to send reasoning of earlier turns. Default: the known rule for the host.
        learned: Stores what the backend learns about each model.
        connections: Maximum number of open connections.
        health: Path and timeout of the health check.
        extra_body: The vendor parameters that are passed on.
        settings: What requests carry besides the body, and how they reach the server; they replace `api_key`.
        unsupported: Parameters that the server refuses.
        listed_prefix: The beginning of names in the server's list of models that requests do not have.

    Raises:
        ConfigError: As `HttpBackend`.
    """

    capabilities = UNLIMITED
    hidden_fields: frozenset[str] = frozenset()  # fields of responses that are not forwarded to the caller

    def __init__(  # noqa: PLR0913 - one parameter for each setting of a backend
        self,
        base_url: str,
        api_key: str | None = None,
        unix_socket: Path | None = None,
        *,
        prefill: Prefill | None = None,
        reasoning: ReasoningRule | None = None,
        learned: LearnedFields | None = None,
        connections: int = 1000,
        health: HttpHealthCheck | None = None,
        extra_body: ExtraBodyPolicy = EVERYTHING,
        settings: UpstreamRequests | None = None,
        unsupported: Sequence[str] = (),
        listed_prefix: str = "",
    ) -> None:
        settings = settings or UpstreamRequests(api_key=api_key)
        url = base_url.rstrip("/") + (settings.path or "/chat/completions")
        super().__init__(url, {}, settings, unix_socket=unix_socket, connections=connections, health=health)
        if unsupported:
            self.capabilities = without(unsupported)
        self.models_path = f"{urlsplit(base_url).path.rstrip('/')}/models"
        self.listed_prefix = listed_prefix
        self._extra_body = extra_body
        self._prefill = prefill or default_prefill(base_url)
        self._learned = learned or LearnedFields()
        self._reasoning = ReasoningHistory(reasoning or rule_for(base_url), self._learned)

    @property
    def supports_prefill(self) -> bool:
        """Whether the server continues a prefilled answer; see the port."""
        return self._prefill != "off"

    def _adapt_to(self, message: str, call: UpstreamCall) -> bool:
        return self._learn_options(message, call) or self._reasoning.learn(
            self._content(call, stream=False)["messages"], call.model, message
        )

    def _learn_options(self, message: str, call: UpstreamCall) -> bool:
        """Records that a server rejects `stream_options`; without that field the usage of streams is estimated."""
        is_named = _OPTIONS in message and REJECTION.search(message) is not None
        if not is_named or call.request.stream_options.extra_json or _OPTIONS in self._learned.get(call.model).rejected:
            return False
        self._learned.update(call.model, lambda known: replace(known, rejected=known.rejected | {_OPTIONS}))
        return True

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        body = self._content(call, stream=stream)
        if call.parameters is not None:
            call.parameters.apply(body)
        if self.capabilities is not UNLIMITED or "tool_choice" in body:
            self._check(body, call.request)
        if call.has_prefill:
            self._continue(body)
        return dump_bytes(body)

    def _content(self, call: UpstreamCall, *, stream: bool) -> dict[str, Any]:
        body = openai_request.body(call, stream=stream, policy=self._extra_body)
        if call.shape is None:  # plain texts have no reasoning
            self._reasoning.write(body["messages"], call.model)
        if stream and _OPTIONS in self._learned.get(call.model).rejected and not call.request.stream_options.extra_json:
            del body[_OPTIONS]
        return body

    def _continue(self, body: dict[str, Any]) -> None:
        """Marks the last message as the beginning of the answer."""
        if self._prefill == "vllm":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        elif self._prefill in {"prefix", "partial"}:
            body["messages"][-1][self._prefill] = True

    def _check(self, body: dict[str, Any], request: CreateChatCompletionRequest) -> None:
        """Adjusts the body to this server. Raises UnsupportedParameter for a parameter that the server ignores."""
        self.capabilities.check(body, request)

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        return openai_response.completion(data, partial(self._expected, call), is_continued=call.has_prefill)

    def _reader(self, call: UpstreamCall) -> StreamReader:
        delivered = _delivered_text(call)
        if self._prefill != "prefix" and len(delivered) < _SHORT:
            delivered = ""  # streams rarely repeat the prefix, and a continuation may start with the same text
        return StreamReader(self._expected(call, delivered))

    def _expected(self, call: UpstreamCall, delivered: str | None = None) -> ExpectedAnswer:
        return ExpectedAnswer(
            call.request,
            _delivered_text(call) if delivered is None else delivered,
            call.has_prefill,
            partial(self._reasoning.record_field, call.model),
            self.hidden_fields,
        )


def default_prefill(base_url: str) -> Prefill:
    """Returns how the server of a URL continues an answer: as in the preset of its vendor."""
    vendor = vendor_of(base_url)
    found: Prefill = vendor.preset.get("prefill", "message") if vendor is not None else "message"
    return found


def _delivered_text(call: UpstreamCall) -> str:
    """Returns the part of the answer that the caller already has."""
    return call.request.messages[-1].content.string_value if call.has_prefill else ""
