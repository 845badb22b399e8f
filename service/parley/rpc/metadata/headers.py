"""The initial metadata of a call: the headers of a REST response."""

from typing import Any

import grpc

from parley.rpc.call import current
from parley.rpc.metadata import rate_limits


async def send(context: grpc.aio.ServicerContext[Any, Any], *more: tuple[str, str]) -> None:
    """Sends the caller's rate limits and further headers, if there are any. A call sends headers once."""
    call = current()
    call.headers_sent = True
    headers = (*rate_limits.metadata(call.outcome.rate_limits or ()), *more)
    if headers:
        await context.send_initial_metadata(headers)
