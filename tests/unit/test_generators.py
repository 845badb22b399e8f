"""Asynchronous generators of a worker."""

import asyncio
import sys
from collections.abc import AsyncIterator

import uvloop

from parley.app import do_not_list_generators


def test_a_dropped_generator_is_closed_without_a_list() -> None:
    """A worker's loop keeps no list of its generators, and closes one that is dropped before its end."""
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def drop_one() -> bool:
        do_not_list_generators()
        await anext(numbers())
        await asyncio.sleep(0.01)
        return sys.get_asyncgen_hooks().firstiter is None

    assert uvloop.run(drop_one())
    assert [True] == closed
