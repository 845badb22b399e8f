"""Batches: calls that arrive while a statement runs share the next one, its round trip and its commit."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from parley.core.errors import StoreUnavailable
from parley.core.ports.statistics import StoreStatistics

_MAX_CALLS = 64
_MAX_BYTES = 256 * 1024
# A statement that takes longer, for example because another transaction has locked one of its rows, does not delay the
# calls after it.
_SLOW_SECONDS = 0.05


class Batchable(Protocol):
    """A call that can share a statement.

    Attributes:
        session_id: The session that it changes. A statement changes a session once.
        size: The bytes that it stores.
    """

    @property
    def session_id(self) -> str: ...  # noqa: D102 - documented above

    @property
    def size(self) -> int: ...  # noqa: D102 - documented above


C = TypeVar("C", bound=Batchable)
R = TypeVar("R")
T = TypeVar("T")


class Batches(Generic[C, R]):
    """Runs calls of one kind in batches, one batch at a time unless it is slow."""

    def __init__(
        self,
        run: Callable[[Sequence[C]], Awaitable[Sequence[R]]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        statistics: StoreStatistics | None = None,
        *,
        shared: bool = True,
    ) -> None:
        """Creates an empty queue.

        Args:
            run: Runs a batch in one transaction, sorted by session, and returns the result of each call.
            spawn: Runs a batch in a task.
            statistics: Records the batches; None for no statistics.
            shared: Whether calls share statements; otherwise each runs at once in a statement of its own.
        """
        self._run = run
        self._spawn = spawn
        self._max_calls = _MAX_CALLS if shared else 1
        self._statistics = statistics or StoreStatistics()
        self._waiting: deque[tuple[C, asyncio.Future[R]]] = deque()
        self._running = 0  # without the slow ones

    def submit(self, call: C) -> asyncio.Future[R]:
        """Queues a call, which runs even if its future is cancelled.

        Raises:
            StoreUnavailable: The server is unavailable; the call may or may not have been committed.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._start()
        return future

    def _start(self) -> None:
        if self._waiting and (self._max_calls == 1 or not self._running):
            self._running += 1
            self._spawn(self._run_next())

    def _collect(self) -> list[tuple[C, asyncio.Future[R]]]:
        """Removes the next batch from the queue: at least one call, and at most one of each session."""
        batch: dict[str, tuple[C, asyncio.Future[R]]] = {}
        size = 0
        while self._waiting and len(batch) < self._max_calls and size < _MAX_BYTES:
            call = self._waiting[0][0]
            if call.session_id in batch:
                break
            batch[call.session_id] = self._waiting.popleft()
            size += call.size
        return [batch[session_id] for session_id in sorted(batch)]

    async def _run_next(self) -> None:
        batch = self._collect()  # in the task, so that calls of the same iteration of the event loop join
        is_slow = False

        def on_slow() -> None:
            nonlocal is_slow
            is_slow = True
            self._finish()

        timer = asyncio.get_running_loop().call_later(_SLOW_SECONDS, on_slow)
        try:
            await self._perform(batch)
        finally:
            timer.cancel()
            if not is_slow:
                self._finish()

    def _finish(self) -> None:
        self._running -= 1
        self._start()

    async def _perform(self, batch: Sequence[tuple[C, asyncio.Future[R]]]) -> None:
        """Runs a batch. If a call fails, each call runs alone, so that only that one fails."""
        began = time.perf_counter()
        try:
            results = await self._run([call for call, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised by the futures
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:
                    await self._perform([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            self._statistics.record(len(batch), time.perf_counter() - began)
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def all_together(leases: Iterable[T]) -> Sequence[Sequence[T]]:
    """Returns the leases that one statement renews: all of them."""
    return [held] if (held := list(leases)) else []


def each_alone(leases: Iterable[T]) -> Sequence[Sequence[T]]:
    """Returns each lease for a statement of its own."""
    return [[lease] for lease in leases]
