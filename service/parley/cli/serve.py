"""`parley serve`: one worker without Envoy."""

import asyncio
import os
from math import inf
from typing import Annotated

from cyclopts import Parameter

from parley.cli.shared import connection, model_files, options, startup
from parley.cli.shared.admin_key import with_admin_key
from parley.cli.shared.checks import check_address, check_config, require_private
from parley.cli.shared.edge_options import MaxBodyOption, MaxConnectionAgeOption, MaxStreamsOption, NoReflectionOption
from parley.cli.shared.process_settings import process_settings
from parley.config.loader import load
from parley.logs.output import Output
from parley.supervisor import folders
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import MAX_BODY, MAX_STREAMS, EdgeSettings
from parley.supervisor.limits import restrict_new_files
from parley.supervisor.liveness import HangLimits
from parley.supervisor.messages import Claim, StoreOpened
from parley.supervisor.paths import Paths, ShutdownTimes
from parley.supervisor.plan import Plan
from parley.supervisor.store_wait import StoreStartup
from parley.tracing import settings as tracing_settings

ServedAdminOption = Annotated[
    Address | None,
    options.ADDRESS_PARAMETER,
    Parameter(
        name="--admin",
        env_var="PARLEY_ADMIN",
        help="Address for `parley edge --admin-workers`, HOST:PORT; needs an admin key. Default: none.",
    ),
]


def serve(  # noqa: PLR0913 - one parameter an option
    *,
    config: options.ConfigOption = None,
    state_dir: options.StateDirOption = None,
    listen: options.ListenOption = Address("127.0.0.1", 50051),  # noqa: B008 - a constant
    metrics: options.MetricsOption = None,
    admin: ServedAdminOption = None,
    admin_key_file: options.AdminKeyFileOption = None,
    max_body: MaxBodyOption = MAX_BODY,
    max_streams: MaxStreamsOption = MAX_STREAMS,
    max_connection_age: MaxConnectionAgeOption = "10m",
    no_reflection: NoReflectionOption = False,
    log_level: options.LogLevelOption = "info",
    quiet: options.QuietOption = False,
    hang_timeout: options.HangTimeoutOption = "5s",
    shutdown_grace: options.ShutdownGraceOption = "10s",
    behind_edge: options.BehindEdgeOption = False,
    insecure: options.InsecureOption = False,
) -> None:
    """Run one worker, gRPC only, without Envoy; for example one per container. Starts the built-in model if configured.

    Several workers may share a state folder. SIGTERM finishes the running calls and stops.
    """
    checked = load(config)
    check_config(checked, config)
    tracing_settings.read(os.environ)  # an error is reported before any process starts
    # Callers of this port could claim any certificate: only Envoy checks them.
    checked = with_admin_key(admin, admin_key_file, checked, certificates=False)
    for address, option in ((listen, "--listen"), (admin, "--admin")) if not insecure else ():
        require_private(address or listen, option, "run `parley up` with `tls` in the configuration")
    for address, option in ((listen, "--listen"), (metrics, "--metrics"), (admin, "--admin")):
        if address is not None:
            check_address(address, option)
    state = folders.state_dir(state_dir)
    age = options.seconds(max_connection_age, "--max-connection-age")
    limits = EdgeSettings(
        max_body=max_body, max_streams=max_streams, max_connection_age=age, reflection=not no_reflection, admin=admin
    )
    hang = HangLimits.of(options.seconds(hang_timeout, "--hang-timeout"))
    level = options.log_level(log_level, quiet)
    supervisor = connection.supervisor()
    run_dir = supervisor.request(Claim(None))
    times = ShutdownTimes(0, options.seconds(shutdown_grace, "--shutdown-grace"))
    paths = Paths(state, run_dir, None, listen, limits, level, times, hang, behind_edge)
    with startup.summary(quiet=quiet) as shown:
        checked = model_files.fetched(checked, state, shown, quiet=quiet)
    supervisor.send(Plan(process_settings(checked, config), paths, workers=1, quiet=quiet, metrics=metrics))
    restrict_new_files()
    store = StoreStartup(checked.store, state, inf)
    supervisor.send(StoreOpened(asyncio.run(store.first_identity())))
    with startup.summary(quiet=quiet) as shown:
        serving = connection.wait_serving(shown)
    more = f"\nmetrics  http://{serving.metrics.to_call()}/metrics" if metrics and serving.metrics else ""
    more += f"\nadmin    {admin} for Envoy" if admin else ""
    Output(1).write(f"gRPC  {serving.grpc}{more}\n\nCtrl-C stops it.\n".encode())
    asyncio.run(store.end())
    supervisor.send(StoreOpened(store.identity))
