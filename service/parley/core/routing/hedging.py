"""Hedging: if a first token is late, another target is called too, and the faster one answers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from parley.core.errors import ParleyError
from parley.core.routing.active_attempt import ActiveAttempt
from parley.core.routing.failure_policy import NextTargets, policy_for
from parley.core.usage.attempts import AttemptKind

_RECHECK_SECONDS = 1.0

OpenStream = Callable[[AttemptKind], Coroutine[Any, Any, ActiveAttempt]]
"""Tries one target after another until one has sent its first token."""


async def race(
    open_stream: OpenStream, hedge_delay: Callable[[], float], try_hedge: Callable[[], bool]
) -> ActiveAttempt:
    """Returns the attempt whose first token arrives first; the other one is cancelled.

    Args:
        open_stream: Opens a stream up to its first token.
        hedge_delay: Returns after how many seconds the hedge starts. It is called again if `try_hedge` returns False.
        try_hedge: Acquires the hedge; if it returns False, it is called again a second later.

    Raises:
        ParleyError: The error of the first stream, if neither has a token, or at once if it rejects the request.
    """
    attempts = [asyncio.create_task(open_stream(AttemptKind.FIRST))]
    try:
        while len(attempts) == 1 and not attempts[0].done():
            seconds = hedge_delay()
            if seconds <= 0 and try_hedge():
                attempts.append(asyncio.create_task(open_stream(AttemptKind.HEDGE)))
            else:
                await asyncio.wait(attempts, timeout=seconds if seconds > 0 else _RECHECK_SECONDS)
        winner = await _first_success(attempts)
        await _cancel([task for task in attempts if task is not winner])
    except BaseException:  # a cancelled call cancels the winner too
        await asyncio.shield(_cancel(attempts))  # it may be cancelled again meanwhile
        raise
    return winner.result()


async def _first_success(attempts: list[asyncio.Task[ActiveAttempt]]) -> asyncio.Task[ActiveAttempt]:
    """Waits for a success, or for the first stream to reject the request. Returns the first one if all have failed."""
    waiting = set(attempts)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None or (task is attempts[0] and _is_final(task.exception())):
                return task
    return attempts[0]


def _is_final(error: BaseException | None) -> bool:
    return isinstance(error, ParleyError) and policy_for(error).next is NextTargets.NONE


async def _cancel(attempts: list[asyncio.Task[ActiveAttempt]]) -> None:
    """Cancels the streams that have lost. One may have received its first token at the same moment."""
    for task in attempts:
        task.cancel()
    for ended in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(ended, ActiveAttempt):
            await ended.cancel()
