"""Base class of HTTP backends: sends a call, enforces limits on time and size, and classifies failures.

A subclass defines the vendor's JSON: the request (`_body`) and the response (`_completion`, `_reader`).
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from parley.backends.deadlines import Deadlines, SilenceTimer
from parley.backends.errors import classifier, local_resources
from parley.backends.errors.classifier import ErrorFactory, ErrorInBody, MalformedResponse
from parley.backends.http import body_shapes
from parley.backends.http.body_shapes import MAX_ANSWER_SIZE, Reader
from parley.backends.http.client import Endpoint
from parley.backends.http.decoding import PIECE
from parley.backends.http.errors import FAILURES, ConnectionFailed, PoolExhausted, RetriedOnFreshConnection
from parley.backends.http.keys import KEY_STATUSES
from parley.backends.http.request_heads import RequestHeads
from parley.backends.http.response import Response
from parley.config import HttpHealthCheck, UpstreamRequests
from parley.core.errors import ParleyError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from parley.core.messages.text_completion import TextCompletion, as_message
from parley.core.offload import is_large, offload
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import StreamPart
from parley.v1.chat_completions_pb2 import ChatCompletion

_MAX_STREAM_SIZE = 256 * 1024 * 1024  # one event per token, with up to 20 log probabilities each
_MAX_ERROR_SIZE = 64 * 1024
_WAIT_FOR_CONNECTION = 1.0  # seconds; the suggested delay when the pool is exhausted
_ERROR_BODY_SECONDS = 2.0  # maximum wait for the body of an error; its status alone is enough to classify it
_UNHEALTHY = "The health check of the backend failed"
_OK = 200


class HttpBackend:
    """A backend that posts JSON to one server.

    Args:
        url: Target of every call; `{model}` in it is the target's name of the model.
        headers: Sent with every request.
        settings: What requests carry besides, and how they reach the server.
        unix_socket: Connects over this socket instead of TCP.
        connections: Maximum number of open connections.
        health: Path and timeout of the health check.

    Raises:
        ConfigError: If a key is not a valid header value, the environment names an unusable proxy, or a file of
            certificates cannot be used.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each setting of a backend
        self,
        url: str,
        headers: Mapping[str, str],
        settings: UpstreamRequests,
        unix_socket: Path | None = None,
        *,
        connections: int = 1000,
        health: HttpHealthCheck | None = None,
    ) -> None:
        own = {"Content-Type": "application/json", "User-Agent": "parley"}
        heads = RequestHeads(url, own | dict(headers), settings)
        self._keys = heads.keys
        self._endpoint = Endpoint(heads, settings, unix_socket, connections=connections)
        self._health = health or HttpHealthCheck()
        self._errors = ErrorFactory(*heads.secrets)

    @property
    def connection_counts(self) -> tuple[int, int, int]:
        """The used connections, the idle ones, and the calls that wait for one."""
        return self._endpoint.counts

    @property
    def key_counts(self) -> tuple[int, int] | None:
        """The number of keys that work, and of those that are left out; None for a backend without several keys."""
        return self._keys.counts if self._keys is not None else None

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer; see the port."""
        return as_message(await self.complete_compact(call))

    async def complete_compact(self, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """As `complete`, but may return an answer that is one text without a message of it."""
        body = await offload(self._body, call, stream=False) if is_large() else self._body(call, stream=False)
        deadlines = Deadlines(call)
        response = None
        try:
            response = await self._endpoint.post(body, call, deadlines.end, compressed=True)
            if not response.is_readable:
                raise await self._response_error(response, call)
            data = response.take_complete()
            if data is None:
                data = await _read(response, MAX_ANSWER_SIZE, deadlines.next_bytes_by)
                await response.release()
            read = self._completion if data.startswith(b"{") else self._read_completion
            completion = read(data, call)
        except ErrorInBody as error:
            failure = self._errors.from_event(error.error, call.request.model, started=False)
            self._record_key_failure(call, failure)
            raise failure from None
        except (*FAILURES, MalformedResponse) as error:
            raise self._failure(error, call, deadlines, started=response is not None) from None
        finally:
            if response is not None:
                response.close()
        if self._keys is not None:
            self._keys.record_success(call)
        return completion

    async def stream(  # noqa: C901 - each coroutine less in a stream that waits saves 0.3 KB
        self, call: UpstreamCall
    ) -> AsyncGenerator[StreamPart, None]:
        """Yields the answer in parts; see the port."""
        body = await offload(self._body, call, stream=True) if is_large() else self._body(call, stream=True)
        deadlines = Deadlines(call)
        reader = self._reader(call)
        failure: ParleyError | None = None
        size = 0
        response = await self._open(call, body, deadlines)
        del body  # it is sent; the stream may last long
        connection = response.connection
        response.drop_headers()
        silence_timer = SilenceTimer(call, deadlines)
        until: float | None = None
        is_known = is_late = False
        try:
            while True:
                try:
                    data = response.poll(until)
                    while data is None:
                        await connection.wait(until)
                        data = response.poll()
                    if len(data) >= PIECE:
                        await asyncio.sleep(0)  # yields to timers and other tasks, since the next one may not wait
                except FAILURES as error:
                    is_late = isinstance(error, TimeoutError)
                    data, failure = b"", classifier.broken(call.request.model, self._cause(error))
                if not is_known and (body_reader := self._reader_for(reader, data, call)) is not None:
                    reader = body_reader
                    is_known = True
                part = reader.feed(data)
                if part is not None:
                    yield part
                if reader.ended:
                    break
                until = silence_timer.record(part, started=reader.started, is_complete=reader.is_complete)
                if call.coalesce and part is not None and reader.started:
                    connection.hold(call.coalesce)
                size += len(data)
                if size > _MAX_STREAM_SIZE:
                    raise classifier.broken(call.request.model, f"the stream is longer than {_MAX_STREAM_SIZE} bytes")
                del data, part  # a stream that waits keeps nothing of what it has sent
            if not reader.is_complete:
                if is_late:
                    raise deadlines.exceeded(started=reader.started)
                failure = failure or self._errors.from_incomplete_stream(
                    reader.failure, call.request.model, started=reader.started
                )
                self._record_key_failure(call, failure)
                raise failure
            await response.release()
        finally:
            response.close()

    async def check(self) -> None:
        """Runs the health check; see the port."""
        await self._get(self._health.path, self._health.timeout, _MAX_ERROR_SIZE, _UNHEALTHY)

    async def _get(self, path: str, seconds: float, limit: int, failure: str) -> bytes:
        """Returns the body of a path that answers 200, to one of the keys. Raises UpstreamError with this message."""
        try:
            async with asyncio.timeout(seconds):
                for key in self._endpoint.keys:
                    status, body = await self._get_with(key, path, seconds, limit)
                    if status not in KEY_STATUSES:
                        break
        except TimeoutError:
            raise UpstreamTimeout(failure, cause=f"{path}: no answer within {seconds} s") from None
        except (*FAILURES, MalformedResponse) as error:
            exhausted = local_resources.find(error)
            if exhausted is not None:
                raise exhausted from None
            raise UpstreamUnavailable(failure, cause=f"{path}: {self._cause(error)}") from None
        if status != _OK:
            raise UpstreamUnavailable(failure, cause=f"{path}: HTTP {status}")
        return body

    async def _get_with(self, key: str, path: str, seconds: float, limit: int) -> tuple[int, bytes]:
        """Requests a path with a key; returns the status and the body."""
        response = await self._endpoint.get(path, seconds, key)
        try:
            body = await _read(response, limit)
            await response.release()
        finally:
            response.close()
        return response.status, body

    async def close(self) -> None:
        """Closes every connection."""
        await self._endpoint.close()

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        """Returns the request body as JSON.

        Raises:
            UnsupportedParameter: If the vendor has no equivalent of a parameter.
            InvalidRequest: If a parameter is invalid.
        """
        raise NotImplementedError

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """Parses a complete JSON response.

        Raises:
            MalformedResponse: If the body is not a valid answer.
            ErrorInBody: If the body is an error.
        """
        raise NotImplementedError

    def _reader(self, call: UpstreamCall) -> Reader:
        """Returns a parser for the stream of this call."""
        raise NotImplementedError

    def _read_completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion | TextCompletion:
        """Parses a complete body of events, or of JSON after other bytes. Raises what `_completion` raises."""
        if body_shapes.are_events(data):
            return body_shapes.accumulate(self._reader(call), data)
        return self._completion(data, call)

    def _reader_for(self, reader: Reader, data: bytes, call: UpstreamCall) -> Reader | None:
        """Returns the parser for a body that starts with `data`; None if more bytes are needed."""
        return body_shapes.reader_for(reader, data, lambda body: as_message(self._completion(body, call)))

    async def _open(self, call: UpstreamCall, body: bytes, deadlines: Deadlines) -> Response:
        """Requests a stream and returns once the response head has arrived."""
        response = None
        try:
            response = await self._endpoint.post(body, call, deadlines.first_token)
            if response.is_readable:
                return response
            raise await self._response_error(response, call)
        except FAILURES as error:
            raise self._failure(error, call, deadlines) from None
        finally:
            if response is not None and not response.is_readable:
                response.close()

    async def _response_error(self, response: Response, call: UpstreamCall) -> ParleyError:
        """Returns the error for a response with an error status or an unsupported encoding."""
        if response.status == _OK:
            return classifier.unreadable(call.request.model, response.encoding_error)
        body = b""
        with suppress(*FAILURES, MalformedResponse):
            async with asyncio.timeout(_ERROR_BODY_SECONDS):
                body = await _read(response, _MAX_ERROR_SIZE)
            await response.release()
        error = self._errors.from_response(response.status, response.headers, body, call.request.model)
        self._record_key_failure(call, error, response.status)
        return error

    def _record_key_failure(self, call: UpstreamCall, error: ParleyError, status: int = 0) -> None:
        """Records a failed request for its key; `status` is 0 for an error event."""
        if self._keys is not None and isinstance(error, UpstreamError):
            self._keys.record_failure(call, error, status)

    def _failure(  # noqa: PLR0911 - one case per kind
        self, error: Exception, call: UpstreamCall, deadlines: Deadlines, *, started: bool = False
    ) -> ParleyError:
        """Converts a failure of the client to a domain error; `started`: the response head had arrived."""
        model = call.request.model
        if isinstance(error, RetriedOnFreshConnection):
            return classifier.without_retries(self._failure(error.error, call, deadlines, started=started))
        if isinstance(error, ConnectionFailed):
            failure = local_resources.find(error.error) or self._failure(error.error, call, deadlines)
            return classifier.unreachable(failure)
        if isinstance(error, PoolExhausted):
            return classifier.rate_limited(model, _WAIT_FOR_CONNECTION, str(error))
        if isinstance(error, TimeoutError):
            return deadlines.exceeded(error)
        if started:
            return classifier.unreadable(model, self._cause(error))
        if isinstance(error, ssl.SSLError):
            return classifier.misconfigured(model, self._cause(error))
        return classifier.unavailable(model, self._cause(error))

    def _cause(self, error: Exception) -> str:
        error = error.error if isinstance(error, ConnectionFailed) else error
        return self._errors.redact(f"{type(error).__name__}: {error}")


async def _read(response: Response, limit: int, next_deadline: Callable[[], float] | None = None) -> bytes:
    """Reads the complete body.

    Args:
        response: The response to read.
        limit: Maximum size in bytes.
        next_deadline: Returns the deadline for the bytes after those that have arrived; None keeps the deadline.

    Raises:
        MalformedResponse: If the body exceeds `limit`.
        FAILURES: If the connection fails; see `http.client`.
    """
    chunks: list[bytes] = []
    size = 0
    until: float | None = None
    while chunk := await response.read(until):
        size += len(chunk)
        if size > limit:
            raise MalformedResponse(f"the answer is longer than {limit} bytes")
        chunks.append(chunk)
        if response.at_end:
            break
        if next_deadline is not None:
            until = next_deadline()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
