"""`parley up`: starts, supervises and stops all processes."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from parley.cli.shared import connection, first_key, model_files, options, startup
from parley.cli.shared.admin_key import with_admin_key
from parley.cli.shared.checks import check_address, check_config, check_ready_file, require_private, tls_files
from parley.cli.shared.edge_options import (
    CorsOriginOption,
    DialectHostOption,
    GrpcWebOption,
    MaxBodyOption,
    MaxConnectionAgeOption,
    MaxConnectionsPerAddressOption,
    MaxHeapOption,
    MaxStreamsOption,
    NoDocsOption,
    NoPageOption,
    NoReflectionOption,
    TrustedHopsOption,
)
from parley.cli.shared.process_settings import process_settings, tls_settings
from parley.cli.shared.sign_in import sign_in
from parley.config import Config
from parley.config.loader import load, located_error
from parley.logs.output import Output
from parley.supervisor import edge_site, envoy, folders
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import MAX_BODY, MAX_CONNECTIONS_PER_ADDRESS, MAX_STREAMS, EdgeSettings
from parley.supervisor.errors import CommandError
from parley.supervisor.limits import default_heap, restrict_new_files
from parley.supervisor.liveness import HangLimits
from parley.supervisor.messages import Claim, Reload, Serving, StoreOpened
from parley.supervisor.paths import Paths, ShutdownTimes
from parley.supervisor.plan import Plan
from parley.supervisor.store_wait import StoreStartup
from parley.tracing import settings as tracing_settings


def up(  # noqa: PLR0913 - one parameter an option
    *,
    config: options.ConfigOption = None,
    state_dir: options.StateDirOption = None,
    http: options.HttpOption = Address("127.0.0.1", 8080),  # noqa: B008 - a constant
    grpc: options.GrpcOption = Address("127.0.0.1", 50051),  # noqa: B008 - a constant
    metrics: options.MetricsOption = None,
    admin: options.AdminOption = None,
    admin_key_file: options.AdminKeyFileOption = None,
    workers: Annotated[
        int | None,
        Parameter(
            env_var="PARLEY_WORKERS",
            validator=Number(gte=1, lte=256),
            help="Number of worker processes. Default: one per core, at most 4.",
        ),
    ] = None,
    cors_origin: CorsOriginOption = (),
    max_body: MaxBodyOption = MAX_BODY,
    max_streams: MaxStreamsOption = MAX_STREAMS,
    max_connection_age: MaxConnectionAgeOption = "10m",
    max_connections_per_address: MaxConnectionsPerAddressOption = MAX_CONNECTIONS_PER_ADDRESS,
    max_heap: MaxHeapOption = None,
    grpc_web: GrpcWebOption = False,
    no_reflection: NoReflectionOption = False,
    no_page: NoPageOption = False,
    no_docs: NoDocsOption = False,
    dialect_host: DialectHostOption = (),
    ready_file: options.ReadyFileOption = None,
    log_level: options.LogLevelOption = "info",
    quiet: options.QuietOption = False,
    wait_for_store: options.WaitForStoreOption = "5m",
    shutdown_delay: options.ShutdownDelayOption = "5s",
    shutdown_grace: options.ShutdownGraceOption = "15s",
    hang_timeout: options.HangTimeoutOption = "5s",
    trusted_hops: TrustedHopsOption = 0,
    insecure: options.InsecureOption = False,
) -> None:
    """Start everything: workers, Envoy, and the built-in model if configured. Ctrl-C stops everything.

    SIGHUP reads the configuration again and replaces the workers; no request fails.
    """
    supervisor = connection.supervisor()
    if isinstance(supervisor.first, Reload):
        checked = with_admin_key(admin, admin_key_file, _check_reload(config, supervisor.first.tls))
        checked = model_files.fetched(checked, folders.state_dir(state_dir), None, quiet=quiet)
        supervisor.send(process_settings(checked, config))
        return
    state = folders.state_dir(state_dir)
    age = options.seconds(max_connection_age, "--max-connection-age")
    wait_seconds = options.seconds(wait_for_store, "--wait-for-store")
    run_dir = supervisor.request(Claim(state))
    checked = _check(config, http, grpc, ready_file)
    if metrics is not None:
        check_address(metrics, "--metrics")
    if not (checked.tls or insecure):
        for address, option in ((http, "--http"), (grpc, "--grpc"), (admin, "--admin")):
            require_private(address or http, option, "set `tls` in the configuration")
    checked = with_admin_key(admin, admin_key_file, checked)
    edge = EdgeSettings(
        cors_origin,
        max_body,
        dialect_host,
        max_streams,
        age,
        grpc_web,
        tls_files(checked),
        trusted_hops,
        checked.auth.metadata_url,
        admin,
        not no_reflection,
        max_heap or default_heap(max_body),
        max_connections_per_address,
        tracing=tracing_settings.read(os.environ),
        page=not no_page,
        sign_in=sign_in(checked.auth),
        site=not no_docs,
    )
    times = ShutdownTimes(
        options.seconds(shutdown_delay, "--shutdown-delay"), options.seconds(shutdown_grace, "--shutdown-grace")
    )
    hang = HangLimits.of(options.seconds(hang_timeout, "--hang-timeout"))
    level = options.log_level(log_level, quiet)
    with startup.summary(quiet=quiet) as shown:
        if shown is not None:
            shown.done(startup.configuration_step(config, checked))
        checked = model_files.fetched(checked, state, shown, quiet=quiet)
    plan = Plan(
        process_settings(checked, config),
        Paths(state, run_dir, http, grpc, edge, level, times, hang),
        workers or options.default_workers(),
        envoy.render_in(run_dir, http, grpc, edge),
        quiet=quiet,
        reloads=True,
        ready_file=ready_file,
        scheme=first_key.scheme(checked),
        metrics=metrics,
    )
    supervisor.send(plan)
    restrict_new_files()
    store = StoreStartup(checked.store, state, wait_seconds)
    supervisor.send(StoreOpened(asyncio.run(store.first_identity())))
    with startup.summary(quiet=quiet) as shown:
        if shown is not None:
            shown.done(startup.store_step(checked, state, is_open=store.identity is not None))
        serving = connection.wait_serving(shown)
    asyncio.run(_greet(store, serving, checked, plan.paths, first_key.create_command(config, state)))
    supervisor.send(StoreOpened(store.identity))


async def _greet(store: StoreStartup, serving: Serving, config: Config, paths: Paths, another: str) -> None:
    """Waits for the store, creates the first key and prints the addresses. Raises CommandError."""
    await store.end()
    key = await first_key.create(config, paths.state_dir)
    assert serving.http  # noqa: S101 - for the type checker
    page, docs = paths.edge.page, paths.edge.site and edge_site.is_built(envoy.edge_dir())
    text = first_key.greeting(
        serving.http, serving.grpc, key, config, another=another, page=page, docs=docs, admin=serving.admin
    )
    Output(1).write(text.encode())


def _check(config: Path | None, http: Address, grpc: Address, ready_file: Path | None) -> Config:
    """Checks the configuration, the addresses and the ready file. Raises ConfigError, CommandError."""
    checked = _check_again(config)
    if http == grpc and http.port:
        raise CommandError(f"{http} is given to both --http and --grpc; choose another for one of them")
    check_address(http, "--http")
    check_address(grpc, "--grpc")
    check_ready_file(ready_file)
    return checked


def _check_again(config: Path | None) -> Config:
    """Loads and checks the configuration, also for a reload. Raises ConfigError."""
    checked = load(config)
    check_config(checked, config)
    return checked


def _check_reload(file: Path | None, running_tls: str) -> Config:
    """Checks the configuration of a reload. Raises ConfigError."""
    checked = _check_again(file)
    if tls_settings(checked) != running_tls:
        message = "tls: changes of `tls`, `auth.mtls` and `admin.mtls` need a restart; changed files do not"
        raise located_error(file, [message])
    return checked
