"""One stream made of the streams of several attempts: what the caller gets of each, and what all of them cost."""

from collections.abc import Sequence

from parley.core.errors import ParleyError
from parley.core.streaming.prefix import Delivered, Resume, Splice, begun
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptRecord, Outcome
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest


class Joint:
    """The stream that answers `request`. `broken` is the error with which it broke off at first.

    Args:
        attempts: All attempts of the call, to which later ones are added while the stream lasts.
        request: What is asked.
    """

    def __init__(self, attempts: Sequence[AttemptRecord], request: CreateChatCompletionRequest) -> None:
        self._n = request.n or 1
        self.delivered = Delivered(self._n)
        self.broken: ParleyError | None = None
        self._attempts = attempts
        self._filter: Splice | Resume | None = None
        self._size = 0  # bytes of text that the present attempt has said, delivered or not

    def goes_on_with(self, attempt: AttemptRecord) -> None:
        """Joins another attempt to what was delivered."""
        self._size = 0
        if attempt.resumes:
            self._filter = Resume(self.delivered, begun(attempt.call.request, self.delivered))
        else:
            self._filter = Splice(self.delivered)

    def begins_anew(self) -> None:
        """Forgets what was delivered: another attempt gives the whole answer."""
        self._size, self._filter = 0, None
        self.delivered = Delivered(self._n)

    def new(self, attempt: AttemptRecord, chunk: ChatCompletionChunk) -> Sequence[ChatCompletionChunk]:
        """Returns what the caller gets of an attempt's chunk. Raises Misfit."""
        if chunk.HasField("usage"):
            self._count(attempt, chunk)
        if self._filter is None:
            self.delivered.add(chunk)
            return (chunk,)
        self._size += sum(usage_cost.size(choice.delta) for choice in chunk.choices)
        return self._deliver(self._filter.new(chunk))

    def end(self) -> Sequence[ChatCompletionChunk]:
        """Returns what was held back at the end of the present attempt."""
        return self._deliver(self._filter.end()) if self._filter else ()

    def settle(self, attempt: AttemptRecord) -> None:
        """Estimates what an attempt cost that said something, but broke off, or whose target did not report it."""
        is_whole = attempt.outcome is Outcome.COMPLETED
        if attempt.first_token is None or (is_whole and usage_cost.is_complete(attempt.usage)):
            return
        prompt, size = attempt.call.request.messages, self._size if self._filter else self.delivered.size
        made = usage_cost.completed(attempt.usage, prompt, size)
        if not is_whole:
            made.completion_tokens = max(made.completion_tokens, usage_cost.estimate((), size).completion_tokens)
        attempt.usage, attempt.estimated = usage_cost.counted(made), True

    def bill(self) -> ChatCompletionChunk:
        """Returns a chunk with what all attempts cost."""
        used = usage_cost.total(attempt.usage for attempt in self._attempts if attempt.usage is not None)
        return ChatCompletionChunk(usage=used)

    def _deliver(self, chunks: Sequence[ChatCompletionChunk]) -> Sequence[ChatCompletionChunk]:
        for chunk in chunks:
            self.delivered.add(chunk)
        return chunks

    def _count(self, attempt: AttemptRecord, chunk: ChatCompletionChunk) -> None:
        """Keeps what the attempt has cost; the caller reads what all have cost together."""
        attempt.usage = type(chunk.usage)()
        attempt.usage.CopyFrom(chunk.usage)
        if len(self._attempts) > 1:
            chunk.usage.CopyFrom(self.bill().usage)
