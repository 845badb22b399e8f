"""One call to an upstream over HTTP, whole or as a stream: bounds in time and size, and what each failure means.

A vendor's backend adds the JSON: what is sent (`_body`), and how an answer is read (`_completion`, `_reader`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
from yarl import URL

from parley.backends.deadlines import TAIL_SECONDS, TICK, Deadlines, SilenceTimer
from parley.backends.errors import classifier
from parley.backends.errors.classifier import ErrorFactory, ErrorInBody, MalformedResponse
from parley.backends.http import body_shapes
from parley.backends.http import client as http_client
from parley.backends.http.body_shapes import MAX_ANSWER_SIZE, Reader
from parley.config import ConfigError, HttpHealthCheck
from parley.core.errors import ParleyError, UpstreamTimeout, UpstreamUnavailable
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

_MAX_STREAM_SIZE = 256 * 1024 * 1024  # each token comes in an event of its own, maybe with 20 probabilities
_MAX_ERROR_SIZE = 64 * 1024
_WAIT_FOR_CONNECTION = 1.0
_HEALTH_BODY_SECONDS = 2.0  # seconds: a refusal is told by its status, and should not keep its caller for the rest
_UNHEALTHY = "The backend does not say that it is well"
_OK = 200


class HttpBackend:
    """A backend that posts JSON to one address, over a Unix socket where one is given.

    `headers` are sent with every request; `secret` is the key among them. At most `connections` are open at a time.
    `health` says where the server tells how it is. Raises ConfigError for a value that cannot stand in a header, and
    for a proxy that cannot be used.
    """

    def __init__(  # noqa: PLR0913 - what a server is
        self,
        url: str,
        headers: Mapping[str, str],
        secret: str | None = None,
        unix_socket: Path | None = None,
        *,
        connections: int = 1000,
        health: HttpHealthCheck | None = None,
    ) -> None:
        if secret and not (secret.isascii() and secret.isprintable()):
            raise ConfigError("api_key: has characters that no key has; look for a line break or a quote in it")
        own = {"Content-Type": "application/json", "User-Agent": "parley"}
        self._endpoint = http_client.Endpoint(URL(url), own | dict(headers), unix_socket, connections=connections)
        self._health = health or HttpHealthCheck()
        self._errors = ErrorFactory(secret)

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole; see the port."""
        body = await offload(self._body, call, stream=False)
        deadlines = Deadlines(call)
        response = None
        try:
            async with asyncio.timeout_at(deadlines.end) as timer:
                response = await self._endpoint.post(body, call.timeouts.connect, compressed=True)
                if not _can_be_read(response):
                    raise await self._response_error(response, call)
                data = await _read(response, MAX_ANSWER_SIZE, lambda: timer.reschedule(deadlines.next_bytes_by()))
                await response.release()
            return self._read_completion(data, call)
        except ErrorInBody as error:
            raise self._errors.from_event(error.error, call.request.model, started=False) from None
        except (*http_client.FAILURES, MalformedResponse) as error:
            raise self._failure(error, call, deadlines, started=response is not None) from None
        finally:
            if response is not None:
                response.close()

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers in chunks; see the port."""
        body = await offload(self._body, call, stream=True)
        deadlines = Deadlines(call)
        reader = self._reader(call)
        failure: ParleyError | None = None
        size = 0
        response = await self._open(call, body, deadlines)
        silence_timer = SilenceTimer(call, deadlines)
        watchdog = _SilenceWatchdog(response, reader, silence_timer, deadlines.first_token)
        is_known = False
        try:
            while not reader.ended:
                try:
                    data = await response.read()
                except http_client.FAILURES as error:
                    data, failure = b"", classifier.broken(call.request.model, self._cause(error))
                if not is_known and (body_reader := self._reader_for(reader, data, call)) is not None:
                    reader = watchdog.reader = body_reader
                    is_known = True
                chunk = reader.feed(data)
                if chunk is not None:
                    watchdog.pause(deadlines.end)  # the time that the caller takes is not the upstream's silence
                    yield chunk
                watchdog.extend(silence_timer.record(chunk, started=reader.started))
                size += len(data)
                if size > _MAX_STREAM_SIZE:
                    raise classifier.broken(call.request.model, f"the stream is longer than {_MAX_STREAM_SIZE} bytes")
            if not reader.is_complete:
                if watchdog.expired:
                    raise deadlines.exceeded(started=reader.started)
                raise failure or self._errors.from_incomplete_stream(
                    reader.failure, call.request.model, started=reader.started
                )
            await response.release()
        finally:
            watchdog.stop()
            response.close()

    async def check(self) -> None:
        """Asks the server how it is; see the port."""
        response, health = None, self._health
        try:
            async with asyncio.timeout(health.timeout):
                response = await self._endpoint.get(health.path, health.timeout)
                error_body = await _read(response, _MAX_ERROR_SIZE)
                await response.release()
        except TimeoutError:
            raise UpstreamTimeout(_UNHEALTHY, cause=f"{health.path}: no answer within {health.timeout} s") from None
        except (*http_client.FAILURES, MalformedResponse) as error:
            raise UpstreamUnavailable(_UNHEALTHY, cause=f"{health.path}: {self._cause(error)}") from None
        finally:
            if response is not None:
                response.close()
        if response.status != _OK:
            text = self._errors.redact(error_body.decode(errors="replace"))
            raise UpstreamUnavailable(_UNHEALTHY, cause=f"{health.path}: HTTP {response.status}: {text}")

    async def close(self) -> None:
        """Closes every connection."""
        await self._endpoint.close()

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        """Returns the request's JSON. Raises UnsupportedParameter, InvalidRequest."""
        raise NotImplementedError

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        """Reads a whole answer. Raises MalformedResponse, ErrorInBody."""
        raise NotImplementedError

    def _reader(self, call: UpstreamCall) -> Reader:
        """Returns what reads the stream of this call's answer."""
        raise NotImplementedError

    def _read_completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        """Reads a whole answer, which may have come as a stream. Raises MalformedResponse, ErrorInBody."""
        if body_shapes.are_events(data):
            return body_shapes.accumulate(self._reader(call), data)
        return self._completion(data, call)

    def _reader_for(self, reader: Reader, data: bytes, call: UpstreamCall) -> Reader | None:
        """Returns what reads a body that begins like this; None where it cannot be known yet."""
        return body_shapes.reader_for(reader, data, lambda body: self._completion(body, call))

    async def _open(self, call: UpstreamCall, body: bytes, deadlines: Deadlines) -> http_client.Response:
        """Asks for a stream; returns when its head has come."""
        response = None
        try:
            async with asyncio.timeout_at(deadlines.first_token):
                response = await self._endpoint.post(body, call.timeouts.connect)
                if _can_be_read(response):
                    return response
                raise await self._response_error(response, call)
        except http_client.FAILURES as error:
            raise self._failure(error, call, deadlines) from None
        finally:
            if response is not None and not _can_be_read(response):
                response.close()

    async def _response_error(self, response: http_client.Response, call: UpstreamCall) -> ParleyError:
        """Returns the error for what is no answer to the call."""
        if response.status == _OK:
            return classifier.unreadable(call.request.model, _encoding_error(response.unsupported_encoding))
        body = b""
        with suppress(*http_client.FAILURES, MalformedResponse):
            async with asyncio.timeout(_HEALTH_BODY_SECONDS):
                body = await _read(response, _MAX_ERROR_SIZE)
            await response.release()
        return self._errors.from_response(response.status, response.headers, body, call.request.model)

    def _failure(
        self, error: Exception, call: UpstreamCall, deadlines: Deadlines, *, started: bool = False
    ) -> ParleyError:
        """Puts what went wrong before or, where it has `started`, in a whole answer into the terms of the domain."""
        model = call.request.model
        if isinstance(error, http_client.RetriedOnFreshConnection):
            return classifier.without_retries(self._failure(error.error, call, deadlines, started=started))
        if isinstance(error, http_client.PoolExhausted):
            return classifier.rate_limited(model, _WAIT_FOR_CONNECTION, str(error))
        if isinstance(error, TimeoutError):
            return deadlines.exceeded(error)
        if started:
            return classifier.unreadable(model, self._cause(error))
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return classifier.misconfigured(model, self._cause(error))
        return classifier.unavailable(model, self._cause(error))

    def _cause(self, error: Exception) -> str:
        return self._errors.redact(f"{type(error).__name__}: {error}")


