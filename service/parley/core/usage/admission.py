"""The admission of one call: what is reserved for it, and what it has used."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from parley.core.errors import ParleyError
from parley.core.messages.text_completion import TextCompletion, TokenCounts
from parley.core.ports import Charge, Settlement
from parley.core.ports.limits import CONCURRENT, REQUESTS, TOKEN_KINDS
from parley.core.ports.plain_text import PlainText, StreamPart
from parley.core.usage.tokens import charged_size, estimate_tokens
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.message_pb2 import Message, Usage


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The state of a limit. If both the key and the account are limited, the one with less remaining.

    Attributes:
        kind: `requests` or `tokens`.
        limit: The limit per minute.
        remaining: Requests or tokens that are available now.
        reset: Seconds until the full limit is available again.
    """

    kind: str
    limit: int
    remaining: int
    reset: float


class Admission:
    """The result of admitting one call: its caller's limits, and what is reserved for it.

    Args:
        statuses: The caller's limits after the reservation.
        rejection: The error of a rejected call; None for an admitted call.
    """

    def __init__(self, statuses: Sequence[RateLimitStatus] = (), rejection: ParleyError | None = None) -> None:
        self.statuses = statuses
        self._rejection = rejection
        self._call_id: str | None = None
        self._charges: Sequence[Charge] = ()
        self._counts_tokens = False
        self.is_concurrent = False
        self._prompt = 0
        self._history: Sequence[Message] = ()
        self._answer_size: int | None = None
        self._usage: Usage | TokenCounts | None = None
        self._cost = 0.0

    def hold(
        self,
        call_id: str,
        charges: Sequence[Charge],
        prompt: int,
        write: Callable[[Settlement], asyncio.Task[None]],
        on_end: Callable[[str], None],
    ) -> Self:
        """Records what is reserved.

        Args:
            call_id: The id of the running call.
            charges: The reserved charges.
            prompt: The estimated tokens of the request's prompt.
            write: Starts to write a settlement.
            on_end: Is called with the id when the settlement is taken.
        """
        self._call_id, self._prompt = call_id, prompt
        self._write, self._on_end = write, on_end
        self._charges = [charge for charge in charges if charge.kind not in {REQUESTS, CONCURRENT}]
        self._counts_tokens = any(charge.kind in TOKEN_KINDS for charge in self._charges)
        self.is_concurrent = any(charge.kind == CONCURRENT for charge in charges)
        return self

    def require_granted(self) -> None:
        """Raises the error of a rejected call."""
        if self._rejection is not None:
            raise self._rejection

    def add_history(self, history: Sequence[Message]) -> None:
        """Records messages of the session that the prompt has besides those of the request."""
        if self._counts_tokens:
            self._history = history

    def record_answer(self, answer: ChatCompletion | TextCompletion | StreamPart) -> None:
        """Records an answer, or a part of one."""
        if not self._counts_tokens:
            return
        self._answer_size = self._answer_size or 0
        if isinstance(answer, PlainText):
            self._answer_size += answer.size
            return
        if isinstance(answer, TextCompletion) or answer.HasField("usage"):
            self._usage, self._answer_size = answer.usage, 0
            return
        for choice in answer.choices:
            self._answer_size += charged_size(choice.message if isinstance(answer, ChatCompletion) else choice.delta)  # type: ignore[union-attr]

    def record_cost(self, cost: float | None) -> None:
        """Records the cost of all attempts, also of a call that failed; None if it is not known."""
        self._cost = cost or 0.0

    def used_tokens(self) -> int:
        """Returns the tokens to charge: as the backend reported, else an estimate; 0 without an answer.

        Only the answer that the caller received counts, with the usage in it. The receipt has the usage of every
        attempt, also of a call that failed. Some backends report the prompt first, so output since the latest report
        is estimated and added.
        """
        if self._answer_size is None:
            return 0
        if self._usage is not None:
            reported = self._usage.total_tokens or self._usage.prompt_tokens + self._usage.completion_tokens
            return reported + estimate_tokens(self._answer_size)
        history = sum(charged_size(message) for message in self._history)
        return self._prompt + estimate_tokens(self._answer_size + history)

    def settle(self) -> asyncio.Task[None] | None:
        """Starts to settle the reservation in a task; returns None if nothing is left to settle."""
        settlement = self.take_settlement()
        return None if settlement is None else self._write(settlement)

    def take_settlement(self) -> Settlement | None:
        """Returns what settles the reservation, to be written with the end of a turn.

        A reservation is settled once: later calls return None.
        """
        if self._call_id is None:
            return None
        call_id, self._call_id = self._call_id, None
        self._on_end(call_id)
        tokens = self.used_tokens()
        charges = [
            replace(one, amount=tokens if one.kind in TOKEN_KINDS else self._cost, reserved=one.amount)
            for one in self._charges
        ]
        return Settlement(call_id, charges)


UNLIMITED_CALL = Admission()
"""The admission of calls that have no limits."""
