"""Any upstream that speaks OpenAI's chat completions over HTTP."""

from pathlib import Path
from typing import Any

import orjson

from parley.backends import openai_answer, openai_request
from parley.backends.exchange import HttpBackend
from parley.backends.limits import Limits
from parley.backends.openai_stream import StreamReader
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion


class OpenAI(HttpBackend):
    """A backend at `base_url`, which ends before `/chat/completions`; over a Unix socket where one is given.

    Raises ConfigError for a key that cannot stand in a header.
    """

    limits = Limits()
    can_continue = True

    def __init__(self, base_url: str, api_key: str | None = None, unix_socket: Path | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        super().__init__(base_url.rstrip("/") + "/chat/completions", headers, api_key, unix_socket)

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        body = openai_request.body(call, stream=stream)
        self.limits.check(body, call.request.model)
        self._adapt(body)
        return orjson.dumps(body)

    def _adapt(self, body: dict[str, Any]) -> None:
        """Changes the body to what this server means by the same words."""

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        return openai_answer.completion(data, call.request.top_logprobs)

    def _reader(self, call: UpstreamCall) -> StreamReader:
        return StreamReader(call.request.n or 1, call.request.top_logprobs)
