"""Going on with a stream that has broken off: what was delivered, what is asked next, and what of it is new.

Another target is asked to go on from the text that the caller has got. Where it cannot, it is asked from the beginning,
and what it repeats of that text is left out. Nothing else can be joined: an answer with tool calls, a refusal or sound
in it is not gone on with.
"""

from collections.abc import Sequence
from itertools import takewhile

from google.protobuf.struct_pb2 import Value

from parley.core.usage.tokens import estimate_full_tokens, output_size
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import ChunkChoice, Delta, Logprobs, Message

_MAX_BYTES = 1024 * 1024  # bytes of text: of more nothing is kept, and it is not gone on with
_MIN_ECHO = 16  # characters: a target that begins with so many of those delivered repeats them, and does not go on
_TEXT_FIELDS = 2  # fields of a choice that is more text and nothing else: its index and its delta
_CONTINUABLE = frozenset({"role", "content", "reasoning_content", "extra_json"})


class PrefixMismatch(Exception):
    """An answer does not begin with what was delivered."""


class DeliveredText:
    """What a caller has got of a streamed answer of `n` choices."""

    def __init__(self, n: int) -> None:
        self.tokens = 0  # as far as their probabilities came along
        self._n = n
        self._texts: dict[int, list[str]] = {}
        self._finished: set[int] = set()
        self.size = 0  # in bytes of text, of every kind
        self._continuable = True

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Takes in what is delivered."""
        for choice in chunk.choices:
            delta = choice.delta
            text = delta.content
            if text:
                self.size += len(text) if text.isascii() else len(text.encode())
                if self.size <= _MAX_BYTES:
                    self._texts.setdefault(choice.index, []).append(text)
            if not text or len(delta.ListFields()) > 1 or len(choice.ListFields()) > _TEXT_FIELDS:
                self._add_other(choice)

    def _add_other(self, choice: ChunkChoice) -> None:
        self.size += output_size(choice.delta) - len(choice.delta.content.encode())
        for field, _ in choice.delta.ListFields():
            self._continuable = self._continuable and field.name in _CONTINUABLE
        if choice.HasField("finish_reason"):
            self._finished.add(choice.index)
        self.tokens += len(choice.logprobs.content)

    @property
    def is_complete(self) -> bool:
        """Tells whether every choice was finished."""
        return len(self._finished) >= self._n

    @property
    def is_continuable(self) -> bool:
        """Tells whether the answer can be gone on with at all."""
        return self._continuable and self.size <= _MAX_BYTES

    def can_prefill(self, request: CreateChatCompletionRequest) -> bool:
        """Tells whether a target can be asked to go on: with one answer of free text, of which there is something.

        A grammar of JSON begins anew with each request.
        """
        is_free = request.response_format.type in {"", "text"}
        return self._n == 1 and is_free and bool(self.text(0).strip())

    def text(self, index: int) -> str:
        """Returns what was said of a choice."""
        parts = self._texts.get(index, [])
        if len(parts) > 1:
            parts[:] = ["".join(parts)]
        return parts[0] if parts else ""

    def texts(self) -> list[str]:
        """Returns what was said of every choice."""
        return [self.text(index) for index in self._texts]

    def is_finished(self, index: int) -> bool:
        """Tells whether a choice was finished."""
        return index in self._finished


def append_prefill(request: CreateChatCompletionRequest, delivered: DeliveredText) -> None:
    """Adds what was delivered to the conversation, as the beginning of the answer, and asks for the rest of it."""
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
    """Returns the beginning of the answer as a target is given it: without the space at its end.

    Models write a space and the word after it as one token, and servers refuse or cut a space at the end. Where the
    caller wants the probabilities of tokens, the text must stay as they have it.
    """
    text = delivered.text(0)
    return text if request.logprobs else text.rstrip()


class SkipPrefix:
    """Leaves out of an answer from the beginning what was delivered already."""

    def __init__(self, delivered: DeliveredText) -> None:
        self._delivered = delivered
        self._repeated: dict[int, str] = {}  # what each choice repeats
        self._positions: dict[int, int] = {}  # how much of it has come
        self._bytes: dict[int, int] = {}  # of the tokens whose probabilities are left out

    def add(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns what is new of a chunk. Raises PrefixMismatch."""
        for choice in chunk.choices:
            if self._delivered.is_finished(choice.index):
                choice.ClearField("delta")
                choice.ClearField("logprobs")
                choice.ClearField("finish_reason")
            else:
                self._strip(choice)
        return (chunk,)

    def flush(self) -> Sequence[ChatCompletionChunk]:
        """Returns what was held back at the end of the answer: nothing."""
        return ()

    def _strip(self, choice: ChunkChoice) -> None:
        choice.delta.ClearField("reasoning_content")
        choice.delta.ClearField("extra_json")
        if choice.index not in self._positions:  # later on what is delivered grows, and looking at all of it costs
            text = self._delivered.text(choice.index)
            self._repeated[choice.index], self._positions[choice.index] = text, 0
            self._bytes[choice.index] = len(text.encode())
        self._strip_tokens(choice)
        text, position = self._repeated[choice.index], self._positions[choice.index]
        remaining = len(text) - position
        if not remaining:
            return
        part = choice.delta.content[:remaining]
        fits = text.startswith(part, position)
        self._positions[choice.index] = position + len(part)
        is_over = choice.HasField("finish_reason") or choice.delta.tool_calls
        if not fits or (is_over and len(part) < remaining):
            raise PrefixMismatch
        choice.delta.content = choice.delta.content[remaining:]

    def _strip_tokens(self, choice: ChunkChoice) -> None:
        """Leaves out the tokens that make up the text delivered.

        Raises PrefixMismatch where one of them goes beyond it.
        """
        rest = self._bytes[choice.index]
        while rest and choice.logprobs.content:
            token = choice.logprobs.content.pop(0)
            rest -= len(token.bytes) or len(token.token.encode())
            if rest < 0:
                raise PrefixMismatch
        if not choice.logprobs.ListFields():
            choice.ClearField("logprobs")
        self._bytes[choice.index] = rest


