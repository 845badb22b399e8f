"""One call to an upstream over HTTP, whole or as a stream: bounds in time and size, and what each failure means.

A vendor's backend adds the JSON: what is sent (`_body`), and how an answer is read (`_completion`, `_reader`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
from yarl import URL

from parley.backends.deadlines import TAIL_SECONDS, TICK, Bounds, Silence
from parley.backends.errors import classifier
from parley.backends.errors.classifier import ErrorInBody, Failures, Malformed
from parley.backends.http import body_shapes
from parley.backends.http import client as http_client
from parley.backends.http.body_shapes import LARGEST_ANSWER, Reader
from parley.config import ConfigError, HttpHealth
from parley.core.errors import ParleyError, UpstreamTimeout, UpstreamUnavailable
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

_LARGEST_STREAM = 256 * 1024 * 1024  # each token comes in an event of its own, maybe with 20 probabilities
_LARGEST_ERROR = 64 * 1024
_WAIT_FOR_CONNECTION = 1.0
_WAIT_FOR_WORDS = 2.0  # seconds: a refusal is told by its status, and should not keep its caller for the rest
_NOT_WELL = "The backend does not say that it is well"
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
        health: HttpHealth | None = None,
    ) -> None:
        if secret and not (secret.isascii() and secret.isprintable()):
            raise ConfigError("api_key: has characters that no key has; look for a line break or a quote in it")
        own = {"Content-Type": "application/json", "User-Agent": "parley"}
        self._endpoint = http_client.Endpoint(URL(url), own | dict(headers), unix_socket, connections=connections)
        self._health = health or HttpHealth()
        self._failures = Failures(secret)

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole; see the port."""
        body = await offload(self._body, call, stream=False)
        bounds = Bounds(call)
        response = None
        try:
            async with asyncio.timeout_at(bounds.end) as timer:
                response = await self._endpoint.post(body, call.timeouts.connect, packed=True)
                if not _can_be_read(response):
                    raise await self._refusal(response, call)
                data = await _read(response, LARGEST_ANSWER, lambda: timer.reschedule(bounds.next_bytes()))
                await response.release()
            return self._whole(data, call)
        except ErrorInBody as error:
            raise self._failures.in_stream(error.error, call.request.model, started=False) from None
        except (*http_client.FAILURES, Malformed) as error:
            raise self._failure(error, call, bounds, begun=response is not None) from None
        finally:
            if response is not None:
                response.close()

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers in chunks; see the port."""
        body = await offload(self._body, call, stream=True)
        bounds = Bounds(call)
        reader = self._reader(call)
        failure: ParleyError | None = None
        size = 0
        response = await self._open(call, body, bounds)
        silence = Silence(call, bounds)
        watch = _Watch(response, reader, silence, bounds.first_token)
        is_known = False
        try:
            while not reader.ended:
                try:
                    data = await response.read()
                except http_client.FAILURES as error:
                    data, failure = b"", classifier.broken(call.request.model, self._cause(error))
                if not is_known and (fitting := self._fitting(reader, data, call)) is not None:
                    reader = watch.reader = fitting
                    is_known = True
                chunk = reader.feed(data)
                if chunk is not None:
                    watch.pause(bounds.end)  # the time that the caller takes is not the upstream's silence
                    yield chunk
                watch.move(silence.heard(chunk, started=reader.started))
                size += len(data)
                if size > _LARGEST_STREAM:
                    raise classifier.broken(call.request.model, f"the stream is longer than {_LARGEST_STREAM} bytes")
            if not reader.whole:
                if watch.over:
                    raise bounds.exceeded(started=reader.started)
                raise failure or self._failures.unfinished(reader.failure, call.request.model, started=reader.started)
            await response.release()
        finally:
            watch.stop()
            response.close()

    async def check(self) -> None:
        """Asks the server how it is; see the port."""
        response, health = None, self._health
        try:
            async with asyncio.timeout(health.timeout):
                response = await self._endpoint.get(health.path, health.timeout)
                said = await _read(response, _LARGEST_ERROR)
                await response.release()
        except TimeoutError:
            raise UpstreamTimeout(_NOT_WELL, cause=f"{health.path}: no answer within {health.timeout} s") from None
        except (*http_client.FAILURES, Malformed) as error:
            raise UpstreamUnavailable(_NOT_WELL, cause=f"{health.path}: {self._cause(error)}") from None
        finally:
            if response is not None:
                response.close()
        if response.status != _OK:
            words = self._failures.redact(said.decode(errors="replace"))
            raise UpstreamUnavailable(_NOT_WELL, cause=f"{health.path}: HTTP {response.status}: {words}")

    async def close(self) -> None:
        """Closes every connection."""
        await self._endpoint.close()

    def _body(self, call: UpstreamCall, *, stream: bool) -> bytes:
        """Returns the request's JSON. Raises UnsupportedParameter, InvalidRequest."""
        raise NotImplementedError

    def _completion(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        """Reads a whole answer. Raises Malformed, ErrorInBody."""
        raise NotImplementedError

    def _reader(self, call: UpstreamCall) -> Reader:
        """Returns what reads the stream of this call's answer."""
        raise NotImplementedError

    def _whole(self, data: bytes, call: UpstreamCall) -> ChatCompletion:
        """Reads a whole answer, which may have come as a stream. Raises Malformed, ErrorInBody."""
        if body_shapes.are_events(data):
            return body_shapes.joined(self._reader(call), data)
        return self._completion(data, call)

    def _fitting(self, reader: Reader, data: bytes, call: UpstreamCall) -> Reader | None:
        """Returns what reads a body that begins like this; None where it cannot be known yet."""
        return body_shapes.fitting(reader, data, lambda whole: self._completion(whole, call))

    async def _open(self, call: UpstreamCall, body: bytes, bounds: Bounds) -> http_client.Answer:
        """Asks for a stream; returns when its head has come."""
        response = None
        try:
            async with asyncio.timeout_at(bounds.first_token):
                response = await self._endpoint.post(body, call.timeouts.connect)
                if _can_be_read(response):
                    return response
                raise await self._refusal(response, call)
        except http_client.FAILURES as error:
            raise self._failure(error, call, bounds) from None
        finally:
            if response is not None and not _can_be_read(response):
                response.close()

    async def _refusal(self, response: http_client.Answer, call: UpstreamCall) -> ParleyError:
        """Returns the error for what is no answer to the call."""
        if response.status == _OK:
            return classifier.unreadable(call.request.model, _packed(response.foreign))
        body = b""
        with suppress(*http_client.FAILURES, Malformed):
            async with asyncio.timeout(_WAIT_FOR_WORDS):
                body = await _read(response, _LARGEST_ERROR)
            await response.release()
        return self._failures.refusal(response.status, response.headers, body, call.request.model)

    def _failure(self, error: Exception, call: UpstreamCall, bounds: Bounds, *, begun: bool = False) -> ParleyError:
        """Puts what went wrong before or, where it has `begun`, in a whole answer into the terms of the domain."""
        model = call.request.model
        if isinstance(error, http_client.AskedAgain):
            return classifier.asked_again(self._failure(error.error, call, bounds, begun=begun))
        if isinstance(error, http_client.NoneFree):
            return classifier.rate_limited(model, _WAIT_FOR_CONNECTION, str(error))
        if isinstance(error, TimeoutError):
            return bounds.exceeded(error)
        if begun:
            return classifier.unreadable(model, self._cause(error))
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return classifier.misconfigured(model, self._cause(error))
        return classifier.unavailable(model, self._cause(error))

    def _cause(self, error: Exception) -> str:
        return self._failures.redact(f"{type(error).__name__}: {error}")


class _Watch:
    """Gives an answer up that stays silent past a time of the event loop's clock, and is then `over`.

    One timer serves the whole stream: the time is moved on with every piece, the timer mostly when it goes off. An
    answer that its reader has whole is waited for no longer than `TAIL_SECONDS` after its latest bytes.
    """

    __slots__ = ("_answer", "_loop", "_silence", "_timer", "_until", "over", "reader")

    def __init__(self, answer: http_client.Answer, reader: Reader, silence: Silence, until: float) -> None:
        self.over = False
        self._answer = answer
        self.reader = reader
        self._loop = asyncio.get_running_loop()
        self._silence = silence
        self._until = until
        self._timer = self._loop.call_at(min(until, silence.since + TAIL_SECONDS), self._look)

    def move(self, until: float) -> None:
        """Gives it time until then, as bytes have come."""
        self._until = until
        if until < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(until, self._look)

    def pause(self, until: float) -> None:
        """Gives it time until then, whatever it has said."""
        self._until = self._silence.since = until

    def stop(self) -> None:
        """Ends the watch."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time() + TICK
        tail = self._silence.since + TAIL_SECONDS
        self.over = now >= self._until or (now >= tail and self.reader.whole)
        if self.over:
            self._answer.time_out()
        else:
            self._timer = self._loop.call_at(min(self._until, max(tail, now + TAIL_SECONDS)), self._look)


async def _read(response: http_client.Answer, most: int, heard: Callable[[], None] = lambda: None) -> bytes:
    """Reads the whole body; `heard` is called with each piece but the last.

    Raises Malformed where it has more than `most` bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := await response.read():
        size += len(piece)
        if size > most:
            raise Malformed(f"the answer is longer than {most} bytes")
        pieces.append(piece)
        if response.at_end:
            break
        heard()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _can_be_read(response: http_client.Answer) -> bool:
    return response.status == _OK and not response.foreign


def _packed(encoding: str | None) -> str:
    return f"the answer is packed as {encoding!r}, which was not asked for"
