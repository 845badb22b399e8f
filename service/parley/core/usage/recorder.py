"""Counts what calls have used, and writes the counts to the store about once a second.

A call only adds to counts in memory. What a worker has counted since its last write is lost if it crashes: at most
about a second, and the time that the store was unavailable before.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

import structlog

from parley.config import target_name
from parley.core.background import PeriodicTask
from parley.core.errors import ParleyError, StoreUnavailable
from parley.core.messages.text_completion import TokenCounts
from parley.core.ports import Caller, UsageCounts, UsageKey, UsageStore
from parley.core.ports.usage import NANOS
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord

_FLUSH_SECONDS = 1.0
_DAY_SECONDS = 86400
_COMPLETED = AttemptOutcome.COMPLETED
_Key: TypeAlias = tuple[str, int, str, str, str]  # the fields of a UsageKey, which takes a function more to make

_log = structlog.get_logger()


def day(seconds: float) -> int:
    """Returns the day of a Unix time, in UTC, as days since 1970-01-01."""
    return int(seconds // _DAY_SECONDS)


class UsageRecorder:
    """Counts the usage of one worker's calls.

    Attributes:
        calls_lost: The number of calls whose usage could not be written and was dropped.
    """

    def __init__(
        self,
        store: UsageStore,
        on_written: Callable[[Iterable[Caller]], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.time,
        flush_seconds: float = _FLUSH_SECONDS,
    ) -> None:
        """Creates a recorder that does not write before `start`.

        Args:
            store: Receives the counts.
            on_written: Receives the callers whose counts were written.
            clock: Returns Unix seconds, which decide the day.
            flush_seconds: The pause between two writes.
        """
        self._on_written = on_written
        self._callers: dict[tuple[str, str], Caller] = {}
        self._writing_callers: dict[tuple[str, str], Caller] = {}
        self._store = store
        self._clock = clock
        self._writer = uuid.uuid4().hex
        self._batch = 1
        self._counts: dict[_Key, UsageCounts] = {}
        self._writing: dict[UsageKey, UsageCounts] = {}
        self.calls_lost = 0
        self._task = PeriodicTask("usage", self.flush, flush_seconds, jitter=0.1)

    def start(self) -> None:
        """Starts the periodic writes."""
        self._task.start()

    def record(self, caller: Caller, model_id: str, attempts: Sequence[AttemptRecord], *, failed: bool) -> None:
        """Counts a call that has ended.

        Args:
            caller: The caller.
            model_id: The id of the requested model in the configuration.
            attempts: The call's attempts, with their costs; empty if it ended before the first one.
            failed: Whether the call failed or was cancelled.
        """
        today, account, key_id = day(self._clock()), caller.account, caller.key_id
        has_answered, row = False, None
        for attempt in attempts:
            target = attempt.usage_target or target_name(attempt.backend, attempt.target_model)
            key = account, today, key_id, attempt.usage_model or attempt.model_id, target
            used = self._counts.get(key) or self._new_row(key)
            _add(used, attempt)
            if not has_answered:
                has_answered, row = attempt.outcome is _COMPLETED, used
        if row is None:
            key = account, today, key_id, model_id, ""
            row = self._counts.get(key) or self._new_row(key)
        self._callers[account, key_id] = caller
        row.calls += 1
        row.errors += failed

    def _new_row(self, key: _Key) -> UsageCounts:
        self._counts[key] = row = UsageCounts()
        return row

    async def flush(self) -> None:
        """Writes what was counted. A batch whose write failed is written again, before later counts.

        Raises:
            StoreUnavailable: The store cannot be reached; the counts are kept.
        """
        if not self._writing:
            self._writing = {UsageKey(*key): row for key, row in self._counts.items()}
            self._counts = {}
            self._writing_callers, self._callers = self._callers, {}
        if not self._writing:
            return
        try:
            await self._store.add_usage(self._writer, self._batch, self._writing)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - repeating it would keep later counts from the store for ever
            calls, cost = self._lose(self._writing.values())
            _log.error("usage lost: the store rejects it", calls=calls, cost=cost, exc_info=error)
        self._batch += 1
        self._writing = {}
        self._on_written(self._writing_callers.values())

    async def close(self) -> None:
        """Stops the periodic writes and writes the rest; logs what cannot be written."""
        await self._task.stop()
        try:
            await self.flush()
            await self.flush()  # the first one may have repeated an earlier batch
        except ParleyError as error:
            calls, cost = self._lose([*self._writing.values(), *self._counts.values()])
            _log.error("usage lost: the store is unavailable", calls=calls, cost=cost, cause=error.cause)

    def _lose(self, rows: Collection[UsageCounts]) -> tuple[int, float]:
        """Counts calls whose usage is dropped; returns their number and their cost."""
        calls = sum(row.calls for row in rows)
        self.calls_lost += calls
        return calls, sum(row.cost_nanos for row in rows) / NANOS


def _add(row: UsageCounts, attempt: AttemptRecord) -> None:
    row.attempts += 1
    usage = attempt.usage
    if usage is not None:
        row.prompt_tokens += usage.prompt_tokens
        row.completion_tokens += usage.completion_tokens
        if not isinstance(usage, TokenCounts):
            row.cached_tokens += usage.prompt_tokens_details.cached_tokens
            row.reasoning_tokens += usage.completion_tokens_details.reasoning_tokens
    if attempt.cost is not None:
        row.cost_nanos += round(attempt.cost * NANOS)
