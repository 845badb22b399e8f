"""Pauses of periodic checks that end together: an idle supervisor wakes up twice a second for all of them."""

import asyncio


async def pause(seconds: float) -> None:
    """Waits until the event loop's time is a multiple of `seconds`; see `length`."""
    await asyncio.sleep(length(asyncio.get_running_loop().time(), seconds))


def length(now: float, seconds: float) -> float:
    """Returns the seconds until a multiple of `seconds`, at least half of them and at most 1.5 times as many."""
    return (round(now / seconds) + 1) * seconds - now
