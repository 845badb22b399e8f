"""Runs the long computations of large calls in a thread, so that the event loop serves other calls meanwhile.

Reading, checking, copying and rewriting 90,000 messages takes the interpreter most of a second. One thread does such
work for a worker, one large call after another; the others keep the event loop.
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
_executor = ThreadPoolExecutor(1, thread_name_prefix="parley-large-calls")


def record_size(*, size: int = 0, messages: int = 0) -> None:
    """Makes this task's call a large one where it has so many bytes, or messages. Tasks that it makes inherit that."""
    if size >= LARGE_BYTES or messages >= LARGE_MESSAGES:
        _is_large.set(True)


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what the function returns; runs it in the thread where this task's call is large.

    A caller that is cancelled meanwhile does not stop the function.
    """
    if not _is_large.get():
        return function(*args, **kwargs)
    context = contextvars.copy_context()
    work = partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor, _yielding, work)


def _yielding(work: Callable[[], T]) -> T:
    """Does work, and gives the interpreter to other threads soon after they ask for it.

    The event loop asks for it several times a call; by default each takes 5 ms.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return work()
    finally:
        sys.setswitchinterval(usual)
