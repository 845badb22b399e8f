"""The composition root: builds and runs one worker."""

import gc
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from parley.auth.access import AccessChecker
from parley.auth.api_keys import ApiKeys
from parley.auth.callers import Callers
from parley.auth.client_certificates import ClientCertificates
from parley.backends.breaker_state import leadership, shared_states
from parley.backends.factory import make_backend
from parley.config import (
    Config,
    LlamaCppBackend,
    Metadata,
)
from parley.core.administration import Rules
from parley.core.chat import Chat
from parley.core.ports import Authenticator, Backend, Store
from parley.core.ports.targets import TargetStore
from parley.core.routing.health import HealthChecker
from parley.core.routing.replicated_targets import ReplicatedTargets, common_name
from parley.core.routing.router import Router
from parley.core.sessions.reaper import Reaper
from parley.core.sessions.store_monitor import StoreMonitor
from parley.core.sessions.turns import Turns
from parley.core.usage.budgets import BudgetMonitor
from parley.core.usage.delivery import AlertDelivery
from parley.core.usage.limits import RateLimiter
from parley.core.usage.recorder import UsageRecorder
from parley.guards.opening import open_guards
from parley.logs import Level
from parley.logs.configuration import set_level
from parley.logs.recent import RecentLines
from parley.metrics.runtime import Losses, Runtime
from parley.metrics.worker import WorkerMetrics
from parley.rpc.admin import AdminSockets, admin_servers
from parley.rpc.liveness import Liveness
from parley.rpc.operations import Operations, ReadReload
from parley.rpc.overrides import OverridesFile
from parley.rpc.server import Server
from parley.rpc.server_options import ServerLimits
from parley.rpc.shutdown import Shutdown
from parley.stores.open import open_existing_store
from parley.tracing.opening import open_tracer, with_spans

if TYPE_CHECKING:  # loaded only where a cache is configured
    from parley.core.cache.answers import AnswerCache

_SWITCH_SECONDS = 0.0005  # how long the store's thread waits for the loop after a statement; Python's default: 5 ms


