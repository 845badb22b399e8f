"""Tests of the offload of long computations of large calls."""

import asyncio
import contextvars
import sys
import threading

from parley.core.offload import LARGE_BYTES, LARGE_MESSAGES, offload, record_size

_named = contextvars.ContextVar("named", default="nothing")


def _thread() -> int:
    return threading.get_ident()


async def test_a_small_call_stays_on_the_event_loop() -> None:
    """A call below both thresholds runs on the event loop."""
    record_size(size=LARGE_BYTES - 1, messages=LARGE_MESSAGES - 1)
    assert threading.get_ident() == await offload(_thread)


async def test_a_large_call_computes_in_a_thread() -> None:
    """A call that reaches either threshold runs in a thread, and only that call."""
    for size, messages in ((LARGE_BYTES, 0), (0, LARGE_MESSAGES)):

        async def call(size: int = size, messages: int = messages) -> int:
            record_size(size=size, messages=messages)
            return await asyncio.create_task(offload(_thread))

        assert threading.get_ident() != await asyncio.create_task(call())
        assert threading.get_ident() == await offload(_thread)


async def test_the_event_loop_runs_while_a_large_call_computes() -> None:
    """The switch interval is shorter during a large call and restored afterwards, so that the event loop runs."""
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
