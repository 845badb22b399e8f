"""Continuation of a broken stream: the delivered text, the next request, and the part of its answer that is new.

The next target continues the delivered text as a prefill (`Continue`). If it rejects prefill, it gets the original
request, and the delivered text is removed from the beginning of its answer (`SkipPrefix`). An answer with tool calls, a
refusal or audio is never continued.

Reasoning is never continued: the reasoning of later attempts is removed. If only reasoning was delivered, the next
target answers from the beginning, and there is no prefix to skip.
"""

from collections.abc import Sequence
from itertools import takewhile

from google.protobuf.struct_pb2 import Value

from parley.core.ports.plain_text import PlainText
from parley.core.streaming.prefix_matcher import PrefixMatcher
from parley.core.usage.tokens import estimate_full_tokens, output_size
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import ChunkChoice, Delta, Logprobs, Message

_MAX_BYTES = 1024 * 1024  # of delivered text that is kept; a longer answer cannot be continued
_MIN_REPETITION = 16  # characters; an answer that begins with a shorter prefill may repeat a word by chance
_TEXT_FIELDS = 2  # fields of a choice that has text only: its index and its delta
_NONE: frozenset[int] = frozenset()
_CONTINUABLE = frozenset({"role", "content", "reasoning_content", "extra_json"})


class PrefixMismatch(Exception):
    """An answer does not begin with the delivered text."""


class DeliveredText:
    """The text of a streamed answer that the caller has received.

    It keeps text only, up to 1 MiB: CompletionAccumulator keeps every field, for sessions, and is too costly for calls
    that are not stored.

    Attributes:
        tokens: The number of tokens whose probabilities were delivered.
        size: The delivered output in bytes, of every kind.
    """

    __slots__ = ("_continuable", "_finished", "_n", "_texts", "size", "tokens")

    def __init__(self, n: int) -> None:
        self.tokens = 0
        self.size = 0
        self._n = n
        self._texts: dict[int, list[str]] = {}
        self._finished = _NONE
        self._continuable = True

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Adds a chunk that the caller receives."""
        for choice in chunk.choices:
            delta = choice.delta
            text = delta.content
            if text:
                self.add_text(text, choice.index)
            if not text or len(delta.ListFields()) > 1 or len(choice.ListFields()) > _TEXT_FIELDS:
                self._add_other(choice)

    def add_plain_text(self, text: PlainText) -> None:
        """Adds plain text that the caller receives."""
        self.size += text.size
        if text.kind == "content" and self.size <= _MAX_BYTES:
            self._texts.setdefault(0, []).append(text.text)

    def add_text(self, text: str, index: int) -> None:
        """Adds text of a choice."""
        self.size += len(text) if text.isascii() else len(text.encode())
        if self.size <= _MAX_BYTES:
            self._texts.setdefault(index, []).append(text)

    def _add_other(self, choice: ChunkChoice) -> None:
        fields = choice.delta.ListFields()
        if fields:
            self.size += output_size(choice.delta) - len(choice.delta.content.encode())
        for field, _ in fields:
            self._continuable = self._continuable and field.name in _CONTINUABLE
        if choice.HasField("finish_reason"):
            self._finished |= {choice.index}
        self.tokens += len(choice.logprobs.content)

    @property
    def is_complete(self) -> bool:
        """Whether every choice has a finish reason."""
        return len(self._finished) >= self._n

    @property
    def is_continuable(self) -> bool:
        """Whether another target may continue the answer at all, from a prefill or from the beginning."""
        return self._continuable and self.size <= _MAX_BYTES

    def usable_as_prefill(self, request: CreateChatCompletionRequest) -> bool:
        """Reports whether the delivered text can be sent as a prefill of this request.

        Requires a single choice of free text that has begun: a JSON grammar restarts with each request.
        """
        is_free = request.response_format.type in {"", "text"}
        return self._n == 1 and is_free and bool(self.text(0).strip())

    def text(self, index: int) -> str:
        """Returns the delivered text of a choice."""
        parts = self._texts.get(index, [])
        if len(parts) > 1:
            parts[:] = ["".join(parts)]
        return parts[0] if parts else ""

    def unfinished(self) -> list[int]:
        """Returns the indexes of the choices that have text and no finish reason."""
        return [index for index in self._texts if index not in self._finished]

    def is_finished(self, index: int) -> bool:
        """Reports whether a choice has a finish reason."""
        return index in self._finished


def append_prefill(request: CreateChatCompletionRequest, delivered: DeliveredText) -> None:
    """Appends the delivered text to the conversation as the beginning of the answer, and lowers the token limits."""
    text = prefill_text(request, delivered)
    last = request.messages[-1] if request.messages else None
    if request.continue_final_message and last is not None:
        last.content.string_value += text
    else:
        request.messages.append(Message(role="assistant", content=Value(string_value=text)))
    used = delivered.tokens or estimate_full_tokens(len(text.encode()))
    for name in ("max_tokens", "max_completion_tokens"):
        if request.HasField(name):
            setattr(request, name, max(1, getattr(request, name) - used))


def prefill_text(request: CreateChatCompletionRequest, delivered: DeliveredText) -> str:
    """Returns the delivered text as a prefill, without trailing white space.

    A model generates a space and the word after it as one token, and servers reject or remove a trailing space. With
    `logprobs` the text stays exactly as tokenized.
    """
    text = delivered.text(0)
    return text if request.logprobs else text.rstrip()


class SkipPrefix:
    """Removes the delivered text from an answer that starts from the beginning.

    It requires the repetition, and removes it piece by piece without buffering. `backends/parsing/prefix_stripper`
    returns an answer unchanged if it does not repeat its prefix.
    """

    def __init__(self, delivered: DeliveredText) -> None:
        self._delivered = delivered
        self._matchers: dict[int, PrefixMatcher] = {}  # by the index of the choice
        self._token_bytes: dict[int, int] = {}  # bytes of tokens still to be removed from the probabilities

    def add(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns the part of a chunk that is new. Raises PrefixMismatch."""
        for choice in chunk.choices:
            if self._delivered.is_finished(choice.index):
                choice.ClearField("delta")
                choice.ClearField("logprobs")
                choice.ClearField("finish_reason")
            else:
                self._strip(choice)
        return (chunk,)

    def flush(self) -> Sequence[ChatCompletionChunk]:
        """Ends the answer. Returns nothing, as no text is buffered.

        Raises:
            PrefixMismatch: The answer ended before it repeated all of the delivered text.
        """
        for index in self._delivered.unfinished():
            if index not in self._matchers or self._matchers[index].remaining:
                raise PrefixMismatch
        return ()

    def _strip(self, choice: ChunkChoice) -> None:
        choice.delta.ClearField("reasoning_content")
        choice.delta.ClearField("extra_json")
        if choice.index not in self._matchers:  # read once: the delivered text grows with the new part
            text = self._delivered.text(choice.index)
            self._matchers[choice.index] = PrefixMatcher(text)
            self._token_bytes[choice.index] = len(text.encode())
        self._strip_tokens(choice)
        matcher = self._matchers[choice.index]
        remaining = matcher.remaining
        if not remaining:
            return
        text = choice.delta.content
        is_match = matcher.matches(text)
        matcher.advance(text)
        is_end = choice.HasField("finish_reason") or choice.delta.tool_calls
        if not is_match or (is_end and matcher.remaining):
            raise PrefixMismatch
        choice.delta.content = text[remaining:]

    def _strip_tokens(self, choice: ChunkChoice) -> None:
        """Removes the probabilities of the tokens that make up the delivered text.

        Raises:
            PrefixMismatch: A token extends beyond the delivered text.
        """
        rest = self._token_bytes[choice.index]
        while rest and choice.logprobs.content:
            token = choice.logprobs.content.pop(0)
            rest -= len(token.bytes) or len(token.token.encode())
            if rest < 0:
                raise PrefixMismatch
        if not choice.logprobs.ListFields():
            choice.ClearField("logprobs")
        self._token_bytes[choice.index] = rest


