"""The settings of tracing, from OpenTelemetry's environment variables. Imports nothing of OpenTelemetry."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from parley.config import ConfigError

Protocol = Literal["grpc", "http/protobuf"]
_PREFIX = "OTEL_EXPORTER_OTLP"
_PORTS: dict[Protocol, int] = {"grpc": 4317, "http/protobuf": 4318}
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_CONTENT = {"true", "1", "span_only", "span_and_event"}  # the second pair are the values of newer conventions
_PACKAGES: dict[Protocol, str] = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where traces are sent, and which.

    Attributes:
        url: The endpoint; with HTTP including its path.
        protocol: The protocol of OTLP.
        is_secure: Whether the connection uses TLS.
        headers: Sent with every export; they may have a key.
        certificate: The PEM file of the certificate authorities; None for those of the system.
        sampler: `always_on`, `always_off` or `traceidratio`.
        ratio: The share of traces that are sampled, from 0 to 1.
        parent_based: Whether the caller's decision about sampling holds, if there is one.
        service_name: The name of the service in spans.
        captures_content: Whether spans contain the messages of calls.
        delay_ms: The time between two exports, in milliseconds.
    """

    url: str
    protocol: Protocol
    is_secure: bool
    headers: Mapping[str, str] = field(repr=False)
    certificate: str | None
    sampler: str
    ratio: float
    parent_based: bool
    service_name: str
    captures_content: bool
    delay_ms: int = 5000

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the endpoint."""
        parts = urlsplit(self.url)
        default = 443 if self.is_secure and self.protocol == "http/protobuf" else _PORTS[self.protocol]
        return parts.hostname or "localhost", parts.port or default


def read(environment: Mapping[str, str]) -> TracingSettings | None:
    """Reads the settings; None if no endpoint is configured or tracing is disabled.

    Raises:
        ConfigError: A variable is invalid, or the packages of the extra `otel` are missing.
    """
    endpoint = _of_traces(environment, "ENDPOINT")
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    protocol = _protocol(environment, endpoint)
    _require(protocol)
    sampler, ratio, parent_based = _sampling(environment)
    insecure = _of_traces(environment, "INSECURE").lower() == "true"
    return TracingSettings(
        url=_url(environment, endpoint, protocol),
        protocol=protocol,
        is_secure=urlsplit(endpoint).scheme == "https" and not (insecure and protocol == "grpc"),
        headers=_headers(_of_traces(environment, "HEADERS")),
        certificate=_of_traces(environment, "CERTIFICATE") or None,
        sampler=sampler,
        ratio=ratio,
        parent_based=parent_based,
        service_name=environment.get("OTEL_SERVICE_NAME") or _named_resource(environment) or "parley",
        captures_content=environment.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() in _CONTENT,
        delay_ms=_delay(environment.get("OTEL_BSP_SCHEDULE_DELAY") or "5000"),
    )


def _error(text: str) -> "ConfigError":
    from parley.config import ConfigError  # the supervisor, which never reads the settings, does not import it

    return ConfigError(text)


def _of_traces(environment: Mapping[str, str], name: str) -> str:
    """Returns a variable of the exporter: the one for traces, or the one for all signals."""
    return (environment.get(f"{_PREFIX}_TRACES_{name}") or environment.get(f"{_PREFIX}_{name}") or "").strip()


def _protocol(environment: Mapping[str, str], endpoint: str) -> Protocol:
    name = _of_traces(environment, "PROTOCOL")
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _error(f'{_PREFIX}_ENDPOINT must be a URL, for example "http://localhost:4317"')
    if parts.username is not None or parts.password is not None:
        raise _error(f"{_PREFIX}_ENDPOINT must not have a user or a password; use {_PREFIX}_HEADERS")
    if not name:
        return "http/protobuf" if port == _PORTS["http/protobuf"] else "grpc"
    if name == "grpc":
        return "grpc"
    if name == "http/protobuf":
        return "http/protobuf"
    raise _error(f'{_PREFIX}_PROTOCOL: "{name}" is not supported; use grpc or http/protobuf')


def _require(protocol: Protocol) -> None:
    try:
        found = importlib.util.find_spec(_PACKAGES[protocol])
    except ModuleNotFoundError:
        found = None
    if found is None:
        message = f"{_PREFIX}_ENDPOINT is set, and tracing needs: pip install 'parley-gateway[otel]'"
        raise _error(f"{message}; unset it, or set OTEL_SDK_DISABLED=true, to run without traces")


def _url(environment: Mapping[str, str], endpoint: str, protocol: Protocol) -> str:
    """Returns the endpoint. With HTTP, an endpoint for all signals gets the path of traces."""
    if protocol == "grpc" or environment.get(f"{_PREFIX}_TRACES_ENDPOINT"):
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/traces"


def _headers(text: str) -> dict[str, str]:
    """Reads `name=value,…`, the form of W3C baggage. The error does not repeat the text: it may have a key."""
    found: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise _error(f"{_PREFIX}_HEADERS must have the form name=value,name=value")
        found[unquote(name).strip().lower()] = unquote(value).strip()
    return found


def _sampling(environment: Mapping[str, str]) -> tuple[str, float, bool]:
    name = environment.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    if kind not in _SAMPLERS:
        raise _error(f'OTEL_TRACES_SAMPLER: "{name}" is not supported; use (parentbased_){", ".join(_SAMPLERS)}')
    text = environment.get("OTEL_TRACES_SAMPLER_ARG") or "1.0"
    try:
        ratio = float(text) if kind == "traceidratio" else float(kind == "always_on")
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise _error(f'OTEL_TRACES_SAMPLER_ARG: "{text}" must be a number from 0 to 1')
    return kind, ratio, kind != name


def _delay(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise _error(f'OTEL_BSP_SCHEDULE_DELAY: "{text}" must be a number of milliseconds')
    return int(text)


def _named_resource(environment: Mapping[str, str]) -> str:
    """Returns `service.name` of the resource attributes."""
    pairs = (item.partition("=") for item in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return next((unquote(value.strip()) for name, _, value in pairs if name.strip() == "service.name"), "")
