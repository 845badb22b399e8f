"""Runs the long computations of large calls in a thread, so that the event loop continues to serve other calls.

Parsing, validating, copying and converting 90,000 messages takes most of a second. One thread per worker runs such
computations one after another; the event loop runs those of other calls.
"""

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 128 * 1024
LARGE_MESSAGES = 250

_SWITCH_SECONDS = 0.0005
_is_large: ContextVar[bool] = ContextVar("is_large", default=False)
is_large: Callable[[], bool] = _is_large.get
"""Returns whether the call of this task is large. It is no function of Python's, since each call uses it many times."""
_executor = ThreadPoolExecutor(1, thread_name_prefix="parley-large-calls")


def record_size(*, size: int = 0, messages: int = 0) -> None:
    """Marks the call of this task, and of tasks created by it, as large if it exceeds either threshold."""
    if size >= LARGE_BYTES or messages >= LARGE_MESSAGES:
        _is_large.set(True)


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns the function's result; runs the function in the thread if this task's call is large.

    Cancelling the caller does not stop the function.
    """
    if not is_large():
        return function(*args, **kwargs)
    return await in_thread(function, *args, **kwargs)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns the function's result; runs the function in the thread, whatever the size of this task's call."""
    context = contextvars.copy_context()
    work = partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor, _yielding, work)


def _yielding(work: Callable[[], T]) -> T:
    """Runs `work` with a short interpreter switch interval.

    The event loop requests the interpreter lock several times per call, and each request takes up to the switch
    interval, 5 ms by default.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return work()
    finally:
        sys.setswitchinterval(usual)
