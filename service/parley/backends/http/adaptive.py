"""Base class of backends that send a rejected call again, with another key or with a corrected body."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from parley.backends.deadlines import Deadlines
from parley.backends.http.keys import KeyRing
from parley.backends.http.listing import ListingBackend
from parley.backends.http.response import Response
from parley.core.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from parley.core.messages.text_completion import TextCompletion
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import StreamPart
from parley.v1.chat_completions_pb2 import ChatCompletion


class AdaptiveBackend(ListingBackend):
    """Sends a call again if its key failed and another one may work, or if its server rejected an optional part."""

    async def complete_compact(self, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """See `ListingBackend.complete_compact`."""
        is_adapted = False
        while True:
            key_failures = call.key_failures
            try:
                return await super().complete_compact(call)
            except UpstreamError as error:
                if self._keys is not None and self._keys.has_other(call, key_failures):
                    continue
                if is_adapted or not self._adapts(error, call):
                    raise
                is_adapted = True

    def stream(self, call: UpstreamCall) -> AsyncGenerator[StreamPart, None]:
        """See `HttpBackend.stream`."""
        return super().stream(call) if self._keys is None else self._stream_with(self._keys, call)

    async def _stream_with(self, keys: KeyRing, call: UpstreamCall) -> AsyncGenerator[StreamPart, None]:
        """Requests a stream again while its first event says that its key failed and another one may work."""
        has_begun = False
        while True:
            key_failures = call.key_failures
            try:
                async with aclosing(super().stream(call)) as parts:
                    async for part in parts:
                        if not has_begun:
                            keys.record_success(call)
                            has_begun = True
                        yield part
            except UpstreamError:
                if has_begun or not keys.has_other(call, key_failures):
                    raise
            else:
                return

    async def _open(self, call: UpstreamCall, body: bytes, deadlines: Deadlines) -> Response:
        is_adapted = False
        while True:
            key_failures = call.key_failures
            try:
                return await super()._open(call, body, deadlines)
            except UpstreamError as error:
                if self._keys is not None and self._keys.has_other(call, key_failures):
                    continue
                if is_adapted or not self._adapts(error, call):
                    raise
                is_adapted = True
                body = await offload(self._body, call, stream=True)

    def _adapts(self, error: UpstreamError, call: UpstreamCall) -> bool:
        if isinstance(error, UpstreamUnavailable | UpstreamTimeout) or not error.detail:
            return False
        return self._adapt_to(error.detail, call)

    def _adapt_to(self, message: str, call: UpstreamCall) -> bool:
        """Learns from the error message of a rejected call; returns whether the next body will differ."""
        raise NotImplementedError
