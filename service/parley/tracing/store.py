"""A store whose operations have spans, if a traced call makes them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, TypeAlias, cast

from opentelemetry.trace import SpanKind

from parley.core.ports import Store
from parley.tracing.tracer import current

_OPERATIONS = (
    "begin_turn",
    "claim",
    "end_claim",
    "reserve",
    "settle",
    "history_tokens",
    "find_answer",
    "find_key",
    "get_session",
)

_Operation: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class TracedStore:
    """A store with spans. All other operations are those of the store itself.

    Args:
        store: The store.
        system: The value of `db.system.name`.
    """

    def __init__(self, store: Store, system: str) -> None:
        self._store = store
        for name in _OPERATIONS:
            setattr(self, name, _traced(getattr(store, name), name, system))
        self.defer_turn = _traced_now(store.defer_turn, system)
        self.end_turn = _in_task(_traced(store.end_turn, "end_turn", system))

    def __getattr__(self, name: str) -> Any:
        """Returns an operation of the store."""
        return getattr(self._store, name)


def traced(store: Store, system: str) -> Store:
    """Returns the store with spans."""
    return cast("Store", TracedStore(store, system))


def _fields(name: str, system: str) -> dict[str, str]:
    return {"db.system.name": system, "db.operation.name": name}


def _traced(
    operation: Callable[..., Awaitable[Any]], name: str, system: str
) -> Callable[..., Coroutine[Any, Any, Any]]:
    fields = _fields(name, system)

    @wraps(operation)
    async def run(*arguments: Any, **options: Any) -> Any:
        trace = current.get()
        if trace is None or not trace.is_sampled:
            return await operation(*arguments, **options)
        start, error = time.time_ns(), ""
        try:
            return await operation(*arguments, **options)
        except BaseException as failure:
            error = _reason(failure)
            raise
        finally:
            trace.add(f"store {name}", SpanKind.CLIENT, start, fields, error)

    return run


def _in_task(operation: _Operation) -> Callable[..., asyncio.Task[Any]]:
    """Returns an operation that starts at once."""

    @wraps(operation)
    def start(*arguments: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(operation(*arguments))

    return start


def _traced_now(operation: Callable[..., Any], system: str) -> Callable[..., Any]:
    """Returns `defer_turn` with a span: the beginning of a turn that the store writes later."""
    fields = _fields("begin_turn", system) | {"parley.store.deferred": True}

    @wraps(operation)
    def run(*arguments: Any, **options: Any) -> Any:
        start, turn = time.time_ns(), operation(*arguments, **options)
        trace = current.get()
        if trace is not None and trace.is_sampled and turn is not None:
            trace.add("store begin_turn", SpanKind.CLIENT, start, fields)
        return turn

    return run


def _reason(failure: BaseException) -> str:
    return type(failure).__name__ if isinstance(failure, Exception) else "cancelled"
