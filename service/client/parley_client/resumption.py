"""Continuation of a broken stream: the parts of the repeated answer that were delivered are skipped."""

from collections.abc import Iterable, Iterator
from typing import Any

from parley_client.completion import Joined
from parley_client.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley_client.v1.message_pb2 import Choice, ChunkChoice

_Path = tuple[int, str]  # of a text: the choice's index, and the field or the tool call
_TEXTS = ("refusal", "reasoning_content")
_CALL_TEXTS = ("name", "arguments")
_CUSTOM_TEXTS = ("name", "input")
_AUDIO_TEXTS = ("data", "transcript")


class MismatchError(Exception):
    """The repeated answer differs from what was delivered."""


class Delivery:
    """What a stream has delivered, over all its attempts."""

    def __init__(self) -> None:
        self._attempt = self._delivered = Joined()
        self._skip: dict[_Path, str] = {}
        self._finished: set[int] = set()  # the choices whose end was delivered
        self._has_usage = False  # whether the usage was
        self._repeats = False

    def restart(self) -> None:
        """Prepares for the answer of the next attempt, which begins with what was delivered."""
        delivered = self.delivered()
        choices = delivered.choices
        self._attempt = Joined()
        self._skip = {path: text for choice in choices for path, text in _delivered_texts(choice) if text}
        self._finished = {choice.index for choice in choices if choice.finish_reason}
        self._has_usage = delivered.HasField("usage")
        self._repeats = bool(choices)

    def add(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk | None:
        """Adds a chunk of the current attempt.

        Returns:
            What of the chunk is new; None if nothing is.

        Raises:
            MismatchError: The chunk differs from what was delivered.
        """
        self._attempt.add(chunk)
        if self._attempt is self._delivered:
            return chunk
        if self._repeats:
            chunk = self._new_part(chunk)
        if not (chunk.choices or chunk.HasField("usage")):
            return None
        self._delivered.add(chunk)
        return chunk

    def finish(self) -> None:
        """Ends the answer. Raises MismatchError if it is shorter than what was delivered."""
        if self._skip:
            raise MismatchError

    def completion(self) -> ChatCompletion:
        """Returns the joined answer of the last attempt."""
        return self._attempt.completion()

    def delivered(self) -> ChatCompletion:
        """Returns what was delivered, joined."""
        return self._delivered.completion()

    def _new_part(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        new = ChatCompletionChunk()
        new.CopyFrom(chunk)
        del new.choices[:]
        for choice in chunk.choices:
            added = new.choices.add()
            added.CopyFrom(choice)
            if choice.HasField("finish_reason") and choice.index in self._finished:
                self._finished.remove(choice.index)
                added.ClearField("finish_reason")
            if self._trim(added) and not added.HasField("finish_reason"):
                del new.choices[-1]
        if chunk.HasField("usage") and self._has_usage:
            self._has_usage = False
            new.ClearField("usage")
        self._repeats = bool(self._skip or self._finished or self._has_usage)
        return new

    def _trim(self, choice: ChunkChoice) -> bool:
        """Removes from a choice what was delivered; returns whether nothing is left of its delta."""
        is_new = False
        for path, part, name in list(_delta_texts(choice)):
            text, expected = getattr(part, name), self._skip.pop(path, "")
            common = min(len(text), len(expected))
            if text[:common] != expected[:common]:
                raise MismatchError
            if expected[common:]:
                self._skip[path] = expected[common:]
            is_new |= len(text) > common
            setattr(part, name, text[common:])
        if not is_new:
            choice.ClearField("delta")
        return not is_new


def _delta_texts(choice: ChunkChoice) -> Iterator[tuple[_Path, Any, str]]:
    """Yields each text of a chunk: its path, the message that has it, and the field."""
    delta = choice.delta
    if delta.HasField("content"):
        yield (choice.index, "content"), delta, "content"
    yield from _texts(choice.index, delta, ((call.index, call) for call in delta.tool_calls))


def _delivered_texts(choice: Choice) -> Iterator[tuple[_Path, str]]:
    """Yields each text of a joined choice, with its path."""
    message = choice.message
    yield (choice.index, "content"), message.text
    for path, part, name in _texts(choice.index, message, enumerate(message.tool_calls)):
        yield path, getattr(part, name)


def _texts(index: int, message: Any, calls: Iterable[tuple[int, Any]]) -> Iterator[tuple[_Path, Any, str]]:
    """Yields the texts of a message or of a delta, except `content`, whose types differ."""
    parts = [("", message, _TEXTS), ("audio.", message.audio, _AUDIO_TEXTS)]
    parts += [("function_call.", message.function_call, _CALL_TEXTS)]
    for place, call in calls:
        parts += [(f"tool_calls[{place}].", call.function, _CALL_TEXTS)]
        parts += [(f"tool_calls[{place}].", call.custom, _CUSTOM_TEXTS)]
    for prefix, part, names in parts:
        for name in names:
            if getattr(part, name):
                yield (index, prefix + name), part, name
