"""Long computations of large calls leave the event loop to others."""

import asyncio
import contextvars
import sys
import threading

from parley.core.offload import LARGE_BYTES, LARGE_MESSAGES, offload, record_size

_named = contextvars.ContextVar("named", default="nothing")


def _thread() -> int:
    return threading.get_ident()


async def test_a_small_call_stays_on_the_event_loop() -> None:
    """A thread would cost it more than it saves others."""
    record_size(size=LARGE_BYTES - 1, messages=LARGE_MESSAGES - 1)
    assert threading.get_ident() == await offload(_thread)


async def test_a_large_call_computes_in_a_thread() -> None:
    """Its bytes, or the messages of its session, make it a large one, in its own tasks only."""
    for size, messages in ((LARGE_BYTES, 0), (0, LARGE_MESSAGES)):

        async def call(size: int = size, messages: int = messages) -> int:
            record_size(size=size, messages=messages)
            return await asyncio.create_task(offload(_thread))

        assert threading.get_ident() != await asyncio.create_task(call())
        assert threading.get_ident() == await offload(_thread)


async def test_the_event_loop_runs_while_a_large_call_computes() -> None:
    """The interpreter is given to it within a fraction of the usual 5 ms, which are usual again afterwards."""
    record_size(size=LARGE_BYTES)
    usual, started, stop, seen = sys.getswitchinterval(), threading.Event(), threading.Event(), []

    def compute() -> str:
        started.set()
        while not stop.is_set():
            seen.append(sys.getswitchinterval())
        return _named.get()

    _named.set("the caller's")
    computing = asyncio.create_task(offload(compute))
    while not (started.is_set() and seen):
        await asyncio.sleep(0)
    assert not computing.done()
    stop.set()
    assert "the caller's" == await computing
    assert {True} == {one < usual / 5 for one in seen}
    assert usual == sys.getswitchinterval()
