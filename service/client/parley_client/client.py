"""The synchronous client. `parley_client.aio` has the same for asyncio."""

from collections.abc import Callable, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self

import grpc

from parley_client import calls, channel
from parley_client.calls import CallOptions, Observer, Settings
from parley_client.channel import Tls
from parley_client.chat import Chat
from parley_client.requests import usage_request
from parley_client.retry import Retry
from parley_client.sessions import Sessions
from parley_client.transport import Models, Transport
from parley_client.v1 import usage_pb2


class Client:
    """Calls Parley over gRPC. Threads may share a client; the `with` block closes it.

    Args:
        target: The address, `HOST:PORT` or any name that gRPC resolves, for example `dns:///parley:50051`.
        key: The API key; None for a caller that a client certificate in `tls` identifies.
        tls: See `Tls`.
        timeout: Seconds for a call with all its attempts; None for no limit.
        retry: When to make a failed call again.
        log: Called for each call and each retry with the name of the event and its fields, for example
            `structlog.get_logger().info`.
        observer: Observes calls, for example `parley_client.otel.Tracing()`.
        metadata: Metadata of every call, for example `[("x-correlation-id", "…")]`.
        options: Options of the gRPC channel, over the client's own.
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
            grpc.insecure_channel(target, known) if secure is None else grpc.secure_channel(target, secure, known)
        )
        settings = Settings(key, timeout, retry or Retry(), log, observer, tuple(metadata))
        self._transport = transport = Transport(self._channel, settings)
        self.chat = Chat(transport)
        self.sessions = Sessions(transport)
        self.models = Models(transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def usage(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        by: Sequence[str] = (),
        account: bool = False,
    ) -> usage_pb2.UsageReport:
        """Returns the use of the key, or of its account: calls, tokens and cost, as rows and as their total.

        Args:
            since: The first day, in UTC; None for 30 days before today.
            until: The last day; None for today.
            by: What to sum up by: `day`, `model` and `key`, in the order of the sorting; empty for day and model.
            account: Whether to sum up all keys of the account.
        """
        request = usage_request(since, until, by, account=account)
        report: usage_pb2.UsageReport = self._transport.unary(calls.USAGE, request, CallOptions())[0]
        return report

    def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self._channel.close()
