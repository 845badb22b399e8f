"""Which requests use the cache, and which answers are kept."""

from collections.abc import Sequence

from parley.config import Cache
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Choice

_CALLS = frozenset({"tool_calls", "function_call"})


def bypass_reason(cache: Cache, request: CreateChatCompletionRequest, default_temperature: float | None) -> str:
    """Returns why a request does not use the cache: `tools` or `temperature`; empty if it does.

    Args:
        cache: The configuration.
        request: The request.
        default_temperature: The temperature of requests without one; None if the backend chooses it.
    """
    if not cache.tools and (request.tools or request.functions or request.HasField("web_search_options")):
        return "tools"
    temperature = request.temperature if request.HasField("temperature") else default_temperature
    return "" if cache.any_temperature or temperature == 0 else "temperature"


def rejection_reason(cache: Cache, model_id: str, answer: ChatCompletion, attempts: Sequence[AttemptRecord]) -> str:
    """Returns why an answer is not kept: `fallback`, `incomplete`, `tools` or `too_large`; empty if it is.

    An answer of a fallback would be returned long after the model itself works again.

    Args:
        cache: The configuration.
        model_id: The id of the model in the configuration.
        answer: The answer.
        attempts: The attempts of the call.
    """
    done = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.COMPLETED]
    if not done or (done[-1].model_label or done[-1].model_id) != model_id:
        return "fallback" if done else "incomplete"
    if not answer.choices or not all(_is_complete(choice) for choice in answer.choices):
        return "incomplete"
    if not cache.tools and any(_has_calls(choice) for choice in answer.choices):
        return "tools"
    return "too_large" if answer.ByteSize() > cache.max_answer else ""


def _has_calls(choice: Choice) -> bool:
    return choice.finish_reason in _CALLS or bool(choice.message.tool_calls)


def _is_complete(choice: Choice) -> bool:
    """Returns whether a choice ended by itself. Audio is excluded: later turns name it by an id that expires."""
    return choice.finish_reason in {"stop", *_CALLS} and not choice.message.HasField("audio")
