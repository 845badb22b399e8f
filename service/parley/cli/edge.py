"""`parley edge`: Envoy on its own, in front of workers of `parley serve --behind-edge` on other machines."""

import asyncio
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

from parley.cli.shared import options
from parley.cli.shared.checks import require_private
from parley.cli.shared.edge_options import (
    CorsOriginOption,
    DialectHostOption,
    GrpcWebOption,
    MaxBodyOption,
    MaxConnectionAgeOption,
    MaxHeapOption,
    MaxStreamsOption,
    NoDocsOption,
    NoPageOption,
    NoReflectionOption,
    SignInOption,
    TrustedHopsOption,
)
from parley.supervisor import envoy, static_edge
from parley.supervisor.addresses import Address
from parley.supervisor.certificates import TlsFiles
from parley.supervisor.edge_settings import MAX_BODY, MAX_STREAMS, EdgeSettings
from parley.supervisor.errors import CommandError
from parley.supervisor.limits import default_heap
from parley.supervisor.static_edge import Listeners
from parley.tracing import settings as tracing_settings

_HTTP, _GRPC = Address("127.0.0.1", 8080), Address("127.0.0.1", 50051)
_RUN = "parley edge run /run/parley --workers dns:parley-workers:50051 --http 0.0.0.0:8080 --insecure"
_RENDER = "parley edge render /etc/parley/edge --workers dns:parley-workers:50051"
_DRAIN = "parley edge drain /run/parley --shutdown-grace 60s"
app = App(
    name="edge",
    help="Run Envoy on its own, in front of workers of `parley serve --behind-edge` on other machines.",
    help_epilogue=f"Example:\n  {_RUN}",
    help_format="plaintext",
)


