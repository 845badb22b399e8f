"""Responses of OpenAI's API, for the tests of its backend."""

from typing import Any

from parley.backends.openai.backend import OpenAI
from parley.v1.chat_completions_pb2 import ChatCompletion
from tests.contract.backends import call, collect, completion_of
from tests.upstream import completion

MODERATION = {"input": {"type": "moderation_results", "results": [{"flagged": False, "category_scores": {"x": 0.5}}]}}


def complete_answer(reason: Any, content: str | None = "Hi", **choice: Any) -> dict[str, Any]:
    """Returns a response with this finish reason."""
    body = completion(content)
    body["choices"][0] |= {"finish_reason": reason, **choice}
    return body


async def both(backend: OpenAI, **fields: Any) -> list[ChatCompletion]:
    """Returns the complete answer, and the accumulated stream."""
    return [await backend.complete(call(**fields)), completion_of(await collect(backend, call(**fields)))]


def counted(answer: ChatCompletion) -> tuple[int | None, int | None]:
    """Returns prompt and completion tokens; None if unknown."""
    usage = answer.usage
    return (
        usage.prompt_tokens if usage.HasField("prompt_tokens") else None,
        usage.completion_tokens if usage.HasField("completion_tokens") else None,
    )
