"""What the requests to a backend over HTTP carry beside their body, and how they reach it."""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from parley.config.markers import After, Before, Constraints
from parley.config.types import Strict, matches, restore_off

_PRINTABLE = re.compile(r"[!-~]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110, 5.6.2
_KEY_HEADER = rf"{_TOKEN}(?:: {_TOKEN})?"
OWN_HEADERS = frozenset(
    (
        *("host", "content-length", "content-type", "transfer-encoding", "accept-encoding", "connection", "keep-alive"),
        *("te", "trailer", "upgrade", "expect", "proxy-authorization", "proxy-connection"),
        *("x-parley-hops", "traceparent", "tracestate"),
    )
)
"""Headers that the client sets itself, or that belong to the connection (RFC 9110, 7.6.1)."""
_NEVER_FORWARDED = OWN_HEADERS | frozenset({"authorization", "cookie", "proxy-authenticate", "content-encoding"})
_MAX_FORWARDED = 32


def _printable_key(text: str) -> str:
    """Rejects text that an HTTP header cannot carry."""
    if not text:
        raise ValueError("is empty; set it, or remove it")
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("must be one word of printable ASCII, without line breaks")
    return text


def _headers(values: dict[str, str]) -> dict[str, str]:
    """Rejects headers that cannot be sent. The error never repeats a value, which may be secret."""
    seen: set[str] = set()
    for name, value in values.items():
        if not re.fullmatch(_TOKEN, name):
            raise ValueError("the names must be of letters, digits and hyphens")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f'"{name}" is set by Parley itself; remove it')
        if name.lower() in seen:
            raise ValueError(f'"{name}" is set twice; remove one of them')
        if value and not _VALUE.fullmatch(value):
            raise ValueError(f'the value of "{name}" must be printable ASCII, without line breaks')
        seen.add(name.lower())
    return values


def _forwarded(names: list[str]) -> list[str]:
    """Rejects headers of callers that no backend may receive; returns the names in lower case."""
    found = [name.lower() for name in names]
    for name in found:
        if not re.fullmatch(_TOKEN, name):
            raise ValueError("the names must be of letters, digits and hyphens")
        if name in _NEVER_FORWARDED or name.startswith(("parley-", "grpc-")) or name.endswith("-bin"):
            raise ValueError(f'"{name}" is never forwarded; remove it')
    return list(dict.fromkeys(found))


def _proxy(text: str) -> str:
    """Rejects text that is not the URL of a proxy. The error never repeats the text: it may hold a password."""
    if text == "off":
        return text
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not _PRINTABLE.fullmatch(text):
        raise ValueError('must be `off` or a URL, for example "http://proxy.internal:3128"')
    return text


class RemoteBackend(Strict):
    """What every backend on another machine has: further headers, and certificates."""

    headers: Annotated[dict[str, str], After(_headers)] = field(default_factory=dict, repr=False)
    """Headers of every request."""
    forward_headers: Annotated[list[str], After(_forwarded), Constraints(max_length=_MAX_FORWARDED)] = field(
        default_factory=list
    )
    """Names of callers' headers, or of gRPC metadata, that the backend receives. Those with the caller's own key are
    never forwarded."""
    ca: Path | None = None
    """PEM file of the certificate authorities. Default: those of the system."""
    client_certificate: Path | None = None
    """PEM file of the client certificate, which may also have its key."""
    client_key: Path | None = None
    """PEM file of the key of the client certificate. Default: in `client_certificate`."""

    def __post_init__(self) -> None:
        """Checks the fields that exclude each other."""
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key: needs `client_certificate`; set it")
        own = {name.lower() for name in self.headers}
        if (key_name := self.key_name) in own:
            raise ValueError(f'headers: "{key_name}" is the header of the key; remove it, or the key')
        for name in self.forward_headers:
            if name in own or name == key_name:
                raise ValueError(f'forward_headers: "{name}" is set by this backend; remove it here or there')

    @property
    def key_name(self) -> str | None:
        """The name of the header that has the key, in lower case; None if there is no key, or none in a header."""
        raise NotImplementedError


ApiKey = Annotated[str, After(_printable_key)]
_PATH_ERROR = (
    'must be a path without a query, for example "/chat/completions"; only {model} may be in braces, and a query'
    " belongs to `query`"
)
RequestPath = Annotated[str, matches(r"/(?:[!-~](?<![?#{}])|\{model\})*", _PATH_ERROR)]


class UpstreamRequests(RemoteBackend):
    """What the requests to a backend carry beside their body, and how they reach it."""

    default_key_header: ClassVar[str] = "Authorization: Bearer"

    api_key: ApiKey | None = field(default=None, repr=False)
    """Key of the backend. Default: no key is sent."""
    api_keys: Annotated[list[ApiKey], Constraints(min_length=1)] | None = field(default=None, repr=False)
    """Several keys, instead of `api_key`: the calls take turns. A key that is refused, or whose rate or quota is used
    up, is left out until it works again, and the call goes on with the next one."""
    key_header: Annotated[str, matches(_KEY_HEADER, 'must be as "Authorization: Bearer" or "api-key"')] | None = None
    """Header of the key, with the word before the key if there is one: `Authorization: Bearer`, `api-key`, `x-api-key`.
    Default: that of the vendor."""
    key_parameter: Annotated[str, matches(r"[\w.-]+", "must be the name of a query parameter")] | None = None
    """Query parameter that has the key, instead of a header."""
    query: dict[str, str] = field(default_factory=dict, repr=False)
    """Query parameters of every request."""
    path: RequestPath | None = None
    """Path after `base_url`; `{model}` is the target's name of the model. Default: that of the API."""
    proxy: Annotated[Annotated[str, After(_proxy)] | None, Before(restore_off)] = field(default=None, repr=False)
    """URL of the proxy, or `off` for none. Default: that of the environment (`https_proxy`, `http_proxy`,
    `all_proxy`, `no_proxy`)."""

    def __post_init__(self) -> None:
        """Checks the fields that exclude each other."""
        if self.api_key is not None and self.api_keys is not None:
            raise ValueError("api_keys: takes the place of `api_key`; remove one of them")
        if self.key_header is not None and self.key_parameter is not None:
            raise ValueError("key_parameter: takes the place of `key_header`; remove one of them")
        if self.key_form.partition(":")[0].lower() in OWN_HEADERS:
            raise ValueError("key_header: is set by Parley itself; name another header")
        super().__post_init__()

    @property
    def key_name(self) -> str | None:
        """See `RemoteBackend.key_name`."""
        return self.key_form.partition(":")[0].lower() if self.keys and self.key_parameter is None else None

    @property
    def key_form(self) -> str:
        """The header of the key, with the word before the key if there is one."""
        return self.key_header or self.default_key_header

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys; empty if none is sent."""
        if self.api_keys is not None:
            return tuple(self.api_keys)
        return () if self.api_key is None else (self.api_key,)

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters of every request."""
        return self.query
