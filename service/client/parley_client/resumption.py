"""Continuation of a broken stream: the parts of the repeated answer that were delivered are skipped."""

from collections.abc import Iterator
from typing import Any

from parley_client.completion import TEXTS, Joined
from parley_client.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley_client.v1.message_pb2 import ChunkChoice

_CALL_TEXTS = ("name", "arguments")
_CUSTOM_TEXTS = ("name", "input")
_Path = tuple[int, str]  # of a text: the choice's index, and the field or the tool call


class MismatchError(Exception):
    """The repeated answer differs from what was delivered."""


class Delivery:
    """What a stream has delivered, over all its attempts."""

    def __init__(self) -> None:
        self._joined = Joined()
        self._all = Joined()
        self._skip: dict[_Path, str] = {}
        self._delivered: dict[_Path, list[str]] = {}
        self._repeats = False

    @property
    def has_begun(self) -> bool:
        """Whether anything was delivered."""
        return bool(self._delivered)

    def restart(self) -> None:
        """Prepares for the answer of the next attempt, which begins with what was delivered."""
        self._joined = Joined()
        self._skip = {path: text for path, parts in self._delivered.items() if (text := "".join(parts))}
        self._repeats = self.has_begun

    def add(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk | None:
        """Adds a chunk of the current attempt.

        Returns:
            What of the chunk is new; None if nothing is.

        Raises:
            MismatchError: The chunk differs from what was delivered.
        """
        self._joined.add(chunk)
        if self._repeats:
            chunk = self._new_part(chunk)
        for choice in chunk.choices:
            for path, part, name in _texts(choice):
                self._delivered.setdefault(path, []).append(getattr(part, name))
        if not (chunk.choices or chunk.HasField("usage")):
            return None
        self._all.add(chunk)
        return chunk

    def finish(self) -> None:
        """Ends the answer. Raises MismatchError if it is shorter than what was delivered."""
        if self._skip:
            raise MismatchError

    def completion(self) -> ChatCompletion:
        """Returns the joined answer of the last attempt."""
        return self._joined.completion()

    def delivered(self) -> ChatCompletion:
        """Returns what was delivered, joined."""
        return self._all.completion()

    def _new_part(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        new = ChatCompletionChunk()
        new.CopyFrom(chunk)
        del new.choices[:]
        for choice in chunk.choices:
            added = new.choices.add()
            added.CopyFrom(choice)
            if self._trim(added) and not added.HasField("finish_reason"):
                del new.choices[-1]
        self._repeats = bool(self._skip)
        return new

    def _trim(self, choice: ChunkChoice) -> bool:
        """Removes from a choice what was delivered; returns whether nothing is left of its delta."""
        is_new = False
        for path, part, name in list(_texts(choice)):
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


def _texts(choice: ChunkChoice) -> Iterator[tuple[_Path, Any, str]]:
    """Yields each text of a chunk: its path, the message that has it, and the field."""
    delta = choice.delta
    parts: list[tuple[str, Any, tuple[str, ...]]] = [
        ("", delta, TEXTS),
        ("function_call.", delta.function_call, _CALL_TEXTS),
    ]
    for call in delta.tool_calls:
        parts += [(f"tool_calls[{call.index}].", call.function, _CALL_TEXTS)]
        parts += [(f"tool_calls[{call.index}].", call.custom, _CUSTOM_TEXTS)]
    for prefix, part, names in parts:
        for name in names:
            if part.HasField(name):
                yield (choice.index, prefix + name), part, name
