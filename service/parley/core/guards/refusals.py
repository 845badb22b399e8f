"""The form of an answer that a guard refuses: that of content filters in OpenAI's and Azure's APIs.

The choice ends with the finish reason `content_filter`. The guard's message is its `refusal`, and
`content_filter_results`, a field of Azure's, names the guard and its reason.
"""

from parley.core.errors.base import cut
from parley.core.guards.decisions import Refusal
from parley.core.messages.extra_fields import dumps
from parley.v1.message_pb2 import Choice, ChunkChoice

FINISH_REASON = "content_filter"
_MAX_MESSAGE = 512  # bytes, as for errors


def refuse_choice(choice: Choice, guard: str, refusal: Refusal) -> None:
    """Replaces a choice of a whole answer by its refusal."""
    index = choice.index
    choice.Clear()
    choice.index = index
    choice.message.role = "assistant"
    choice.message.content.null_value = 0  # type: ignore[assignment]
    choice.message.refusal = _message(guard, refusal)
    choice.finish_reason = FINISH_REASON
    choice.extra_json = _results(guard, refusal)


def refusal_chunks(index: int, guard: str, refusal: Refusal) -> list[ChunkChoice]:
    """Returns the chunks that end a streamed choice."""
    text = ChunkChoice(index=index)
    text.delta.refusal = _message(guard, refusal)
    return [text, ChunkChoice(index=index, finish_reason=FINISH_REASON, extra_json=_results(guard, refusal))]


def not_text(guard: str) -> Refusal:
    """Returns the refusal of images, sound and files, which a guard cannot read."""
    return Refusal("not_text", f'The guard "{guard}" of this service cannot read images or audio; request text only')


def _message(guard: str, refusal: Refusal) -> str:
    return cut(refusal.message or f'The guard "{guard}" of this service refuses the answer', _MAX_MESSAGE)


def _results(guard: str, refusal: Refusal) -> str:
    return dumps({"content_filter_results": {guard: {"filtered": True, "reason": refusal.reason}}})