async def serve(  # noqa: PLR0913 - the parts of a worker
    config: Config,
    *,
    state_dir: Path,
    store_identity: str | None,
    run_dir: Path,
    address: str,
    admin: AdminSockets,
    metrics: Path | None = None,
    on_ready: Callable[[str], None],
    on_alive: Callable[[], None],
    server_limits: ServerLimits | None = None,
    shutdown: Shutdown,
    log_level: Level = "info",
    recent: RecentLines | None = None,
    log_lines_lost: Callable[[], int] = lambda: 0,
    last_reload: ReadReload | None = None,
) -> None:
    """Runs one worker until its shutdown is requested and complete.

    Args:
        config: The validated configuration.
        state_dir: Holds the SQLite file by default.
        store_identity: The identity of the store, see `create_store`; None if it is unknown yet.
        run_dir: Holds sockets and the state that the workers of a machine share.
        address: Where to listen: `unix:/path` or `HOST:PORT`, port 0 for any.
        admin: The sockets of the admin servers.
        metrics: The socket of the metrics; None for none.
        on_ready: Called once with the bound address, when the worker serves.
        on_alive: Called every second while the worker's event loop and gRPC answer.
        server_limits: The limits of a worker without an edge; None behind one.
        shutdown: Ends the worker.
        log_level: The log level, until an administrator sets another one.
        recent: The latest log lines of this process; None if it keeps none.
        log_lines_lost: Returns the number of log lines of this process that were dropped.
        last_reload: Reads the last reload; None if SIGHUP to the parent process does not have the configuration read
            again.

    Raises:
        ConfigError: A backend cannot be created from its configuration.
        StoreUnavailable: The store cannot be opened.
        RuntimeError: An address cannot be bound.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    do_not_list_generators()
    # Without an edge, callers could claim any name.
    certificates = config.auth.mtls is not None and server_limits is None
    backends = {name: make_backend(name, backend, run_dir) for name, backend in config.backends.items()}
    router, guards = Router(config, backends, states=shared_states(run_dir)), open_guards(config)
    overrides = OverridesFile(admin.local.with_name("overrides.json"))
    operations = Operations(router, overrides, log_level, set_level, recent=recent, last_reload=last_reload)
    liveness = Liveness(on_alive)
    try:
        async with (
            open_tracer(config) as tracer,
            open_existing_store(config.store, state_dir, store_identity) as opened,
            nullcontext(with_spans(opened, config, tracer)) as store,
            admin_servers(admin, store, Rules.of(config), config.admin, operations, liveness=liveness),
            _authenticator(config, store, run_dir, certificates=certificates) as authenticator,
            _answer_cache(config, store, router) as cache,
        ):
            budgets = BudgetMonitor(store, config.budgets.warn_at, deliver=config.budgets.webhook is not None)
            turns = Turns(store, config.limits.session.bytes)
            limits = RateLimiter(store, on_rejected=budgets.add_rejected)
            usage, delivery = UsageRecorder(store, budgets.add), _delivery(config, store)
            chat = Chat(router, turns, limits, store, usage, cache, guards)
            access = AccessChecker(store, Callers(config.plans, config.limits, config.models))
            measured = WorkerMetrics(config, operations.running) if metrics is not None else None
            server = Server(
                chat,
                router,
                store,
                authenticator,
                access,
                auth=config.auth,
                limits=server_limits,
                running=operations.running,
                metrics=measured.calls if measured else None,
                tracer=tracer,
                on_health_check=liveness.record_answer,
            )
            monitor = StoreMonitor(store, server.store_changed)
            runtime = Runtime(
                router,
                backends,
                turns,
                budgets,
                Losses(lambda: usage.calls_lost, lambda: delivery.undelivered if delivery else 0, log_lines_lost),
                cache,
                store,
                monitor,
                shutdown.is_begun,
                lambda: server.has_model,
            )
            address = await server.start(address)
            _tune_garbage_collector()
            async with (
                _store_tasks(store, monitor, config),
                _alerts(budgets, delivery),
                _health_checks(config, backends, router, server),
                measured.serving(metrics, runtime) if measured and metrics else nullcontext(),
                _replicated_targets(config, store, router, run_dir),
                _discovery(config, backends, router),
            ):
                usage.start()
                on_ready(address)
                await server.run(shutdown)
                await turns.close()
                await limits.close()
                await usage.close()
    finally:
        for backend in backends.values():
            await backend.close()
        if guards is not None:
            await guards.close()


@asynccontextmanager
async def _authenticator(
    config: Config, store: Store, run_dir: Path, *, certificates: bool
) -> AsyncIterator[Authenticator]:
    """Yields the authenticator."""
    callers = Callers(config.plans, config.limits, config.models)
    async with _bearer(config, store, callers, run_dir) as bearer:
        yield ClientCertificates(bearer, store, callers) if certificates else bearer


@asynccontextmanager
async def _bearer(config: Config, store: Store, callers: Callers, run_dir: Path) -> AsyncIterator[Authenticator]:
    """Yields the authenticator of headers. Without issuers, no code for tokens is loaded: it takes a quarter second."""
    keys = ApiKeys(store, callers)
    if not config.auth.issuers:
        yield keys
        return
    from parley.auth.bearer import Bearer
    from parley.auth.tokens.access_tokens import AccessTokens
    from parley.auth.tokens.verifier import Verifier
    from parley.backends.http.documents import HttpDocuments, SharedDocuments

    verifier = Verifier(config.auth.issuers, SharedDocuments(run_dir, HttpDocuments()))
    async with verifier.running():
        yield Bearer(keys, AccessTokens(verifier, store, callers))


@asynccontextmanager
async def _answer_cache(config: Config, store: Store, router: Router) -> AsyncIterator["AnswerCache | None"]:
    """Yields the cache of answers, None if no model has one, and completes its writes at the end."""
    if all(model.cache is None for model in config.models):
        yield None
        return
    from parley.core.cache.answers import AnswerCache
    from parley.core.cache.key import identities

    cache = AnswerCache(store, identities(config), router.temperature)
    try:
        yield cache
    finally:
        await cache.close()


@asynccontextmanager
async def _store_tasks(store: Store, monitor: StoreMonitor, config: Config) -> AsyncIterator[None]:
    """Runs the reaper and the monitor of the store."""
    reaper = Reaper(store, config.sessions.ttl)
    await monitor.check()
    reaper.start()
    monitor.start()
    try:
        yield
    finally:
        await reaper.stop()
        await monitor.stop()


def _delivery(config: Config, store: Store) -> AlertDelivery | None:
    """Returns the delivery of alerts of budgets; None if no webhook is configured."""
    if config.budgets.webhook is None:
        return None
    from parley.webhooks.receiver import WebhookReceiver  # imports an HTTP client, which takes a while

    return AlertDelivery(store, WebhookReceiver(config.budgets.webhook))


@asynccontextmanager
async def _alerts(budgets: BudgetMonitor, delivery: AlertDelivery | None) -> AsyncIterator[None]:
    """Runs the checks of budgets and the delivery of their alerts."""
    if delivery is not None:
        delivery.start()
    budgets.start()
    try:
        yield
    finally:
        await budgets.close()
        if delivery is not None:
            await delivery.close()


@asynccontextmanager
async def _health_checks(
    config: Config, backends: Mapping[str, Backend], router: Router, server: Server
) -> AsyncIterator[None]:
    """Runs the health checks of the backends that have one configured.

    Only models of this machine count for the health of the server. An outage of a vendor is the same for all replicas:
    if they all left the load balancer, callers would get no error that says so, and no model of another vendor.
    """
    own = {name for name, one in config.backends.items() if isinstance(one, LlamaCppBackend)}

    async def report() -> None:
        await server.models_changed(any(one.healthy or one.backend_name not in own for one in router.targets))

    checks = {name: check for name, one in config.backends.items() if (check := getattr(one, "health", None))}
    checker = HealthChecker(backends, checks, router.targets, report)
    checker.start()
    try:
        yield
    finally:
        await checker.stop()


@asynccontextmanager
async def _discovery(config: Config, backends: Mapping[str, Backend], router: Router) -> AsyncIterator[None]:
    """Reads the lists of models of the backends that have it configured; that of llama.cpp's servers is known."""
    for name, one in config.backends.items():
        if isinstance(one, LlamaCppBackend):
            from parley.backends.llama_cpp.launch import context

            names = {target.model for model in config.models for target in model.targets if target.backend == name}
            router.listed(name, dict.fromkeys(names, Metadata(context_length=context(one))))
    if not any(getattr(one, "discover", False) for one in config.backends.values()):
        yield
        return
    from parley.core.routing.discovery import discovering

    listing = {name: one for name, one in backends.items() if getattr(config.backends[name], "discover", False)}
    async with discovering(listing, router.listed):
        yield


