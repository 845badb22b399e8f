"""Backend for Anthropic's Messages API and compatible servers."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from parley.backends.anthropic import blocks
from parley.backends.anthropic import request as anthropic_request
from parley.backends.anthropic import response as anthropic_response
from parley.backends.anthropic.stream import StreamReader
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.http.adaptive import AdaptiveBackend
from parley.config import AnthropicBackend, UpstreamRequests
from parley.core.messages.extra_fields import dump_bytes
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest

_VERSION = "2023-06-01"
# The error for thinking blocks of another model, or with modified text.
_SIGNATURE = re.compile(r"signature|thinking.{0,40}cannot be modified", re.IGNORECASE)


class Anthropic(AdaptiveBackend):
    """A backend with Anthropic's Messages API.

    Args:
        base_url: URL of the API, without `/v1/messages`.
        api_key: Sent as `x-api-key`.
        max_tokens: Token limit of requests that set none.
        connections: Maximum number of open connections.
        prefill: Whether the models accept prefill.
        unix_socket: Connects over this socket instead of TCP.
        extra_body: The vendor parameters that are passed on.
        settings: What requests carry besides the body, and how they reach the server; they replace `api_key`.

    Raises:
        ConfigError: As `HttpBackend`.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each setting of a backend
        self,
        base_url: str,
        api_key: str | None,
        max_tokens: int,
        connections: int = 1000,
        *,
        prefill: bool = True,
        unix_socket: Path | None = None,
        extra_body: ExtraBodyPolicy = EVERYTHING,
        settings: UpstreamRequests | None = None,
    ) -> None:
        self.models_path = f"{urlsplit(base_url).path.rstrip('/')}/v1/models?limit=1000"
        self._extra_body = extra_body
        settings = settings or AnthropicBackend(kind="anthropic", api_key=api_key)
        headers = {"anthropic-version": _VERSION}
        url = base_url.rstrip("/") + (settings.path or "/v1/messages")
        super().__init__(url, headers, settings, unix_socket, connections=connections)
        self.supports_prefill = prefill
        self._max_tokens = max_tokens

    def _adapt_to(self, message: str, call: UpstreamCall) -> bool:
        if not _SIGNATURE.search(message):
            return False
        request = CreateChatCompletionRequest()
        request.CopyFrom(call.request)
        if not blocks.remove_thinking(request.messages):
            return False
        call.request = request
        return True

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        body = anthropic_request.body(call, self._max_tokens, stream=stream, policy=self._extra_body)
        if call.parameters is not None:
            call.parameters.apply(body)
        return dump_bytes(body)

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        return anthropic_response.completion(data, may_be_empty=call.request.HasField("stop"))

    def _reader(self, call: UpstreamCall) -> StreamReader:
        return StreamReader(may_be_empty=call.request.HasField("stop"))
