"""The options of `parley up` and `parley serve` for listeners."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from parley.supervisor.edge_settings import (
    DIALECTS,
    MAX_HEAP,
    MIN_HEAP,
    SignIn,
    parse_dialect_host,
    parse_origin,
    parse_sign_in,
    parse_size,
    write_size,
)


def _to_size(_type: object, tokens: Sequence[Token]) -> int:
    """Converts a size for cyclopts."""
    return parse_size(tokens[0].value)


def _to_heap(_type: object, tokens: Sequence[Token]) -> int:
    """Converts the size of a heap for cyclopts."""
    return parse_size(tokens[0].value, MIN_HEAP, MAX_HEAP)


def _to_origins(_type: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Converts origins for cyclopts; a variable separates several by spaces."""
    return tuple(parse_origin(token.value) for token in tokens)


def _to_dialect_hosts(_type: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Converts hosts for cyclopts; a variable separates several by spaces."""
    found = tuple(dict.fromkeys(parse_dialect_host(token.value) for token in tokens))
    host, times = Counter(text.partition("=")[2] for text in found).most_common(1)[0]
    if times > 1:
        raise ValueError(f'"{host}" is given to more than one dialect')
    return found


def _to_sign_in(_type: object, tokens: Sequence[Token]) -> tuple[SignIn, ...]:
    """Converts issuers with the page's client for cyclopts; a variable separates several by spaces."""
    return tuple(parse_sign_in(token.value) for token in tokens)


_REPEATABLE = Parameter(negative=(), show_default=False)
CorsOriginOption = Annotated[
    tuple[str, ...],
    _REPEATABLE,
    Parameter(
        name="--cors-origin",
        env_var="PARLEY_CORS_ORIGIN",
        converter=_to_origins,
        help="Origins of web pages that may call REST: https://app.example.com, or * for all. Repeatable. "
        "Default: none.",
    ),
]
MaxBodyOption = Annotated[
    int,
    Parameter(
        name="--max-body",
        env_var="PARLEY_MAX_BODY",
        converter=_to_size,
        show_default=write_size,
        n_tokens=1,
        accepts_keys=False,
        help="The largest request body or gRPC message, up to 30MiB; a 20 MB image needs 28MiB.",
    ),
]
MaxStreamsOption = Annotated[
    int,
    Parameter(
        name="--max-streams",
        env_var="PARLEY_MAX_STREAMS",
        validator=Number(gte=1, lte=100_000),
        help="The most concurrent calls of one HTTP/2 connection. Further calls wait in the client.",
    ),
]
MaxConnectionAgeOption = Annotated[
    str,
    Parameter(
        name="--max-connection-age",
        env_var="PARLEY_MAX_CONNECTION_AGE",
        help="After this time a client is requested to open another connection, so that new replicas get calls: 30s, "
        "1h. Running calls and streams finish on the old one. 0 for no limit.",
    ),
]
MaxHeapOption = Annotated[
    int | None,
    Parameter(
        name="--max-heap",
        env_var="PARLEY_MAX_HEAP",
        converter=_to_heap,
        n_tokens=1,
        accepts_keys=False,
        help="The limit of Envoy's heap: 512MiB, 2GiB. Large requests in progress may fill half of it; further ones "
        "get 429. Close to it, calls get 503. 1,000 open streams need 90 MiB. Default: an eighth of the memory, from "
        "160MiB to 2GiB, but at least 20 times --max-body.",
    ),
]
MaxConnectionsPerAddressOption = Annotated[
    int,
    Parameter(
        name="--max-connections-per-address",
        env_var="PARLEY_MAX_CONNECTIONS_PER_ADDRESS",
        validator=Number(gte=0, lte=1_000_000),
        help="The most connections of one client address, of IPv6 of a /64 network; further ones are refused. 0 for no "
        "limit, as with --trusted-hops, where the proxies have all connections.",
    ),
]
NoReflectionOption = Annotated[
    bool,
    Parameter(
        name="--no-reflection",
        env_var="PARLEY_NO_REFLECTION",
        negative=(),
        help="Serve no gRPC reflection, which shows grpcurl and other tools what the public protos contain.",
    ),
]
NoDocsOption = Annotated[
    bool,
    Parameter(
        name="--no-docs",
        env_var="PARLEY_NO_DOCS",
        negative=(),
        help="Serve no documentation at /docs/ of the REST listener. It is the same for all, and needs no key.",
    ),
]
GrpcWebOption = Annotated[
    bool,
    Parameter(
        name="--grpc-web",
        env_var="PARLEY_GRPC_WEB",
        negative=(),
        help="Serve gRPC-Web and Connect on the REST listener; browsers also need --cors-origin.",
    ),
]
NoPageOption = Annotated[
    bool,
    Parameter(
        name="--no-page",
        env_var="PARLEY_NO_PAGE",
        negative=(),
        help="Serve no page at /, where callers try the models in a browser.",
    ),
]
SignInOption = Annotated[
    tuple[SignIn, ...],
    _REPEATABLE,
    Parameter(
        name="--sign-in",
        env_var="PARLEY_SIGN_IN",
        converter=_to_sign_in,
        n_tokens=1,
        accepts_keys=False,
        help="ISSUER=CLIENT_ID: an issuer of `auth.issuers`, and the id of the page at / as its public client. The "
        "page then offers sign-in there. Repeatable. Default: none.",
    ),
]
TrustedHopsOption = Annotated[
    int,
    Parameter(
        name="--trusted-hops",
        env_var="PARLEY_TRUSTED_HOPS",
        validator=Number(gte=0, lte=20),
        help="The number of proxies in front that add their client's address to X-Forwarded-For. With 0, the header is "
        "not trusted.",
    ),
]
DialectHostOption = Annotated[
    tuple[str, ...],
    _REPEATABLE,
    Parameter(
        name="--dialect-host",
        env_var="PARLEY_DIALECT_HOST",
        converter=_to_dialect_hosts,
        help="Host names that select the dialect of requests and errors on paths that name none: "
        f"upchatty=chat.example.com, openpipe=*.pipes.example.com. Dialects: {', '.join(DIALECTS)}. Repeatable.",
    ),
]
