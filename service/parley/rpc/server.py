"""The gRPC server of one worker: its services, its limits, and its shutdown."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley.config import Auth
from parley.core.background import PeriodicTask
from parley.core.chat import Chat
from parley.core.errors import ShuttingDown
from parley.core.ports import AccessChecker, Authenticator, Store, Tracer
from parley.core.routing.router import Router
from parley.metrics.calls import CallMetrics
from parley.rpc.admission import Admission
from parley.rpc.authentication import Authentication
from parley.rpc.authorization import add_authorization
from parley.rpc.call import Call
from parley.rpc.call_handler import CallHandler
from parley.rpc.generic_handlers import GenericHandlers
from parley.rpc.health import SERVICE_NAME, Health
from parley.rpc.keep_alive import KeepAlive
from parley.rpc.metadata.challenges import Challenges
from parley.rpc.reflection import add_reflection
from parley.rpc.server_options import ServerLimits, server_options
from parley.rpc.services.chat_completions import ChatCompletionsServicer, add_chat_completions
from parley.rpc.services.identity import IdentityServicer
from parley.rpc.services.models import ModelsServicer
from parley.rpc.services.sessions import SessionsServicer
from parley.rpc.services.usage import UsageReportsServicer
from parley.rpc.shutdown import Shutdown
from parley.v1 import chat_completions_pb2, identity_pb2, models_pb2, sessions_pb2, usage_pb2
from parley.v1.identity_pb2_grpc import add_IdentityServicer_to_server
from parley.v1.models_pb2_grpc import add_ModelsServicer_to_server
from parley.v1.sessions_pb2_grpc import add_SessionsServicer_to_server
from parley.v1.usage_pb2_grpc import add_UsageReportsServicer_to_server

_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (chat_completions_pb2, "ChatCompletions"),
        (sessions_pb2, "Sessions"),
        (models_pb2, "Models"),
        (usage_pb2, "UsageReports"),
    )
)
_CHAT = _SERVICES[0]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["Identity"].full_name  # serves without the store

_NOTICE_SECONDS = 1.5  # until an Envoy has seen NOT_SERVING and sends no new calls
_LATEST_NOTICE_SECONDS = 5.0  # the same for a busy Envoy, whose health check is late: an interval and a timeout are 3 s
_KEEP_ALIVE_SECONDS = 15.0  # of silence in a stream of events; some proxies close it soon after
_STALLED_SECONDS = 60.0  # that a piece of a stream may stay unread; the call holds its session meanwhile
_ERROR_SECONDS = 2.0  # for the error event of a stream that is cut off
_QUIET_SECONDS = 0.5  # without a call, after which a worker counts as idle: callers may have one call after another
_POLL_SECONDS = 0.05
_ACCESS_SECONDS = 0.5  # between two checks of running calls: a stream ends within a second after a revocation


class Server:
    """Serves Parley's services, health and reflection on one address.

    Args:
        chat: The core.
        router: Lists the models.
        store: Holds the sessions.
        authenticator: Authenticates callers.
        access: Finds running calls whose callers have lost access.
        auth: What callers learn about access tokens.
        limits: The limits of a server without an edge; None behind one.
        running: Kept up to date with the running calls.
        metrics: Counts the calls; None for no metrics.
        tracer: Traces the calls; None without tracing.
        on_health_check: Called when a health check is answered; None for no such call.
        keep_alive_seconds: Silence in a stream of events before a keep-alive comment.
        stalled_seconds: How long a piece of a stream may stay unread before its call is cancelled.
    """

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        chat: Chat,
        router: Router,
        store: Store,
        authenticator: Authenticator,
        access: AccessChecker,
        *,
        auth: Auth | None = None,
        limits: ServerLimits | None = None,
        running: set[Call] | None = None,
        metrics: CallMetrics | None = None,
        tracer: Tracer | None = None,
        on_health_check: Callable[[], None] | None = None,
        keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
        stalled_seconds: float = _STALLED_SECONDS,
    ) -> None:
        self._running: set[Call] = set() if running is None else running
        auth = auth or Auth()
        authentication = Authentication(authenticator, Challenges(auth.metadata_url))
        self._calls = CallHandler(
            authentication.authenticate,
            authentication.challenges,
            Admission(chat.limits),
            self._running,
            metrics,
            behind_edge=limits is None,
            tracer=tracer,
        )
        self._server = grpc.aio.server(options=server_options(limits))
        self._server.add_generic_rpc_handlers((self._calls,))
        self._chat = chat
        self._has_store = self.has_model = True
        self._stalled_seconds = stalled_seconds
        self._stall_check = PeriodicTask("the check for stalled streams", self._cancel_stalled, stalled_seconds / 4)
        self._access = access
        self._access_check = PeriodicTask("the check for revoked access", self._cancel_revoked, _ACCESS_SECONDS)
        self._health = Health(on_health_check)
        others: Any = GenericHandlers(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, others)
        handlers: Any = GenericHandlers(self._calls)
        self._keep_alive = KeepAlive(keep_alive_seconds)
        add_chat_completions(ChatCompletionsServicer(chat, self._keep_alive), handlers)
        add_SessionsServicer_to_server(SessionsServicer(store, chat.storage_limits, router, chat.guards), handlers)
        add_ModelsServicer_to_server(ModelsServicer(router), handlers)
        add_UsageReportsServicer_to_server(UsageReportsServicer(store), handlers)
        add_IdentityServicer_to_server(IdentityServicer(auth), handlers)
        if limits is None or limits.reflection:
            add_reflection((*_SERVICES, _IDENTITY, SERVICE_NAME), self._server)
        if limits is None:
            add_authorization(authentication, self._server)

    async def start(self, address: str) -> str:
        """Starts the server.

        Args:
            address: `unix:/path` or `HOST:PORT`; port 0 picks a free one.

        Returns:
            The bound address.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        port = self._server.add_insecure_port(address)
        await self._server.start()
        self._stall_check.start()
        self._access_check.start()
        self._keep_alive.start()
        await self._health.serve()
        await self._health.set(_IDENTITY, health_pb2.HealthCheckResponse.SERVING)
        await self._set_health()
        if address.startswith("unix:"):
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    async def store_changed(self, is_available: bool) -> None:
        """Sets the health of the services that need the store.

        The health of the worker itself (the service named "") stays SERVING: Envoy checks that one, and must keep
        sending calls, so that callers get the reason at once. After a shutdown has begun this has no effect.
        """
        self._has_store = is_available
        await self._set_health()

    async def models_changed(self, is_callable: bool) -> None:
        """Sets the health of the chat completions: without a model that can be called they are NOT_SERVING."""
        self.has_model = is_callable
        await self._set_health()

    async def _set_health(self) -> None:
        for service in _SERVICES:
            serves = self._has_store and (self.has_model or service != _CHAT)
            status = health_pb2.HealthCheckResponse
            await self._health.set(service, status.SERVING if serves else status.NOT_SERVING)

    async def run(self, shutdown: Shutdown) -> None:
        """Serves until the shutdown is complete."""
        leaving = asyncio.create_task(self._leave(shutdown))
        await shutdown.stop.wait()
        leaving.cancel()
        await self.stop(shutdown)

    async def stop(self, shutdown: Shutdown) -> None:
        """Reports NOT_SERVING, waits for running calls, then ends the rest with an error."""
        grace = 0.0 if shutdown.leave.is_set() else shutdown.grace
        if not shutdown.replaced:
            await self._health.enter_graceful_shutdown()
        await self._wait_for_notice(grace)
        self._health.end_watches()
        stopping = asyncio.create_task(self._server.stop(grace + _ERROR_SECONDS))
        cut = asyncio.create_task(shutdown.cut.wait())
        await asyncio.wait({stopping, cut}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        self._chat.stop()
        for call in list(self._running):
            call.cancel(ShuttingDown())
        await stopping
        await self._stall_check.stop()
        await self._access_check.stop()
        await self._keep_alive.stop()

    async def _wait_for_notice(self, grace: float) -> None:
        """Waits until no Envoy sends new calls: gRPC cancels those that arrive after the stop."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(grace, _LATEST_NOTICE_SECONDS)
        await asyncio.sleep(min(grace, _NOTICE_SECONDS - _QUIET_SECONDS))
        while (seconds := min(_QUIET_SECONDS, end - loop.time())) > 0:
            begun = self._calls.begun
            await asyncio.sleep(seconds)
            if begun == self._calls.begun:
                return

    async def _leave(self, shutdown: Shutdown) -> None:
        """Sends callers away when requested, and reports at each request when no call runs."""
        await shutdown.leave.wait()
        await self._health.leave()
        loop = asyncio.get_running_loop()
        while True:
            await shutdown.report_idle.wait()
            shutdown.report_idle.clear()
            last_busy = loop.time()
            while loop.time() - last_busy < _QUIET_SECONDS:
                await asyncio.sleep(_POLL_SECONDS)
                last_busy = loop.time() if self._running else last_busy
            shutdown.on_idle()

    async def _cancel_stalled(self) -> None:
        """Cancels the calls of callers that have stopped reading without closing the connection."""
        latest = asyncio.get_running_loop().time() - self._stalled_seconds
        for call in list(self._running):
            if call.writing_since is not None and call.writing_since < latest:
                call.task.cancel()

    async def _cancel_revoked(self) -> None:
        """Cancels the calls of callers that have lost access, with one query for all calls."""
        callers = {call.credentials: call.caller for call in self._running if call.credentials and call.caller}
        if not callers:
            return
        revoked = await self._access.find_revoked(callers)
        for call in list(self._running):
            if call.credentials in revoked:
                call.cancel(revoked[call.credentials])