class _SilenceWatchdog:
    """Gives an answer up that stays silent past a time of the event loop's clock, and is then `expired`.

    One timer serves the whole stream: the time is moved on with every piece, the timer mostly when it goes off. An
    answer that its reader has whole is waited for no longer than `TAIL_SECONDS` after its latest bytes.
    """

    __slots__ = ("_loop", "_response", "_silence_timer", "_timer", "_until", "expired", "reader")

    def __init__(
        self, response: http_client.Response, reader: Reader, silence_timer: SilenceTimer, until: float
    ) -> None:
        self.expired = False
        self._response = response
        self.reader = reader
        self._loop = asyncio.get_running_loop()
        self._silence_timer = silence_timer
        self._until = until
        self._timer = self._loop.call_at(min(until, silence_timer.since + TAIL_SECONDS), self._on_timer)

    def extend(self, until: float) -> None:
        """Gives it time until then, as bytes have come."""
        self._until = until
        if until < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(until, self._on_timer)

    def pause(self, until: float) -> None:
        """Gives it time until then, whatever it has said."""
        self._until = self._silence_timer.since = until

    def stop(self) -> None:
        """Ends the watch."""
        self._timer.cancel()

    def _on_timer(self) -> None:
        now = self._loop.time() + TICK
        tail = self._silence_timer.since + TAIL_SECONDS
        self.expired = now >= self._until or (now >= tail and self.reader.is_complete)
        if self.expired:
            self._response.time_out()
        else:
            self._timer = self._loop.call_at(min(self._until, max(tail, now + TAIL_SECONDS)), self._on_timer)


async def _read(response: http_client.Response, limit: int, on_chunk: Callable[[], None] = lambda: None) -> bytes:
    """Reads the whole body; `on_chunk` is called with each piece but the last.

    Raises MalformedResponse where it has more than `limit` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.read():
        size += len(chunk)
        if size > limit:
            raise MalformedResponse(f"the answer is longer than {limit} bytes")
        chunks.append(chunk)
        if response.at_end:
            break
        on_chunk()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _can_be_read(response: http_client.Response) -> bool:
    return response.status == _OK and not response.unsupported_encoding


def _encoding_error(encoding: str | None) -> str:
    return f"the answer is packed as {encoding!r}, which was not asked for"
