"""One question and its answer: waits for a busy session, and shows the answer as it arrives."""

import time
from contextlib import closing
from typing import Any, Protocol, Self

from parley.cli.chat.conversation import Conversation
from parley.cli.shared.terminal import without_control_characters
from parley_client import ParleyError

# Seconds that a cancelled turn may take to release its session. If the store cannot be written meanwhile, the session
# is busy until the lease of 10 s expires.
_BUSY_SECONDS = 15.0
_PAUSE = 0.2
_CUT = {
    "length": "the answer is cut off at the limit of tokens",
    "content_filter": "the provider's content filter has cut the answer off",
}


class View(Protocol):
    """Shows one answer. Its texts have no control characters."""

    def __enter__(self) -> Self:
        """Begins the answer."""
        ...

    def __exit__(self, *_: object) -> None:
        """Ends the answer, also an incomplete one."""
        ...

    def show_model(self, model: str) -> None:
        """Names the model that answers."""
        ...

    def show_reasoning(self, text: str) -> None:
        """Shows a part of the reasoning."""
        ...

    def show(self, text: str) -> None:
        """Shows a part of the answer."""
        ...


def answer(conversation: Conversation, question: Any, view: View) -> str | None:
    """Shows the answer to a question as it arrives.

    Returns:
        Why the answer is cut off; None for a complete one.

    Raises:
        ParleyError: The call failed.
        KeyboardInterrupt: The user has stopped the answer.
    """
    started = time.monotonic()
    while True:
        try:
            with view:
                return _show(conversation, question, view)
        except ParleyError as error:
            conversation.interrupts.raise_pending()
            if error.reason != "SESSION_BUSY" or time.monotonic() - started > _BUSY_SECONDS:
                raise
            with conversation.interrupts.interruptible():
                time.sleep(_PAUSE)


def _show(conversation: Conversation, question: Any, view: View) -> str | None:
    reason, model = "", ""
    with closing(conversation.send(question)) as chunks:
        for chunk in chunks:
            if chunk.model != model:
                model = chunk.model
                view.show_model(without_control_characters(model))
            for choice in chunk.choices:
                delta, reason = choice.delta, choice.finish_reason or reason
                if delta.reasoning_content:
                    view.show_reasoning(without_control_characters(delta.reasoning_content))
                if text := delta.content or delta.refusal:
                    view.show(without_control_characters(text))
    return _CUT.get(reason)
