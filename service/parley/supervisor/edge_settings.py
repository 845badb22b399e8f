"""Settings of the edge: allowed CORS origins, host names of dialects, the limits of bodies and connections."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parley.supervisor.addresses import Address
from parley.supervisor.certificates import TlsFiles

if TYPE_CHECKING:
    from parley.tracing.settings import TracingSettings

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6}
_SIZE = re.compile(r"(\d+) *([A-Za-z]*)")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/?#,]+")
_CLIENT = re.compile(r"(https?://[^\s?#=]+)=(\S+)")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?")
DIALECTS = ("chipp", "upchatty", "fastapi", "openpipe", "openai")
MAX_BODY = 8 * 2**20
MAX_STREAMS = 100
MAX_CONNECTION_AGE = 600.0
MAX_CONNECTIONS_PER_ADDRESS = 2_500
MIN_HEAP, MAX_HEAP = 64 * 2**20, 256 * 2**30
_MIN_BODY_LIMIT = 2**10
# A worker's gRPC server accepts messages of 32 MiB, which hold the body and a little more.
_MAX_BODY_LIMIT = 30 * 2**20


@dataclass(frozen=True, slots=True)
class SignIn:
    """An issuer at which the page at `/` offers sign-in, with an authorization code and PKCE.

    Attributes:
        issuer: The identifier of the issuer.
        client_id: The id under which the issuer knows the page, as a public client.
        scopes: The scopes that the page requests.
        id_token: Whether the page sends the ID token as its credential, instead of the access token.
        parameters: Further parameters of the authorization request, and their values.
        origins: Origins of the issuer's endpoints, besides its own.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    id_token: bool = False
    parameters: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Settings of the listeners, and of a worker without Envoy.

    Attributes:
        cors_origins: Origins of web pages that may call REST, `*` for all.
        max_body: The largest request body or gRPC message, in bytes.
        dialect_hosts: `DIALECT=HOST` each: host names that select a dialect, besides those of `edge/envoy.yaml`.
        max_streams: The most concurrent calls of one HTTP/2 connection; further calls wait in the client.
        max_connection_age: Seconds after which a client is requested to open another connection; 0 for no limit.
            Running calls finish on the old connection.
        grpc_web: Whether the REST listener serves gRPC-Web and Connect.
        tls: The files of the listeners' TLS; None for none.
        trusted_hops: The number of proxies in front whose `x-forwarded-for` names the client.
        resource_metadata: The URL of the metadata of the protected resource (RFC 9728) in challenges, or its path,
            which the request's scheme and host complete; None if no access tokens are accepted.
        admin: The address of the admin listener; None for no such listener. Of a worker without Envoy, its address for
            the admin listener of another machine's Envoy.
        reflection: Whether gRPC reflection is served.
        max_heap: The limit of Envoy's heap in bytes; 0 for 160 MiB, or 20 bodies of the largest size.
        max_connections_per_address: The most connections of one client address; 0 for no limit.
        threads: The number of Envoy's threads; 0 for a quarter of the cores, at least two.
        tracing: Where Envoy sends traces; None for none.
        page: Whether the REST listener serves the page at `/`.
        sign_in: The issuers at which the page offers sign-in.
        site: Whether the REST listener serves the documentation at `/docs/`.
        operations: Whether the admin listener serves the operations of the running service, which the workers of one
            machine have in common.
    """

    cors_origins: tuple[str, ...] = ()
    max_body: int = MAX_BODY
    dialect_hosts: tuple[str, ...] = ()
    max_streams: int = MAX_STREAMS
    max_connection_age: float = MAX_CONNECTION_AGE
    grpc_web: bool = False
    tls: TlsFiles | None = None
    trusted_hops: int = 0
    resource_metadata: str | None = None
    admin: Address | None = None
    reflection: bool = True
    max_heap: int = 0
    max_connections_per_address: int = MAX_CONNECTIONS_PER_ADDRESS
    threads: int = 0
    tracing: "TracingSettings | None" = None
    page: bool = True
    sign_in: tuple[SignIn, ...] = ()
    site: bool = True
    operations: bool = True

    @property
    def address_limit(self) -> int:
        """Returns the most connections of one address; 0 for no limit, as behind proxies that have all of them."""
        return 0 if self.trusted_hops else self.max_connections_per_address


DEFAULT_EDGE = EdgeSettings()


def parse_size(text: str, least: int = _MIN_BODY_LIMIT, most: int = _MAX_BODY_LIMIT) -> int:
    """Parses `20MiB`, `500KiB` or `1000000`; returns bytes. Raises ValueError, also outside the bounds."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f'"{text}" is not a size; write for example 20MiB')
    size = int(match[1]) * unit
    if not least <= size <= most:
        bounds = " to ".join(write_size(bound).replace(" ", "") for bound in (least, most))
        raise ValueError(f'"{text}" is out of bounds; choose a size from {bounds}')
    return size


def write_size(size: int) -> str:
    """Formats a size in bytes: `8 MiB`, `500 KiB`, `1000000 bytes`."""
    for unit, length in (("MiB", 2**20), ("KiB", 2**10)):
        if size % length == 0:
            return f"{size // length} {unit}"
    return f"{size} bytes"


def parse_origin(text: str) -> str:
    """Returns the origin. Raises ValueError unless it is `*` or has the form of an `Origin` header."""
    if not _ORIGIN.fullmatch(text):
        example = "https://app.example.com, without a path, or *"
        raise ValueError(f'"{text}" is not an origin for --cors-origin; write for example {example}.')
    return text


def parse_sign_in(text: str) -> SignIn:
    """Parses `ISSUER=CLIENT_ID`. Raises ValueError."""
    match = _CLIENT.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not ISSUER=CLIENT_ID; write for example https://login.example.com=parley-page')
    return SignIn(match[1], match[2])


def parse_dialect_host(text: str) -> str:
    """Returns `DIALECT=HOST` in lower case; the host may begin with `*.` or end with `.*`. Raises ValueError."""
    dialect, _, host = text.lower().partition("=")
    if dialect not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise ValueError(f'"{text}" names no dialect ({known}); write for example upchatty=chat.example.com')
    if not _HOST.fullmatch(host) or (host.startswith("*.") and host.endswith(".*")):
        example = f"{dialect}=chat.example.com, without a port or path"
        raise ValueError(f'"{text}" has no host name; write for example {example}')
    return f"{dialect}={host}"
