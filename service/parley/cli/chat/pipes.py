"""Answers without a user at a terminal: `--once`, and lines of a pipe."""

import sys
from collections.abc import Iterator
from typing import Any

from parley.cli.chat import answers, images
from parley.cli.chat.access import Access
from parley.cli.chat.conversation import Conversation
from parley.cli.chat.dialogue import can_draw, markdown_view
from parley.cli.chat.views import PlainView
from parley.cli.shared.interrupts import Interrupts
from parley.supervisor.errors import CommandError
from parley_client import ParleyError


def answer_once(conversation: Conversation, access: Access, text: str, pictures: list[dict[str, Any]]) -> None:
    """Answers one question: a text, with what a pipe contains below it. Raises CommandError.

    Args:
        conversation: The conversation.
        access: The connection, for the messages of errors.
        text: The text; `-` for that of the pipe alone.
        pictures: Images that are sent with it.
    """
    with conversation.interrupts.interruptible():
        data = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    if images.image_type(data):
        pictures, data = [*pictures, images.image_part(data, "the input")], b""
    parts = [] if text == "-" else [text]
    parts += [_decoded(data)] if data.strip() else []
    question = "\n\n".join(parts)
    if not (question.strip() or pictures):
        raise CommandError("there is no question; give --once a text, or a pipe")
    _answer(conversation, access, images.message(question, pictures))


def answer_lines(conversation: Conversation, access: Access, pictures: list[dict[str, Any]]) -> None:
    """Answers each line of the input, which is a turn. Raises CommandError."""
    for text in _lines(conversation.interrupts):
        _answer(conversation, access, images.message(text, pictures))
        pictures = []


def _answer(conversation: Conversation, access: Access, question: Any) -> None:
    model = conversation.model if sys.stderr.isatty() else None
    view = markdown_view() if can_draw() else PlainView(conversation.interrupts, model)
    try:
        cut = answers.answer(conversation, question, view)
    except ParleyError as error:
        if error.reason == "SESSION_NOT_FOUND":
            conversation.session = None  # there is nothing to go on with
        raise CommandError(access.explain(error)) from error
    if cut:
        print(f"parley: {cut}", file=sys.stderr)


def _lines(interrupts: Interrupts) -> Iterator[str]:
    """Yields the lines of the input that are not empty."""
    while True:
        try:
            with interrupts.interruptible():
                text = input()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise CommandError("the input is not UTF-8 text") from error
        if text.strip():
            yield text


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CommandError("the input is neither UTF-8 text nor an image; convert it") from error
