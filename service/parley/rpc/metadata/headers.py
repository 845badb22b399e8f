"""The initial metadata of a call: the headers of a REST response."""

from typing import Any
from urllib.parse import quote

import grpc

from parley.rpc.call import Call
from parley.rpc.metadata import rate_limits
from parley.rpc.metadata.idempotency import REPLAYED

DEPRECATED = "x-parley-deprecated"
"""The header with the last day of the alias that the request names, and the id to use: `2027-01-31; use="support"`."""
_SAFE = " !#$&'()*+,-./:;<=>?@[]^_`{|}~"
SESSION = "x-chat-session-id"
"""The header with the id of a session."""
_CACHE_CONTROL = "cache-control"
_CACHE = "x-parley-cache"  # whether the answer is a kept one: `hit`, `miss` or `bypass`

_Context = grpc.aio.ServicerContext[Any, Any]


def cache_control(call: Call, context: _Context) -> str | None:
    """Returns what the caller says about the cache, of all lines of the header; None without one."""
    if _CACHE_CONTROL not in call.metadata:
        return None
    pairs = context.invocation_metadata() or ()
    return ", ".join(str(value) for name, value in pairs if name == _CACHE_CONTROL)


async def send(call: Call, context: _Context, *more: tuple[str, str]) -> None:
    """Sends the caller's rate limits and further headers, if there are any. A call sends headers once."""
    call.headers_sent = True
    outcome = call.outcome
    limits = outcome.rate_limits
    if outcome.retires is not None:
        day, model_id = outcome.retires
        more = (*more, (DEPRECATED, f'{day}; use="{quote(model_id, safe=_SAFE)}"'))
    headers = (*rate_limits.metadata(limits), *more) if limits else more
    if headers:
        await context.send_initial_metadata(headers)


async def send_with_answer(call: Call, context: _Context, session_id: str | None) -> None:
    """Sends the caller's rate limits, the session's id and the marks of a replayed and of a kept answer, if any."""
    outcome = call.outcome
    if not (
        session_id or outcome.replayed or outcome.rate_limits or outcome.retires or outcome.cache
    ):  # most calls without sessions
        call.headers_sent = True
        return
    session = ((SESSION, session_id),) if session_id else ()
    cache = ((_CACHE, outcome.cache.result),) if outcome.cache else ()
    await send(call, context, *session, *cache, *((REPLAYED,) if outcome.replayed else ()))
