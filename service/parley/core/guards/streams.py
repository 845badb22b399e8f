"""A stream of chunks that a guard checks in windows."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from parley.config import Guard
from parley.core.guards.decisions import Decision, Redaction, Refusal
from parley.core.guards.refusals import not_text, refusal_chunks
from parley.core.guards.windows import ChoiceWindows, Spans
from parley.core.messages.extra_fields import merge_text
from parley.core.ports.plain_text import Batch, PlainText
from parley.guard.v1.guard_pb2 import KIND_OTHER, Unit
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Usage

Batches = AsyncGenerator[Batch, None]


class StreamChecks(Protocol):
    """The checks of one guard of one streamed answer."""

    async def check(self, units: list[Unit], choice: int, *, last: bool) -> Decision:
        """Checks the units of a choice. Raises GuardUnavailable."""
        ...

    def refuse_media(self) -> bool:
        """Returns whether sound is refused, and records the refusal."""
        ...

    def mark_redacted(self) -> None:
        """Records that spans of the last check were replaced."""
        ...

    def usage(self) -> Usage | None:
        """Returns the usage of a stream that has been closed early; None if it is not known."""
        ...


class GuardedStream:
    """One guard of one streamed answer.

    Args:
        name: The name of the guard.
        config: Its settings.
        checks: Its checks.
        choices: The number of requested choices.
    """

    def __init__(self, name: str, config: Guard, checks: StreamChecks, choices: int) -> None:
        self._name = name
        self._config = config
        self._checks = checks
        self._choices = choices
        self._windows: dict[int, ChoiceWindows] = {}
        self._refused: set[int] = set()
        self._extra = ""  # unknown fields of chunks, which are checked with the next window

    async def run(self, batches: Batches) -> Batches:
        """Yields the stream as the guard lets it pass. It ends early if every choice is refused."""
        async with aclosing(batches):
            async for batch in batches:
                passed = await self._pass(batch)
                if passed:
                    yield passed
                if self._is_over:
                    break
                del batch, passed  # a stream that waits keeps nothing of what it has sent
        if self._is_over:
            used = self._checks.usage()
            if used is not None:
                yield [ChatCompletionChunk(usage=used)]
        elif rest := await self._rest():
            yield rest

    @property
    def _is_over(self) -> bool:
        """Whether every choice is refused."""
        return len(self._refused) >= max(self._choices, len(self._windows))

    async def _rest(self) -> list[ChatCompletionChunk]:
        """Returns what may leave at the end."""
        rest = [chunk for index in self._windows for chunk in await self._advance(index, last=True)]
        if self._extra:
            decision = await self._checks.check([_unknown_fields(self._extra)], 0, last=True)
            rest += self._release_extra(is_kept=decision is None)
        return rest

    async def _pass(self, batch: Batch) -> list[ChatCompletionChunk]:
        """Returns what may leave after a batch."""
        others: list[ChatCompletionChunk] = []
        if isinstance(batch, PlainText):
            if 0 not in self._refused:
                self._of(0).add_text(batch)
        else:
            others = [chunk for chunk in batch if self._hold(chunk)]
        passed: list[ChatCompletionChunk] = []
        for index, windows in self._windows.items():
            is_due = windows.is_due or (windows.has_media and self._config.refuses_media)
            if is_due and index not in self._refused:
                passed += await self._advance(index, last=windows.is_finished)
        return passed + others

    def _hold(self, chunk: ChatCompletionChunk) -> bool:
        """Holds back the choices of a chunk. Returns whether the chunk has more, which need not wait."""
        for choice in chunk.choices:
            if choice.index not in self._refused:
                self._of(choice.index).add(choice)
        self._extra = merge_text(self._extra, chunk.extra_json)
        chunk.ClearField("choices")
        chunk.ClearField("extra_json")
        return chunk.ByteSize() > 0

    def _of(self, index: int) -> ChoiceWindows:
        found = self._windows.get(index)
        if found is None:
            found = self._windows[index] = ChoiceWindows(self._config.window, self._config.overlap)
        return found

    async def _advance(self, index: int, *, last: bool) -> list[ChatCompletionChunk]:
        """Checks the window of a choice; returns what may leave."""
        windows = self._windows[index]
        if index in self._refused or windows.is_empty:
            return []
        if windows.has_media and self._checks.refuse_media():
            return self._refuse(index, not_text(self._name))
        places, units = windows.units()
        if self._extra:
            units.append(_unknown_fields(self._extra))
        decision = await self._checks.check(units, index, last=last)
        if isinstance(decision, Refusal):
            self._extra = ""
            return self._refuse(index, decision)
        found = decision.spans if isinstance(decision, Redaction) else {}
        spans: Spans = {places[number]: some for number, some in found.items() if number < len(places)}
        others = self._release_extra(is_kept=len(places) not in found)
        released = windows.release(spans, last=last)
        if windows.has_replaced:
            self._checks.mark_redacted()
        return [*others, *_chunks(released)]

    def _release_extra(self, *, is_kept: bool) -> list[ChatCompletionChunk]:
        """Returns a chunk with the unknown fields that have been checked, if they are kept."""
        extra, self._extra = self._extra, ""
        if not is_kept:
            self._checks.mark_redacted()
        return [ChatCompletionChunk(extra_json=extra)] if extra and is_kept else []

    def _refuse(self, index: int, refusal: Refusal) -> list[ChatCompletionChunk]:
        self._refused.add(index)
        self._windows[index].clear()
        return _chunks(refusal_chunks(index, self._name, refusal))


def _unknown_fields(extra_json: str) -> Unit:
    return Unit(kind=KIND_OTHER, text=extra_json, role="assistant")


def _chunks(choices: Sequence[ChunkChoice]) -> list[ChatCompletionChunk]:
    return [ChatCompletionChunk(choices=[choice]) for choice in choices]