class Continue:
    """Joins an answer that goes on from `prefill` to what was delivered.

    The space that `prefill` left out is expected again, and is not delivered twice. A target that repeats all that it
    was given, in place of going on, is taken for one that answers from the beginning. Text that may be such a
    repetition is held back, and takes no memory: it is the beginning of `prefill`. All else is delivered at once.
    """

    def __init__(self, delivered: DeliveredText, prefill: str) -> None:
        self._skip_prefix: SkipPrefix | None = None
        self._delivered = delivered
        self._buffering = len(prefill) >= _MIN_ECHO
        self._position = 0  # how much of `prefill` is held back
        self._tokens = Logprobs()  # of what is held back
        self._prefill = prefill
        self._trailing_space = delivered.text(0)[len(prefill) :]

    def add(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns what is new of a chunk, and what was held back before it. Raises PrefixMismatch."""
        if self._skip_prefix is not None:
            return self._skip_prefix.add(chunk)
        if not self._buffering:
            return self._without_space([chunk])
        remaining = len(self._prefill) - self._position
        text = "".join(choice.delta.content for choice in chunk.choices)
        fits = self._prefill.startswith(text[:remaining], self._position)
        if fits and len(text) >= remaining:
            skip_prefix = self._skip_prefix = SkipPrefix(self._delivered)
            return [new for one in (*self._flush_buffer(), chunk) for new in skip_prefix.add(one)]
        if not fits or any(choice.HasField("finish_reason") or choice.delta.tool_calls for choice in chunk.choices):
            return self._without_space([*self._flush_buffer(), chunk])
        self._position += len(text)
        for choice in chunk.choices:
            self._tokens.MergeFrom(choice.logprobs)
            choice.ClearField("logprobs")
            choice.delta.ClearField("content")
        return self._without_space([chunk])

    def flush(self) -> Sequence[ChatCompletionChunk]:
        """Returns what was held back at the end of the answer."""
        return self._without_space(self._flush_buffer())

    def _flush_buffer(self) -> list[ChatCompletionChunk]:
        """Returns what is held back, and holds nothing back any more."""
        buffered, self._position, self._buffering = self._prefill[: self._position], 0, False
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
                cut = _common_prefix(text, self._trailing_space)
                choice.delta.content = text[cut:]
                self._trailing_space = self._trailing_space[cut:] if cut == len(text) else ""
        return chunks


def _common_prefix(one: str, other: str) -> int:
    """Returns how many characters two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
