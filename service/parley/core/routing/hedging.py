"""Hedging: when a first token is slow to come, another target is asked for it too, and the faster one answers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from parley.core.errors import ParleyError
from parley.core.routing.failure_policy import Next, verdict
from parley.core.routing.upstream_stream import Asked
from parley.core.usage.attempts import Kind

_AGAIN_SECONDS = 1.0

Lane = Callable[[Kind], Coroutine[Any, Any, Asked]]
"""Asks one target after another until one of them has said its first token."""


async def race(lane: Lane, hedge_in: Callable[[], float], may_hedge: Callable[[], bool]) -> Asked:
    """Returns the stream whose first token comes first.

    A second lane is opened in as many seconds as `hedge_in` says, if `may_hedge`; if not, a second later.
    The other lane is ended, and its stream closed. Raises what the first lane raises where neither has a token, and at
    once where the request itself was refused there.
    """
    lanes = [asyncio.create_task(lane(Kind.FIRST))]
    try:
        while len(lanes) == 1 and not lanes[0].done():
            seconds = hedge_in()
            if seconds <= 0 and may_hedge():
                lanes.append(asyncio.create_task(lane(Kind.HEDGE)))
            else:
                await asyncio.wait(lanes, timeout=seconds if seconds > 0 else _AGAIN_SECONDS)
        winner = await _fastest(lanes)
        await _end([task for task in lanes if task is not winner])
    except BaseException:  # a caller who leaves now leaves the winner too
        await asyncio.shield(_end(lanes))  # it may be cancelled again meanwhile
        raise
    return winner.result()


async def _fastest(lanes: list[asyncio.Task[Asked]]) -> asyncio.Task[Asked]:
    """Waits for a lane that succeeds, or for the first one to be refused; returns one that failed where all have."""
    waiting = set(lanes)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None or (task is lanes[0] and _is_final(task.exception())):
                return task
    return lanes[0]


def _is_final(error: BaseException | None) -> bool:
    return isinstance(error, ParleyError) and verdict(error).next is Next.NOBODY


async def _end(lanes: list[asyncio.Task[Asked]]) -> None:
    """Ends the lanes that have lost; one may have its token at the same moment."""
    for task in lanes:
        task.cancel()
    for ended in await asyncio.gather(*lanes, return_exceptions=True):
        if isinstance(ended, Asked):
            await ended.give_up()
