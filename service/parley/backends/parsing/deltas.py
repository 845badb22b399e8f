"""The outgoing deltas of one choice of a streamed answer, in order of arrival, each of one kind."""

from collections.abc import Mapping
from typing import Any

from parley.backends.lenient_json import repair_surrogates
from parley.backends.parsing.prefix_stripper import PrefixStripper, new_tokens
from parley.core.messages import extra_fields
from parley.core.streaming.accumulator import merge_logprobs
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, Logprobs, ToolCallDelta

CONTENT, REASONING, REFUSAL = "content", "reasoning_content", "refusal"


class DeltaBuffer:
    """Buffers the deltas of one choice until `drain`.

    Adjacent text of one kind becomes one delta, so that what arrives together is sent together. It keeps no delta that
    was drained: CompletionAccumulator accumulates answers.

    Args:
        index: The index of the choice.
        stripper: Removes a repeated prefill from the beginning of the content.

    Attributes:
        is_repaired: Whether texts may end in a part of a character; see `lenient_json`.
    """

    __slots__ = ("_buffered", "_closed", "_extra", "_index", "_kind", "_logprobs", "_stripper", "_texts", "is_repaired")

    def __init__(self, index: int, stripper: PrefixStripper | None = None) -> None:
        self.is_repaired = False
        self._index = index
        self._stripper = stripper
        self._kind = CONTENT  # of the open text
        self._texts: list[str] = []
        self._buffered = ""
        self._logprobs: list[Logprobs] | None = None  # few streams need these, which are kept as long as it lasts
        self._closed: ChatCompletionChunk | None = None
        self._extra: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is buffered and no prefill is removed, so that further text would leave as it is."""
        return not (self._stripper or self._texts or self._buffered or self._logprobs or self._closed or self._extra)

    def add_text(self, kind: str, text: str) -> None:
        """Appends text of a kind, which is the name of a field of Delta."""
        if kind is not self._kind:
            self._close(end=True)
            self._kind = kind
        self._texts.append(text)

    def add_logprobs(self, logprobs: Logprobs) -> None:
        """Appends the probabilities of the tokens of the latest text."""
        if self._logprobs is None:
            self._logprobs = []
        self._logprobs.append(logprobs)

    def add_delta(self, delta: Delta) -> None:
        """Appends a delta that is no text."""
        self._close(end=True)
        self._add().delta.CopyFrom(delta)

    def add_tool_call(self, fragment: ToolCallDelta) -> None:
        """Appends a fragment of a tool call; further arguments of the previous fragment's call are joined to it."""
        self._close(end=True)
        previous = self._closed.choices[-1].delta.tool_calls if self._closed else ()
        if previous and previous[0].index == fragment.index and not fragment.id and not _has_extra(fragment):
            previous[0].function.arguments += fragment.function.arguments
        else:
            self.add_delta(Delta(tool_calls=[fragment]))

    def separate(self) -> int:
        """Ends the open text before a delta with unknown fields. Returns a mark for `add_unknown`."""
        self._close(end=False)
        return self._count

    def add_unknown(self, fields: Mapping[str, Any], mark: int) -> None:
        """Adds unknown fields to the latest delta since the mark, or as a separate delta."""
        self._close(end=False)
        latest = self._closed.choices[-1] if self._closed and self._count > mark else self._add()
        delta = latest.delta
        delta.extra_json = extra_fields.merge_text(delta.extra_json, extra_fields.dumps(fields))

    def add_unknown_of_choice(self, fields: Mapping[str, Any]) -> None:
        """Adds unknown fields of the choice, which are sent with the next delta."""
        self._extra = self._extra or {}
        extra_fields.merge(self._extra, fields)

    def drain(self) -> ChatCompletionChunk:
        """Returns a chunk with the deltas since the previous call."""
        if self._texts or self._logprobs:
            self._close(end=False)
        chunk, self._closed = self._closed or ChatCompletionChunk(), None
        if self._extra and chunk.choices:
            chunk.choices[-1].extra_json = extra_fields.dumps(self._extra)
            self._extra = None
        return chunk

    def finish(self, reason: str) -> None:
        """Appends the finish reason, after all buffered text."""
        self._close(end=True)
        if self._logprobs:
            self._stripper = None
            self._close_text("")
        last = self._add()
        last.delta.SetInParent()
        last.finish_reason = reason

    @property
    def _count(self) -> int:
        """The number of closed deltas."""
        return len(self._closed.choices) if self._closed else 0

    def _add(self) -> ChunkChoice:
        """Appends an empty delta to the closed ones."""
        if self._closed is None:
            self._closed = ChatCompletionChunk()
        return self._closed.choices.add(index=self._index)

    def _close(self, *, end: bool) -> None:
        """Ends the open text. With `end` no more text of its kind follows, so that buffered parts are flushed too."""
        if not (self._texts or self._logprobs or self._buffered or self._stripper):
            return
        text = "".join(self._texts)
        self._texts.clear()
        if self.is_repaired:
            text, self._buffered = repair_surrogates(self._buffered + text)
            if end and self._buffered:
                text, self._buffered = text + "\ufffd", ""
        if self._stripper is not None and self._kind is CONTENT:
            text = self._stripper.strip(text) + (self._stripper.flush() if end and self._stripper.has_buffered else "")
        if self._logprobs:
            self._close_text(text)
        elif text:
            setattr(self._add().delta, self._kind, text)

    def _close_text(self, text: str) -> None:
        has_logprobs = self._logprobs and not (self._stripper and self._stripper.may_repeat)
        if not (text or has_logprobs):
            return
        choice = self._add()
        if text:
            setattr(choice.delta, self._kind, text)
        if has_logprobs:
            choice.logprobs.CopyFrom(self._joined_logprobs())
            choice.delta.SetInParent()

    def _joined_logprobs(self) -> Logprobs:
        joined = Logprobs()
        for logprobs in self._logprobs or ():
            merge_logprobs(joined, logprobs)
        self._logprobs = None
        if self._stripper and self._stripper.repeated:
            content = list(new_tokens(joined.content, self._stripper.repeated))
            del joined.content[:]
            joined.content.extend(content)
            self._stripper.repeated = ""
        return joined


def _has_extra(fragment: ToolCallDelta) -> bool:
    function = fragment.custom if fragment.HasField("custom") else fragment.function
    return fragment.HasField("custom") or fragment.HasField("extra_json") or function.HasField("extra_json")
