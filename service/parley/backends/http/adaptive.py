"""Base class of backends that retry a rejected call once with a corrected body."""

from parley.backends.deadlines import Deadlines
from parley.backends.http.backend import HttpBackend
from parley.backends.http.response import Response
from parley.core.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from parley.core.messages.text_completion import TextCompletion
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion


class AdaptiveBackend(HttpBackend):
    """Retries a call once if its server rejected an optional part of the request."""

    async def complete_compact(self, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """See `HttpBackend.complete_compact`."""
        try:
            return await super().complete_compact(call)
        except UpstreamError as error:
            if not self._adapts(error, call):
                raise
        return await super().complete_compact(call)

    async def _open(self, call: UpstreamCall, body: bytes, deadlines: Deadlines) -> Response:
        try:
            return await super()._open(call, body, deadlines)
        except UpstreamError as error:
            if not self._adapts(error, call):
                raise
        return await super()._open(call, await offload(self._body, call, stream=True), deadlines)

    def _adapts(self, error: UpstreamError, call: UpstreamCall) -> bool:
        if isinstance(error, UpstreamUnavailable | UpstreamTimeout) or not error.detail:
            return False
        return self._adapt_to(error.detail, call)

    def _adapt_to(self, message: str, call: UpstreamCall) -> bool:
        """Learns from the error message of a rejected call; returns whether the next body will differ."""
        raise NotImplementedError