class Continue:
    """Joins an answer that continues `prefill` to the delivered text.

    White space that `prefill` omits is not delivered twice if the answer repeats it. An answer that repeats all of
    `prefill` is handled by SkipPrefix. Text that may be such a repetition is buffered, at no cost in memory, as it is
    the beginning of `prefill`. All other text is delivered at once.
    """

    def __init__(self, delivered: DeliveredText, prefill: str) -> None:
        self._skip_prefix: SkipPrefix | None = None
        self._delivered = delivered
        self._matcher = PrefixMatcher(prefill) if len(prefill) >= _MIN_REPETITION else None
        self._tokens = Logprobs()  # of the buffered text
        self._trailing_space = delivered.text(0)[len(prefill) :]

    def add(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns the buffered text, if it is no repetition, and the part of a chunk that is new.

        Raises:
            PrefixMismatch: The answer repeats `prefill`, but not the delivered text.
        """
        if self._skip_prefix is not None:
            return self._skip_prefix.add(chunk)
        matcher = self._matcher
        if matcher is None:
            return self._without_space([chunk])
        text = "".join(choice.delta.content for choice in chunk.choices)
        is_match = matcher.matches(text)
        if is_match and len(text) >= matcher.remaining:
            skip_prefix = self._skip_prefix = SkipPrefix(self._delivered)
            return [new for one in (*self._flush_buffer(), chunk) for new in skip_prefix.add(one)]
        if not is_match or any(choice.HasField("finish_reason") or choice.delta.tool_calls for choice in chunk.choices):
            return self._without_space([*self._flush_buffer(), chunk])
        matcher.advance(text)
        for choice in chunk.choices:
            self._tokens.MergeFrom(choice.logprobs)
            choice.ClearField("logprobs")
            choice.delta.ClearField("content")
        return self._without_space([chunk])

    def flush(self) -> Sequence[ChatCompletionChunk]:
        """Returns the buffered text at the end of the answer. Raises PrefixMismatch as `add` does."""
        if self._skip_prefix is not None:
            return self._skip_prefix.flush()
        return self._without_space(self._flush_buffer())

    def _flush_buffer(self) -> list[ChatCompletionChunk]:
        """Returns the buffered text, and stops buffering."""
        buffered = self._matcher.matched if self._matcher else ""
        self._matcher = None
        if not buffered:
            return []
        tokens = self._tokens if self._tokens.ListFields() else None
        return [ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta(content=buffered), logprobs=tokens)])]

    def _without_space(self, chunks: list[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            choice.delta.ClearField("reasoning_content")
            choice.delta.ClearField("extra_json")
            text = choice.delta.content
            if self._trailing_space and text:
                cut = _common_prefix_length(text, self._trailing_space)
                choice.delta.content = text[cut:]
                self._trailing_space = self._trailing_space[cut:] if cut == len(text) else ""
        return chunks


def _common_prefix_length(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