@asynccontextmanager
async def _replicated_targets(config: Config, store: Store, router: Router, run_dir: Path) -> AsyncIterator[None]:
    """Exchanges the states of targets with other machines, if the store is one that they may share."""
    if not isinstance(store, TargetStore):
        yield
        return
    states = shared_states(run_dir)
    named = {common_name(one.name, config.backends[one.backend_name]): states(one.name) for one in router.targets}
    exchange = ReplicatedTargets(store, {name: state for name, state in named.items() if name}, leadership(run_dir))
    exchange.start()
    try:
        yield
    finally:
        await exchange.stop()


def do_not_list_generators() -> None:
    """Spares the running event loop its list of asynchronous generators, which takes 0.7 KB of each stream.

    With it `shutdown_asyncgens` closes generators at the end, when those of all calls are closed. The loop still closes
    generators that are dropped.
    """
    sys.set_asyncgen_hooks(firstiter=None)


def _tune_garbage_collector() -> None:
    """Excludes the objects of the start-up from garbage collection, and collects the rest less often.

    A collection before it would free a thousand objects and delay the start by a twentieth. A higher first threshold
    costs more, not less: a call leaves 14 objects, which are no longer in the caches of the CPU when 20,000 are looked
    at, and have grown to 3 MB then.
    """
    gc.freeze()
    gc.set_threshold(2_000, 50, 50)
