"""The output of exports: pieces of JSON Lines."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from google.api.httpbody_pb2 import HttpBody

from parley.core.errors import ParleyError
from parley.rpc import errors
from parley.rpc.call import current
from parley.rpc.call_handler import Context, record_failure
from parley.rpc.metadata import headers

_CHUNK_SIZE = 256 * 1024  # bytes of an export in one message; clients accept 4 MiB by default, and a line may be longer


async def write(lines: AsyncGenerator[bytes, None], session_id: str | None, context: Context) -> None:
    """Writes lines. A failure after the first byte is also the last line.

    Args:
        lines: The lines.
        session_id: The id of the one session that is exported, which is sent in the headers; None for several.
        context: The call.
    """
    output = _Output(session_id, context)
    try:
        async with aclosing(lines) as found:
            async for line in found:
                await output.add(line)
        await output.flush()
    except BaseException as error:
        failure = record_failure(current(), error) if output.started else None
        if failure is None:
            raise
        await output.write(_error_line(failure))
        raise failure from error


class _Output:
    """Writes an export in pieces; the id of its one session is sent in the headers before the first one."""

    def __init__(self, session_id: str | None, context: Context) -> None:
        self._session_id = session_id
        self._context = context
        self._buffered = bytearray()
        self.started = False

    async def add(self, line: bytes) -> None:
        """Buffers a line and writes full pieces."""
        self._buffered += line
        if len(self._buffered) >= _CHUNK_SIZE:
            await self.flush()

    async def flush(self) -> None:
        """Writes what is buffered."""
        data, self._buffered = self._buffered, bytearray()
        for start in range(0, len(data) or 1, _CHUNK_SIZE):
            await self.write(bytes(data[start : start + _CHUNK_SIZE]))

    async def write(self, data: bytes) -> None:
        """Writes one piece without buffering."""
        if not self.started:
            self.started = True
            session = () if self._session_id is None else ((headers.SESSION, self._session_id),)
            await headers.send(current(), self._context, *session)
        await self._context.write(HttpBody(content_type="application/jsonl", data=data))


def _error_line(error: ParleyError) -> bytes:
    """Returns the last line of an incomplete export: over REST no status can follow the first byte."""
    return orjson.dumps({"error": {"message": error.message, "code": errors.name(error).lower()}}) + b"\n"
