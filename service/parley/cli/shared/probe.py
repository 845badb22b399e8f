"""Makes one cheap call to a backend, and explains its failures to the operator."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parley.backends.factory import make_backend
from parley.config import BackendConfig, ConfigError, ParameterChanges, Timeouts
from parley.core.errors import (
    DeadlineExceeded,
    ParleyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from parley.core.ports import Backend, UpstreamCall
from parley.core.ports.parameters import TargetParameters
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

QUESTION = "Reply with the word OK."
_TIMEOUTS = Timeouts(connect=5.0, first_token=30.0, stream_idle=30.0, stall=30.0, total=30.0)
_MAX_TOKENS = 16  # the least that OpenAI's newer models accept
_NEW_NAME = "max_completion_tokens"
_WRONG_API = "check that `base_url` is an API of the backend's `kind`"
_UNREACHABLE = "start the server, or correct its address; check the network and the proxy variables"
_REMEDIES: Sequence[tuple[type[Exception], str]] = (
    (ConfigError, "correct the backend in the configuration"),
    (UpstreamMisconfigured, "check `api_key`, `base_url` and the target's `model`"),
    (UpstreamQuotaExhausted, "add credit at the vendor, or use another key"),
    (UpstreamRateLimited, "wait, or have the vendor raise the limit of the key"),
    (UpstreamRejected, "check the target's `model`, and which parameters it accepts"),
    (UpstreamTimeout, "see whether the server is overloaded or still loads the model"),
    (DeadlineExceeded, "see whether the server is overloaded or still loads the model"),
    (UpstreamUnreadable, _WRONG_API),
    (UpstreamUnavailable, "see the log of the server, or try again later"),
    (UpstreamError, _WRONG_API),
)


class ProbeFailed(Exception):
    """The call failed.

    Attributes:
        remedy: What to do.
        is_temporary: Whether the backend works, but not for this call.
    """

    def __init__(self, error: Exception) -> None:
        if isinstance(error, ParleyError):
            super().__init__(error.message if error.is_quoted else error.cause or error.message)
        else:
            super().__init__(str(error))
        self.remedy = _remedy(error)
        self.is_temporary = isinstance(error, UpstreamRateLimited)


def _remedy(error: Exception) -> str:
    if isinstance(error, UpstreamError) and error.is_unreachable:
        return _UNREACHABLE
    return next((text for kind, text in _REMEDIES if isinstance(error, kind)), _WRONG_API)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the call.

    Attributes:
        text: The text, which may be empty: a model may reason instead.
        seconds: The time until the answer was complete.
    """

    text: str
    seconds: float


async def probe(
    name: str,
    config: BackendConfig,
    model: str,
    run_dir: Path | None = None,
    changes: ParameterChanges | None = None,
) -> Reply:
    """Asks a backend for a few tokens.

    Args:
        name: The name of the backend.
        config: The backend.
        model: The backend's name of the model.
        run_dir: The folder with the socket of a llama.cpp server; None for other backends.
        changes: What is changed in parameters. Default: what the backend changes.

    Raises:
        ProbeFailed: The backend cannot be created or called.
    """
    if changes is None and isinstance(config, ParameterChanges):
        changes = config
    parameters = TargetParameters.of(changes) if changes is not None else None
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        try:
            backend = make_backend(name, config, run_dir or Path(folder))
        except ConfigError as error:
            raise ProbeFailed(error) from error
        try:
            return await _ask(backend, model, parameters)
        except ParleyError as error:
            raise ProbeFailed(error) from error
        finally:
            await backend.close()


async def _ask(backend: Backend, model: str, parameters: TargetParameters | None) -> Reply:
    """Asks with `max_tokens`, or with its new name where the backend demands that."""
    try:
        return await _complete(backend, model, CreateChatCompletionRequest(max_tokens=_MAX_TOKENS), parameters)
    except UpstreamError as error:
        if _NEW_NAME not in f"{error.message} {error.cause} {error.detail}":
            raise
    request = CreateChatCompletionRequest(max_completion_tokens=_MAX_TOKENS)
    return await _complete(backend, model, request, parameters)


async def _complete(
    backend: Backend, model: str, request: CreateChatCompletionRequest, parameters: TargetParameters | None
) -> Reply:
    request.model = model
    request.messages.add(role="user").content.string_value = QUESTION
    began = time.perf_counter()
    answer = await backend.complete(UpstreamCall(request, model, _TIMEOUTS, parameters=parameters))
    text = answer.choices[0].message.content.string_value if answer.choices else ""
    return Reply(text, time.perf_counter() - began)
