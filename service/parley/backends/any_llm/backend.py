"""The providers of the any-llm-sdk package: the long tail. Needs the extra `any-llm`; app.py imports this late.

What goes over the wire is the provider's own package's business. It is asked and answers in OpenAI's terms, which are
read here as those of an OpenAI server are. Connections, proxies and how much of an answer is read into memory are the
package's, too.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import any_llm
from any_llm.exceptions import AnyLLMError, UnsupportedParameterError
from pydantic import BaseModel

from parley.backends.any_llm.errors import ProviderErrorFactory
from parley.backends.any_llm.request import arguments
from parley.backends.deadlines import Deadlines, SilenceTimer
from parley.backends.errors import classifier
from parley.backends.errors.classifier import MalformedResponse
from parley.backends.openai import response as openai_response
from parley.backends.openai.choice import expected
from parley.backends.openai.stream import StreamReader
from parley.config import ConfigError
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

_CLOSING_SECONDS = 1.0


class AnyLLM:
    """A provider by its name in any-llm-sdk. Raises ConfigError where it cannot be made, for want of a key for example.

    Without `api_key` and `base_url` the package takes what it knows of the provider, and from the environment.
    """

    can_continue = False  # each provider does so in its own way, or not at all

    def __init__(self, provider: str, api_key: str | None = None, base_url: str | None = None) -> None:
        self._provider = _make(provider, api_key, base_url)
        self._translates = not _speaks_openai(self._provider)
        self._errors = ProviderErrorFactory(api_key)

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole; see the port."""
        provider_arguments = arguments(call, stream=False, translates=self._translates)
        deadlines = Deadlines(call)
        try:
            async with asyncio.timeout_at(deadlines.end):
                answer = await self._provider.acompletion(**provider_arguments)
            return openai_response.completion(_json(answer), expected(call))
        except TimeoutError as error:
            raise deadlines.exceeded(error) from None
        except MalformedResponse as error:
            raise classifier.unreadable(call.request.model, self._errors.redact(str(error))) from None
        except Exception as error:  # noqa: BLE001 - what any of the packages raises
            raise self._errors.from_provider(error, call.request.model) from None

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers in chunks; see the port."""
        provider_arguments = arguments(call, stream=True, translates=self._translates)
        deadlines = Deadlines(call)
        reader = StreamReader(expected(call))
        silence_timer = SilenceTimer(call, deadlines)
        until = deadlines.first_token
        answer: AsyncIterator[Any] | None = None
        try:
            async with asyncio.timeout_at(until):
                answer = await self._provider.acompletion(**provider_arguments)
            while not reader.ended:
                async with asyncio.timeout_at(until):
                    chunk = reader.feed(await _next(answer))
                if chunk is not None:
                    yield chunk
                until = silence_timer.record(chunk, started=reader.started, is_complete=reader.is_complete)
        except TimeoutError as error:
            if not reader.is_complete:
                raise deadlines.exceeded(error, started=reader.started) from None
        except Exception as error:  # noqa: BLE001 - what any of the packages raises
            raise self._errors.from_provider(error, call.request.model, started=reader.started) from None
        finally:
            await _close(answer)
        if not reader.ended and (chunk := reader.feed(b"")) is not None:
            yield chunk
        if not reader.is_complete:
            raise self._errors.from_incomplete_stream(reader.failure, call.request.model, started=reader.started)

    async def check(self) -> None:
        """Is never asked: these backends have no `health`."""

    async def close(self) -> None:
        """Closes every connection, where the provider's package can."""
        await _close(getattr(self._provider, "client", None))


def _speaks_openai(provider: any_llm.AnyLLM) -> bool:
    return any(kind.__name__ == "BaseOpenAIProvider" for kind in type(provider).__mro__)


def _make(provider: str, api_key: str | None, base_url: str | None) -> any_llm.AnyLLM:
    """Makes the provider, which is to repeat no call and to follow no redirect, where it can be told so."""
    try:
        try:
            provider_client = any_llm.AnyLLM.create(provider, api_key, base_url, unified_exceptions=True, max_retries=0)
        except UnsupportedParameterError:
            provider_client = any_llm.AnyLLM.create(provider, api_key, base_url, unified_exceptions=True)
    except (AnyLLMError, ImportError, ValueError, TypeError) as error:
        raise ConfigError(f"provider: any-llm-sdk cannot make {provider!r}: {error}") from error
    http: Any = getattr(
        getattr(provider_client, "client", None), "_client", None
    )  # httpx, in the packages of most vendors
    if hasattr(http, "follow_redirects"):
        http.follow_redirects = False
    return provider_client


async def _next(answer: Any) -> bytes:
    """Returns the next chunk as an event, b"" at the end."""
    chunk = await anext(answer, None)
    return b"" if chunk is None else b"data: %b\n\n" % _json(chunk)


def _json(answer: Any) -> bytes:
    """Writes an answer of the package's as the JSON that an OpenAI server would have sent."""
    if not isinstance(answer, BaseModel):
        raise MalformedResponse(f"the package answered with {type(answer).__name__}")
    return answer.model_dump_json(exclude_none=True).encode()


async def _close(what: Any) -> None:
    """Closes a stream or a client in whatever way it has."""
    close = getattr(what, "aclose", None) or getattr(what, "close", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(_CLOSING_SECONDS):
            closing = close()
            if inspect.isawaitable(closing):
                await closing
    except Exception:  # noqa: BLE001, S110 - there is nothing to be done about it, and nobody to be told
        pass
