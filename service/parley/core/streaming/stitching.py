"""One stream for the caller, stitched from the streams of several attempts, with their total usage."""

from collections.abc import Sequence

from parley.core.errors import ParleyError
from parley.core.messages.text_completion import write_usage
from parley.core.ports.plain_text import Batch, PlainText, StreamPart
from parley.core.streaming.plain_text import as_chunk, plain_text
from parley.core.streaming.prefix import Continue, DeliveredText, SkipPrefix, prefill_text
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord
from parley.core.usage.tokens import output_size
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Usage


class StitchedStream:
    """The stream that the caller receives.

    Args:
        attempts: All attempts of the call; the retry state appends later ones.
        request: The request of the first attempt, which sets the number of choices.

    Attributes:
        delivered: The text that the caller has received.
        error: The first error that interrupted the stream.
    """

    __slots__ = ("_attempt_size", "_attempts", "_joining", "_n", "delivered", "error")

    def __init__(self, attempts: Sequence[AttemptRecord], request: CreateChatCompletionRequest) -> None:
        self._n = request.n or 1
        self.delivered = DeliveredText(self._n)
        self.error: ParleyError | None = None
        self._attempts = attempts
        self._joining: SkipPrefix | Continue | None = None
        self._attempt_size = 0  # bytes of text from the current attempt, delivered or not

    def continue_with(self, attempt: AttemptRecord) -> None:
        """Joins another attempt to the delivered text."""
        self._attempt_size = 0
        if attempt.is_continuation:
            self._joining = Continue(self.delivered, prefill_text(attempt.call.request, self.delivered))
        else:
            self._joining = SkipPrefix(self.delivered)

    def restart(self) -> None:
        """Discards the delivered text, because another attempt answers from the beginning."""
        self._attempt_size, self._joining = 0, None
        self.delivered = DeliveredText(self._n)

    def add(self, attempt: AttemptRecord, part: StreamPart) -> Batch:
        """Returns what the caller receives for a part of an attempt's stream. Raises PrefixMismatch."""
        if self._joining is None:
            text = part if isinstance(part, PlainText) else plain_text(part)
            if text is not None:
                self.delivered.add_plain_text(text)
                return text
        chunk = as_chunk(part)
        if chunk.HasField("usage"):
            self._record_usage(attempt, chunk)
        if self._joining is None:
            self.delivered.add(chunk)
            return (chunk,)
        self._attempt_size += sum(output_size(choice.delta) for choice in chunk.choices)
        return self._deliver(self._joining.add(chunk))

    def flush(self) -> Sequence[ChatCompletionChunk]:
        """Returns the chunks that were buffered, at the end of the current attempt. Raises PrefixMismatch."""
        return self._deliver(self._joining.flush()) if self._joining else ()

    def estimate_usage(self, attempt: AttemptRecord) -> None:
        """Estimates the usage of an attempt that generated output but failed, or whose target did not report it."""
        is_complete = attempt.outcome is AttemptOutcome.COMPLETED
        if attempt.first_token is None or (is_complete and usage_cost.is_complete(attempt.usage)):
            return
        prompt, size = attempt.call.request.messages, self._attempt_size if self._joining else self.delivered.size
        usage = usage_cost.with_estimates(attempt.usage, prompt, size)
        if not is_complete:
            usage.completion_tokens = max(usage.completion_tokens, usage_cost.estimate((), size).completion_tokens)
        attempt.usage, attempt.estimated = usage_cost.with_total(usage), True

    def usage_chunk(self) -> ChatCompletionChunk:
        """Returns a chunk with the total usage of all attempts."""
        used = usage_cost.total([attempt.usage for attempt in self._attempts if attempt.usage is not None])
        chunk = ChatCompletionChunk()
        if used is not None:
            write_usage(chunk.usage, used)
        return chunk

    def _deliver(self, chunks: Sequence[ChatCompletionChunk]) -> Sequence[ChatCompletionChunk]:
        for chunk in chunks:
            self.delivered.add(chunk)
        return chunks

    def _record_usage(self, attempt: AttemptRecord, chunk: ChatCompletionChunk) -> None:
        """Records the usage of the attempt; the caller receives the total of all attempts."""
        attempt.usage = usage = Usage()
        usage.CopyFrom(chunk.usage)
        if len(self._attempts) > 1:
            chunk.usage.CopyFrom(self.usage_chunk().usage)
