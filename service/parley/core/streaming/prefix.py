"""Going on with a stream that has broken off: what was delivered, what is asked next, and what of it is new.

Another target is asked to go on from the text that the caller has got. Where it cannot, it is asked from the beginning,
and what it repeats of that text is left out. Nothing else can be joined: an answer with tool calls, a refusal or sound
in it is not gone on with.
"""

from collections.abc import Sequence
from itertools import takewhile

from google.protobuf.struct_pb2 import Value

from parley.core.usage import cost as usage_cost
from parley.core.usage.tokens import BYTES_A_TOKEN
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import ChunkChoice, Delta, Logprobs, Message

_LARGEST = 1024 * 1024  # bytes of text: of more nothing is kept, and it is not gone on with
_ECHO = 16  # characters: a target that begins with so many of those delivered repeats them, and does not go on
_PLAIN = 2  # fields of a choice that is more text and nothing else: its index and its delta
_JOINABLE = frozenset({"role", "content", "reasoning_content", "extra_json"})


class Misfit(Exception):
    """An answer does not begin with what was delivered."""


class Delivered:
    """What a caller has got of a streamed answer of `n` choices."""

    def __init__(self, n: int) -> None:
        self.tokens = 0  # as far as their probabilities came along
        self._n = n
        self._texts: dict[int, list[str]] = {}
        self._finished: set[int] = set()
        self.size = 0  # in bytes of text, of every kind
        self._joinable = True

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Takes in what is delivered."""
        for choice in chunk.choices:
            delta = choice.delta
            text = delta.content
            if text:
                self.size += len(text) if text.isascii() else len(text.encode())
                if self.size <= _LARGEST:
                    self._texts.setdefault(choice.index, []).append(text)
            if not text or len(delta.ListFields()) > 1 or len(choice.ListFields()) > _PLAIN:
                self._add_rest(choice)

    def _add_rest(self, choice: ChunkChoice) -> None:
        self.size += usage_cost.size(choice.delta) - len(choice.delta.content.encode())
        for field, _ in choice.delta.ListFields():
            self._joinable = self._joinable and field.name in _JOINABLE
        if choice.HasField("finish_reason"):
            self._finished.add(choice.index)
        self.tokens += len(choice.logprobs.content)

    @property
    def is_whole(self) -> bool:
        """Tells whether every choice was finished."""
        return len(self._finished) >= self._n

    @property
    def is_joinable(self) -> bool:
        """Tells whether the answer can be gone on with at all."""
        return self._joinable and self.size <= _LARGEST

    def may_prefill(self, request: CreateChatCompletionRequest) -> bool:
        """Tells whether a target can be asked to go on: with one answer of free text, of which there is something.

        A grammar of JSON begins anew with each request.
        """
        is_free = request.response_format.type in {"", "text"}
        return self._n == 1 and is_free and bool(self.text(0).strip())

    def text(self, index: int) -> str:
        """Returns what was said of a choice."""
        pieces = self._texts.get(index, [])
        if len(pieces) > 1:
            pieces[:] = ["".join(pieces)]
        return pieces[0] if pieces else ""

    def texts(self) -> list[str]:
        """Returns what was said of every choice."""
        return [self.text(index) for index in self._texts]

    def is_finished(self, index: int) -> bool:
        """Tells whether a choice was finished."""
        return index in self._finished


def go_on(request: CreateChatCompletionRequest, delivered: Delivered) -> None:
    """Adds what was delivered to the conversation, as the beginning of the answer, and asks for the rest of it."""
    text = begun(request, delivered)
    last = request.messages[-1] if request.messages else None
    if request.continue_final_message and last is not None:
        last.content.string_value += text
    else:
        request.messages.append(Message(role="assistant", content=Value(string_value=text)))
    spent = delivered.tokens or len(text.encode()) // BYTES_A_TOKEN
    for name in ("max_tokens", "max_completion_tokens"):
        if request.HasField(name):
            setattr(request, name, max(1, getattr(request, name) - spent))


def begun(request: CreateChatCompletionRequest, delivered: Delivered) -> str:
    """Returns the beginning of the answer as a target is given it: without the space at its end.

    Models write a space and the word after it as one token, and servers refuse or cut a space at the end. Where the
    caller wants the probabilities of tokens, the text must stay as they have it.
    """
    text = delivered.text(0)
    return text if request.logprobs else text.rstrip()


class Splice:
    """Leaves out of an answer from the beginning what was delivered already."""

    def __init__(self, delivered: Delivered) -> None:
        self._delivered = delivered
        self._repeated: dict[int, str] = {}  # what each choice repeats
        self._place: dict[int, int] = {}  # how much of it has come
        self._bytes: dict[int, int] = {}  # of the tokens whose probabilities are left out

    def new(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns what is new of a chunk. Raises Misfit."""
        for choice in chunk.choices:
            if self._delivered.is_finished(choice.index):
                choice.ClearField("delta")
                choice.ClearField("logprobs")
                choice.ClearField("finish_reason")
            else:
                self._cut(choice)
        return (chunk,)

    def end(self) -> Sequence[ChatCompletionChunk]:
        """Returns what was held back at the end of the answer: nothing."""
        return ()

    def _cut(self, choice: ChunkChoice) -> None:
        choice.delta.ClearField("reasoning_content")
        choice.delta.ClearField("extra_json")
        if choice.index not in self._place:  # later on what is delivered grows, and looking at all of it costs
            text = self._delivered.text(choice.index)
            self._repeated[choice.index], self._place[choice.index] = text, 0
            self._bytes[choice.index] = len(text.encode())
        self._cut_tokens(choice)
        text, place = self._repeated[choice.index], self._place[choice.index]
        left = len(text) - place
        if not left:
            return
        piece = choice.delta.content[:left]
        fits = text.startswith(piece, place)
        self._place[choice.index] = place + len(piece)
        is_over = choice.HasField("finish_reason") or choice.delta.tool_calls
        if not fits or (is_over and len(piece) < left):
            raise Misfit
        choice.delta.content = choice.delta.content[left:]

    def _cut_tokens(self, choice: ChunkChoice) -> None:
        """Leaves out the tokens that make up the text delivered. Raises Misfit where one of them goes beyond it."""
        rest = self._bytes[choice.index]
        while rest and choice.logprobs.content:
            token = choice.logprobs.content.pop(0)
            rest -= len(token.bytes) or len(token.token.encode())
            if rest < 0:
                raise Misfit
        if not choice.logprobs.ListFields():
            choice.ClearField("logprobs")
        self._bytes[choice.index] = rest


