"""Backend for providers of the any-llm-sdk package. Requires the extra `any-llm`; app.py imports this module lazily.

The package converts between OpenAI's API and the provider's; its responses are parsed like those of an OpenAI server.
The package also controls connections, proxies and the maximum size of a response.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import any_llm
import orjson
from any_llm.exceptions import AnyLLMError, UnsupportedParameterError
from pydantic import BaseModel

from parley.backends.any_llm.errors import ProviderErrorFactory
from parley.backends.any_llm.request import arguments
from parley.backends.deadlines import Deadlines, SilenceTimer
from parley.backends.errors import classifier
from parley.backends.errors.classifier import MalformedResponse
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.openai import response as openai_response
from parley.backends.openai.choice import ExpectedAnswer
from parley.backends.openai.stream import StreamReader
from parley.config import ConfigError, Metadata
from parley.core.errors import UpstreamTimeout, UpstreamUnavailable
from parley.core.messages.text_completion import as_message
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import StreamPart
from parley.v1.chat_completions_pb2 import ChatCompletion

_CLOSING_SECONDS = 1.0
_LIST_SECONDS = 20.0
_NO_LIST = "The list of models of the provider cannot be read"


class AnyLLM:
    """A provider of any-llm-sdk.

    Args:
        provider: Its name in any-llm-sdk.
        api_key: Its API key; by default the package reads it from the environment.
        base_url: URL of its API; by default the package's.
        extra_body: The vendor parameters that are passed on.
        discover: Whether `list_models` is called.

    Raises:
        ConfigError: If the package cannot create the provider, for example without a key, or cannot list its models.
    """

    supports_prefill = False  # support for prefill differs between providers

    def __init__(
        self,
        provider: str,
        api_key: str | None = None,
        base_url: str | None = None,
        extra_body: ExtraBodyPolicy = EVERYTHING,
        *,
        discover: bool = False,
    ) -> None:
        self._extra_body = extra_body
        self._provider = _create(provider, api_key, base_url)
        if discover and not self._provider.SUPPORTS_LIST_MODELS:
            raise ConfigError(f"discover: any-llm-sdk cannot list the models of {provider!r}; remove it")
        self._translates = not _speaks_openai(self._provider)
        self._errors = ProviderErrorFactory(api_key)

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer; see the port."""
        provider_arguments = self._arguments(call, stream=False)
        deadlines = Deadlines(call)
        try:
            async with asyncio.timeout_at(deadlines.end):
                answer = await self._provider.acompletion(**provider_arguments)
            expected_answer = ExpectedAnswer(call.request, has_prefill=call.has_prefill)
            return as_message(openai_response.completion(_json(answer), lambda: expected_answer))
        except TimeoutError as error:
            raise deadlines.exceeded(error) from None
        except MalformedResponse as error:
            raise classifier.unreadable(call.request.model, self._errors.redact(str(error))) from None
        except Exception as error:  # noqa: BLE001 - what any of the packages raises
            raise self._errors.from_provider(error, call.request.model) from None

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[StreamPart, None]:
        """Yields the answer in parts; see the port."""
        provider_arguments = self._arguments(call, stream=True)
        deadlines = Deadlines(call)
        reader = StreamReader(ExpectedAnswer(call.request, has_prefill=call.has_prefill))
        silence_timer = SilenceTimer(call, deadlines)
        until = deadlines.first_token
        answer: AsyncIterator[Any] | None = None
        try:
            async with asyncio.timeout_at(until):
                answer = await self._provider.acompletion(**provider_arguments)
            while not reader.ended:
                async with asyncio.timeout_at(until):
                    part = reader.feed(await _next(answer))
                if part is not None:
                    yield part
                until = silence_timer.record(part, started=reader.started, is_complete=reader.is_complete)
        except TimeoutError as error:
            if not reader.is_complete:
                raise deadlines.exceeded(error, started=reader.started) from None
        except Exception as error:  # noqa: BLE001 - what any of the packages raises
            raise self._errors.from_provider(error, call.request.model, started=reader.started) from None
        finally:
            await _close(answer)
        if not reader.ended and (part := reader.feed(b"")) is not None:
            yield part
        if not reader.is_complete:
            raise self._errors.from_incomplete_stream(reader.failure, call.request.model, started=reader.started)

    def _arguments(self, call: UpstreamCall, *, stream: bool) -> dict[str, Any]:
        return arguments(call, stream=stream, translates=self._translates, policy=self._extra_body)

    async def list_models(self) -> Mapping[str, Metadata]:
        """Returns the list of models of the provider; see the port."""
        from parley.backends import model_list  # most backends read no list

        try:
            async with asyncio.timeout(_LIST_SECONDS):
                models = await self._provider.alist_models()
        except TimeoutError:
            raise UpstreamTimeout(_NO_LIST, cause=f"no answer within {_LIST_SECONDS} s") from None
        except Exception as error:  # noqa: BLE001 - what any of the packages raises
            cause = self._errors.redact(f"{type(error).__name__}: {error}")
            raise UpstreamUnavailable(_NO_LIST, cause=cause) from None
        return model_list.parse(orjson.dumps([one.model_dump(mode="json") for one in models]))

    async def check(self) -> None:
        """Does nothing: these backends have no health check."""

    async def close(self) -> None:
        """Closes every connection, if the provider's package supports it."""
        await _close(getattr(self._provider, "client", None))


def _speaks_openai(provider: any_llm.AnyLLM) -> bool:
    return any(kind.__name__ == "BaseOpenAIProvider" for kind in type(provider).__mro__)


def _create(provider: str, api_key: str | None, base_url: str | None) -> any_llm.AnyLLM:
    """Creates the provider, without retries and redirects if its package allows that."""
    try:
        try:
            provider_client = any_llm.AnyLLM.create(provider, api_key, base_url, unified_exceptions=True, max_retries=0)
        except UnsupportedParameterError:
            provider_client = any_llm.AnyLLM.create(provider, api_key, base_url, unified_exceptions=True)
    except (AnyLLMError, ImportError, ValueError, TypeError) as error:
        raise ConfigError(f"provider: any-llm-sdk cannot make {provider!r}: {error}") from error
    http: Any = getattr(getattr(provider_client, "client", None), "_client", None)  # httpx in most packages
    if hasattr(http, "follow_redirects"):
        http.follow_redirects = False
    return provider_client


async def _next(answer: Any) -> bytes:
    """Returns the next chunk as a server-sent event; b"" at the end."""
    chunk = await anext(answer, None)
    return b"" if chunk is None else b"data: %b\n\n" % _json(chunk)


def _json(answer: Any) -> bytes:
    """Serializes a response of the package as OpenAI's JSON."""
    if not isinstance(answer, BaseModel):
        raise MalformedResponse(f"the package answered with {type(answer).__name__}")
    return answer.model_dump_json(exclude_none=True).encode()


async def _close(what: Any) -> None:
    """Closes a stream or a client by its `aclose` or `close` method, if any."""
    close = getattr(what, "aclose", None) or getattr(what, "close", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(_CLOSING_SECONDS):
            closing = close()
            if inspect.isawaitable(closing):
                await closing
    except Exception:  # noqa: BLE001, S110 - a failure to close needs no handling
        pass
