"""Hedging: when a first token is slow to come, another target is asked for it too, and the faster one answers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from parley.core.errors import ParleyError
from parley.core.routing.active_attempt import ActiveAttempt
from parley.core.routing.failure_policy import NextTargets, policy_for
from parley.core.usage.attempts import AttemptKind

_RECHECK_SECONDS = 1.0

OpenStream = Callable[[AttemptKind], Coroutine[Any, Any, ActiveAttempt]]
"""Asks one target after another until one of them has said its first token."""


async def race(
    open_stream: OpenStream, hedge_delay: Callable[[], float], try_hedge: Callable[[], bool]
) -> ActiveAttempt:
    """Returns the stream whose first token comes first.

    A second lane is opened in as many seconds as `hedge_delay` says, if `try_hedge`; if not, a second later.
    The other lane is ended, and its stream closed. Raises what the first lane raises where neither has a token, and at
    once where the request itself was refused there.
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
    except BaseException:  # a caller who leaves now leaves the winner too
        await asyncio.shield(_cancel(attempts))  # it may be cancelled again meanwhile
        raise
    return winner.result()


async def _first_success(attempts: list[asyncio.Task[ActiveAttempt]]) -> asyncio.Task[ActiveAttempt]:
    """Waits for a lane that succeeds, or for the first one to be refused; returns one that failed where all have."""
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
    """Ends the lanes that have lost; one may have its token at the same moment."""
    for task in attempts:
        task.cancel()
    for ended in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(ended, ActiveAttempt):
            await ended.cancel()