class Resume:
    """Joins an answer that goes on from `begun` to what was delivered.

    The space that `begun` left out is expected again, and is not delivered twice. A target that repeats all that it was
    given, in place of going on, is taken for one that answers from the beginning. Text that may be such a repetition is
    held back, and takes no memory: it is the beginning of `begun`. All else is delivered at once.
    """

    def __init__(self, delivered: Delivered, begun: str) -> None:
        self._splice: Splice | None = None
        self._delivered = delivered
        self._holds = len(begun) >= _ECHO
        self._place = 0  # how much of `begun` is held back
        self._tokens = Logprobs()  # of what is held back
        self._begun = begun
        self._space = delivered.text(0)[len(begun) :]

    def new(self, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns what is new of a chunk, and what was held back before it. Raises Misfit."""
        if self._splice is not None:
            return self._splice.new(chunk)
        if not self._holds:
            return self._joined([chunk])
        left = len(self._begun) - self._place
        text = "".join(choice.delta.content for choice in chunk.choices)
        fits = self._begun.startswith(text[:left], self._place)
        if fits and len(text) >= left:
            splice = self._splice = Splice(self._delivered)
            return [new for one in (*self._release(), chunk) for new in splice.new(one)]
        if not fits or any(choice.HasField("finish_reason") or choice.delta.tool_calls for choice in chunk.choices):
            return self._joined([*self._release(), chunk])
        self._place += len(text)
        for choice in chunk.choices:
            self._tokens.MergeFrom(choice.logprobs)
            choice.ClearField("logprobs")
            choice.delta.ClearField("content")
        return self._joined([chunk])

    def end(self) -> Sequence[ChatCompletionChunk]:
        """Returns what was held back at the end of the answer."""
        return self._joined(self._release())

    def _release(self) -> list[ChatCompletionChunk]:
        """Returns what is held back, and holds nothing back any more."""
        held, self._place, self._holds = self._begun[: self._place], 0, False
        if not held:
            return []
        tokens = self._tokens if self._tokens.ListFields() else None
        return [ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta(content=held), logprobs=tokens)])]

    def _joined(self, chunks: list[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            choice.delta.ClearField("reasoning_content")
            choice.delta.ClearField("extra_json")
            text = choice.delta.content
            if self._space and text:
                cut = _alike(text, self._space)
                choice.delta.content = text[cut:]
                self._space = self._space[cut:] if cut == len(text) else ""
        return chunks


def _alike(one: str, other: str) -> int:
    """Returns how many characters two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
