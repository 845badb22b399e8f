"""The client for asyncio."""

from collections.abc import Callable, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self

import grpc.aio

from parley_client import calls, channel
from parley_client.aio.chat import AsyncChat
from parley_client.aio.sessions import AsyncSessions
from parley_client.aio.transport import AsyncModels, AsyncTransport
from parley_client.calls import CallOptions, Observer, Settings
from parley_client.channel import Tls
from parley_client.requests import usage_request
from parley_client.retry import Retry
from parley_client.v1 import usage_pb2


class AsyncClient:
    """Calls Parley over gRPC. It belongs to one event loop; the `async with` block closes it.

    The arguments are those of `Client`.
    """

    def __init__(  # noqa: PLR0913 - settings, all with defaults
        self,
        target: str,
        *,
        key: str | None,
        tls: Tls = None,
        timeout: float | None = calls.DEFAULT_TIMEOUT,
        retry: Retry | None = None,
        log: Callable[..., object] | None = None,
        observer: Observer | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        options: dict[str, Any] | None = None,
    ) -> None:
        secure = channel.credentials(target, tls)
        known = channel.options(options)
        self._channel = (
            grpc.aio.insecure_channel(target, known)
            if secure is None
            else grpc.aio.secure_channel(target, secure, known)
        )
        settings = Settings(key, timeout, retry or Retry(), log, observer, tuple(metadata))
        self._transport = transport = AsyncTransport(self._channel, settings)
        self.chat = AsyncChat(transport)
        self.sessions = AsyncSessions(transport)
        self.models = AsyncModels(transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def usage(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        by: Sequence[str] = (),
        account: bool = False,
    ) -> usage_pb2.UsageReport:
        """Returns the use of the key, or of its account. Arguments and errors are those of `Client.usage`."""
        request = usage_request(since, until, by, account=account)
        report: usage_pb2.UsageReport = (await self._transport.unary(calls.USAGE, request, CallOptions()))[0]
        return report

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        await self._channel.close()