def _to_workers(_type: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Checks the addresses of the workers for cyclopts; a variable separates several by spaces."""
    texts = tuple(token.value for token in tokens)
    static_edge.parse_workers(texts)
    return texts


_WORKERS = Parameter(converter=_to_workers, negative=(), show_default=False)

Folder = Annotated[Path, Parameter(help="The folder of Envoy's configuration, its Lua files and its admin socket.")]
Workers = Annotated[
    tuple[str, ...],
    _WORKERS,
    Parameter(
        name="--workers",
        env_var="PARLEY_EDGE_WORKERS",
        help="dns:HOST:PORT, where each address of the name is a worker, resolved every second; repeatable. Or a file "
        "with Envoy's list of the endpoints of the cluster `workers` (EDS), which is followed.",
    ),
]
MetricsOption = Annotated[
    Address | None,
    options.ADDRESS_PARAMETER,
    Parameter(
        name="--metrics",
        env_var="PARLEY_EDGE_METRICS",
        help="Address of Envoy's statistics for Prometheus, at /metrics, HOST:PORT. Default: none.",
    ),
]
AdminOption = Annotated[
    Address | None,
    options.ADDRESS_PARAMETER,
    Parameter(
        name="--admin",
        env_var="PARLEY_EDGE_ADMIN",
        help="Address of the admin API and the Console, HOST:PORT; needs --admin-workers. Default: none.",
    ),
]
AdminWorkers = Annotated[
    tuple[str, ...],
    _WORKERS,
    Parameter(
        name="--admin-workers",
        env_var="PARLEY_EDGE_ADMIN_WORKERS",
        help="As --workers, with the addresses of `parley serve --admin`; of a file, the cluster is `admin_workers`.",
    ),
]
ThreadsOption = Annotated[
    int,
    Parameter(
        name="--threads",
        env_var="PARLEY_EDGE_THREADS",
        validator=Number(gte=0, lte=256),
        help="Number of Envoy's threads; large bodies in progress share its heap among them. 0 for a quarter of the "
        "machine's cores, at least two; in a container, set its share.",
    ),
]
TlsCertificate = Annotated[
    Path | None,
    Parameter(
        name="--tls-certificate",
        env_var="PARLEY_TLS_CERTIFICATE",
        help="PEM file with the certificate of both listeners and its intermediate certificates. Envoy reads it again "
        "when a file is moved into its folder.",
    ),
]
TlsKey = Annotated[
    Path | None,
    Parameter(name="--tls-key", env_var="PARLEY_TLS_KEY", help="PEM file with the private key, without a passphrase."),
]
ClientCa = Annotated[
    Path | None,
    Parameter(
        name="--client-ca",
        env_var="PARLEY_CLIENT_CA",
        help="PEM file of the authorities of client certificates on the gRPC listener; the workers need `auth.mtls`.",
    ),
]
ClientRequired = Annotated[
    bool,
    Parameter(
        name="--client-required",
        env_var="PARLEY_CLIENT_REQUIRED",
        negative=(),
        help="Refuse connections of gRPC without a client certificate.",
    ),
]
ClientName = Annotated[
    Literal["san_dns", "san_uri", "san_email"],
    Parameter(
        name="--client-name", env_var="PARLEY_CLIENT_NAME", help="What of a client certificate names its account."
    ),
]
ResourceMetadata = Annotated[
    str | None,
    Parameter(
        name="--resource-metadata",
        env_var="PARLEY_RESOURCE_METADATA",
        help="URL or path of the metadata for access tokens (RFC 9728) in challenges. Set it if `auth.issuers` is set.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """The options of `render` and `run`, one field each."""

    workers: Workers
    http: options.HttpOption = _HTTP
    grpc: options.GrpcOption = _GRPC
    metrics: MetricsOption = None
    admin: AdminOption = None
    admin_workers: AdminWorkers = ()
    tls_certificate: TlsCertificate = None
    tls_key: TlsKey = None
    client_ca: ClientCa = None
    client_required: ClientRequired = False
    client_name: ClientName = "san_dns"
    resource_metadata: ResourceMetadata = None
    cors_origin: CorsOriginOption = ()
    max_body: MaxBodyOption = MAX_BODY
    max_streams: MaxStreamsOption = MAX_STREAMS
    max_connection_age: MaxConnectionAgeOption = "10m"
    max_heap: MaxHeapOption = None
    grpc_web: GrpcWebOption = False
    no_reflection: NoReflectionOption = False
    no_page: NoPageOption = False
    sign_in: SignInOption = ()
    no_docs: NoDocsOption = False
    dialect_host: DialectHostOption = ()
    trusted_hops: TrustedHopsOption = 0
    threads: ThreadsOption = 0
    insecure: options.InsecureOption = False

    def tls(self) -> TlsFiles | None:
        """Returns the files of TLS. Raises CommandError if one is missing."""
        if self.tls_certificate is None and self.tls_key is None and self.client_ca is None:
            return None
        if self.tls_certificate is None or self.tls_key is None:
            raise CommandError("TLS needs a certificate and its key; give --tls-certificate and --tls-key")
        return TlsFiles(self.tls_certificate, self.tls_key, self.client_ca, self.client_required, self.client_name)

    def settings(self) -> EdgeSettings:
        """Returns the settings of the listeners. Raises CommandError."""
        return EdgeSettings(
            self.cors_origin,
            self.max_body,
            self.dialect_host,
            self.max_streams,
            options.seconds(self.max_connection_age, "--max-connection-age"),
            self.grpc_web,
            self.tls(),
            self.trusted_hops,
            self.resource_metadata,
            self.admin,
            reflection=not self.no_reflection,
            max_heap=self.max_heap or default_heap(self.max_body),
            threads=self.threads,
            tracing=tracing_settings.read(os.environ),
            page=not self.no_page,
            sign_in=self.sign_in,
            site=not self.no_docs,
        )


@app.command(help_epilogue=f"Example:\n  {_RENDER}")
def render(folder: Folder, /, *, edge: EdgeOptions) -> None:
    """Write Envoy's configuration and what it reads; print the command that starts Envoy in that folder."""
    config = _write(folder, edge)
    print(f"cd {shlex.quote(str(config.parent))} && {shlex.join(envoy.command(config, threads=edge.threads))}")


@app.command(help_epilogue=f"Example:\n  {_RUN}")
def run(
    folder: Folder,
    /,
    *,
    edge: EdgeOptions,
    shutdown_delay: options.ShutdownDelayOption = "5s",
    shutdown_grace: options.ShutdownGraceOption = "15s",
) -> None:
    """Write Envoy's configuration and run Envoy. SIGTERM sends callers away and waits for running calls."""
    delay = options.seconds(shutdown_delay, "--shutdown-delay")
    grace = options.seconds(shutdown_grace, "--shutdown-grace")
    arguments = static_edge.command(_write(folder, edge), delay, grace, edge.threads)
    os.execv(arguments[0], arguments)  # noqa: S606 - the arguments are made above


@app.command(help_epilogue=f"Example:\n  {_DRAIN}")
def drain(
    folder: Folder,
    /,
    *,
    shutdown_delay: options.ShutdownDelayOption = "5s",
    shutdown_grace: options.ShutdownGraceOption = "15s",
) -> None:
    """Send the callers of `parley edge run` away and wait for their running calls, as a preStop hook does."""
    delay = options.seconds(shutdown_delay, "--shutdown-delay")
    grace = options.seconds(shutdown_grace, "--shutdown-grace")
    asyncio.run(static_edge.drain(folder, delay, grace))


def _write(folder: Path, edge: EdgeOptions) -> Path:
    """Checks the options and writes the files of Envoy. Returns the configuration. Raises CommandError."""
    settings = edge.settings()
    if not (settings.tls or edge.insecure):
        for address, option in ((edge.http, "--http"), (edge.grpc, "--grpc"), (edge.admin, "--admin")):
            require_private(address or edge.http, option, "give --tls-certificate and --tls-key")
    if bool(edge.admin) != bool(edge.admin_workers):
        raise CommandError("give both --admin and --admin-workers, with the addresses of `parley serve --admin`")
    listeners = Listeners(edge.http, edge.grpc, edge.metrics)
    workers, admin_workers = (static_edge.parse_workers(texts) for texts in (edge.workers, edge.admin_workers))
    return static_edge.write(folder, listeners, workers, settings, admin_workers)
