"""The backends: the servers that answer requests, and how to call them."""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from parley.config.markers import After, Before, ByKind, Constraints
from parley.config.parameter_changes import ParameterChanges
from parley.config.types import Duration, Strict, matches, restore_off
from parley.config.upstream_requests import ApiKey, RemoteBackend, UpstreamRequests
from parley.config.vendor import VendorName
from parley.config.vendors import apply_vendor

_PRINTABLE = re.compile(r"[!-~]+")
_METADATA = re.compile(r"[0-9a-z_.-]+")  # gRPC over HTTP/2, Custom-Metadata
_FILE_URL = re.compile(r"https?://[!\"$-~]+/[!\"$-~]+(?:#sha256=[0-9A-Fa-f]{64})?")


def _base_url(text: str) -> str:
    """Rejects text that is not an HTTP base URL. The error never repeats the text: it may hold a secret."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not _PRINTABLE.fullmatch(text):
        raise ValueError('must be a URL, for example "https://api.openai.com/v1"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or a password; put the key into `api_key`")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment; it ends before /chat/completions")
    return text


def _model_url(text: str | None) -> str | None:
    """Rejects text that is not an HTTP address of a file. The error never repeats the text: it may hold a secret."""
    if text is not None and not (_FILE_URL.fullmatch(text) and urlsplit(text).hostname):
        raise ValueError('must be the URL of a file, for example "https://host/model.gguf", with `#sha256=…` if known')
    return text


BaseUrl = Annotated[str, After(_base_url)]
ExtraBody = Annotated[
    Literal["preset", "all", "off"] | list[Annotated[str, Constraints(min_length=1)]], Before(restore_off)
]
"""Which vendor parameters a backend passes on: those of its preset, all, none, or further names beside the preset."""
TraceContext = Annotated[Literal["auto", "full", "traceparent", "off"], Before(restore_off)]
"""Which trace context a backend receives."""
Connections = Annotated[int, Constraints(ge=1, le=10_000)]


class HealthCheck(Strict):
    """An active health check. An unhealthy backend gets no calls until a check succeeds."""

    interval: Duration = 5.0
    """Time between checks."""
    timeout: Duration = 2.0
    """Time limit of one check."""


class HttpHealthCheck(HealthCheck):
    """An active health check over HTTP. The backend is healthy while `path` answers 200."""

    path: Annotated[str, matches(r"/[!-~]*", 'must be a path from the root of the server, for example "/health"')] = (
        "/health"
    )
    """Path to request, from the root of the server."""


class Reasoning(Strict):
    """How a server receives the reasoning of earlier turns.

    Example:
        backends:
          kimi: {kind: openai, base_url: "http://llm.internal/v1", reasoning: {history: require}}
    """

    field: Literal["reasoning_content", "reasoning"] | None = None
    """Field of a message that holds the reasoning. Default: the field that the server's own answers use."""
    history: Literal["send", "require", "omit"] = "send"
    """Whether earlier turns are sent with their reasoning (`send`), with a placeholder where they have none (`require`:
    DeepSeek, Kimi), or without it (`omit`: OpenAI, Mistral)."""


class HttpBackend(UpstreamRequests, ParameterChanges):
    """The settings of every backend over HTTP."""

    vendor: VendorName | None = None
    """Vendor whose preset sets `kind`, `base_url` and whatever else differs; see `parley vendors`. Each field of the
    backend replaces that of the preset."""
    connections: Connections = 1000
    """Largest number of connections of one worker."""
    extra_body: ExtraBody = "preset"
    """Vendor parameters of callers that are passed on: those known to be harmless (`preset`), further names beside them
    (a list), all (`all`, for callers that you trust), or none (`off`). Others are rejected."""
    discover: bool = False
    """Whether the list of models of the server is read, every five minutes. It completes the `metadata` of models, and
    `/v1/models` has its names in place of an id with `*`."""
    trace_context: TraceContext = "auto"
    """Which trace context the backend receives, if traces are exported: `traceparent` and `tracestate` (`full`), only
    `traceparent`, which has random ids and nothing else, or none (`off`). Default: `full` for a host of the own network
    (a private address, a name without a dot or of a local domain), `traceparent` for all others."""

    def __post_init__(self) -> None:
        """Checks the fields that depend on each other."""
        UpstreamRequests.__post_init__(self)
        ParameterChanges.__post_init__(self)
        if self.discover and self.vendor == "azure":
            raise ValueError("discover: Azure lists models, but calls name deployments; remove it")


class OpenAIBackend(HttpBackend):
    """Any server with OpenAI's chat completions API: OpenAI, vLLM, Ollama, OpenRouter and others.

    Example:
        backends:
          openai: {kind: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
          vllm: {kind: openai, base_url: "http://10.0.0.5:8000/v1", prefill: vllm, health: {path: /health}}
          groq: {vendor: groq, api_keys: ["${GROQ_KEY_1}", "${GROQ_KEY_2}"], headers: {x-team: blue}, discover: true}
          azure: {vendor: azure, base_url: "https://me.openai.azure.com", api_key: "${AZURE_OPENAI_API_KEY}"}
    """

    kind: Literal["openai"]
    """Selects this kind of backend."""
    base_url: BaseUrl
    """URL without `/chat/completions`, for example `https://api.openai.com/v1`."""
    api_version: Annotated[str, matches(r"[\w.-]+", 'must be a version, for example "2024-10-21"')] | None = None
    """Version of Azure's API, sent as the query parameter `api-version`."""
    unsupported: list[str] = field(default_factory=list)
    """Parameters that the server has not: a request with one goes to the next target, or is rejected with an error that
    names it."""
    prefill: Annotated[Literal["message", "vllm", "prefix", "partial", "off"], Before(restore_off)] | None = None
    """How the server continues the beginning of an answer: an assistant message at the end (`message`: llama.cpp,
    Ollama, OpenRouter), `continue_final_message` (`vllm`: vLLM, SGLang, TGI), `prefix: true` in that message (`prefix`:
    Mistral, DeepSeek) or `partial: true` (`partial`: Kimi), or not at all (`off`: OpenAI). Default: that
    of the vendor whose host `base_url` names, else `message`."""
    reasoning: Reasoning | None = None
    """How the server receives the reasoning of earlier turns. Default: known for large vendors by host name, learned
    from answers and errors for all others."""
    health: HttpHealthCheck | None = None
    """Active health check. Default: none; calls alone decide."""

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters of every request."""
        return self.query | ({"api-version": self.api_version} if self.api_version else {})


class AnthropicBackend(HttpBackend):
    """Anthropic's Messages API, or another server with that API.

    Example:
        backends:
          claude: {kind: anthropic, api_key: "${ANTHROPIC_API_KEY}", max_tokens: 8192}
    """

    default_key_header: ClassVar[str] = "x-api-key"

    kind: Literal["anthropic"]
    """Selects this kind of backend."""
    base_url: BaseUrl = "https://api.anthropic.com"
    """URL without `/v1/messages`."""
    max_tokens: Annotated[int, Constraints(ge=1)] = 4096
    """Limit on completion tokens for requests without one. The API requires a limit."""
    prefill: Annotated[Literal["message", "off"], Before(restore_off)] = "message"
    """Whether the server continues the beginning of an answer (`message`) or not (`off`, for models that
    reject it)."""


class ParleyBackend(RemoteBackend):
    """Another Parley, over gRPC.

    Example:
        backends:
          eu: {kind: parley, target: "dns:///parley.eu:50051", tls: true, api_key: "${PARLEY_EU_KEY}"}
    """

    kind: Literal["parley"]
    """Selects this kind of backend."""
    target: Annotated[str, matches("[!-~]+", 'must be an address without spaces, for example "parley.eu:50051"')]
    """`host:port` or a gRPC target name, for example `dns:///parley.eu:50051`."""
    api_key: ApiKey | None = field(default=None, repr=False)
    """API key of that Parley."""
    tls: bool = False
    """Whether the connection uses TLS and checks the server's certificate."""
    health: HealthCheck | None = None
    """Active health check. Default: none; calls alone decide."""
    discover: bool = False
    """Whether the list of models of that Parley is read, every five minutes. It completes the `metadata` of models, and
    `/v1/models` has its names in place of an id with `*`."""
    trace_context: TraceContext = "auto"
    """Which trace context the backend receives, if traces are exported: `traceparent` and `tracestate` (`full`), only
    `traceparent`, which has random ids and nothing else, or none (`off`). Default: `full` for a host of the own network
    (a private address, a name without a dot or of a local domain), `traceparent` for all others."""

    def __post_init__(self) -> None:
        """Checks the fields that exclude each other, and that gRPC can send the headers."""
        for name in ("ca", "client_certificate"):
            if getattr(self, name) is not None and not self.tls:
                raise ValueError(f"{name}: needs `tls: true`; set it")
        for name in map(str.lower, self.headers):
            if not _METADATA.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
                raise ValueError(f'headers: "{name}" cannot be gRPC metadata; remove it')
        super().__post_init__()

    @property
    def key_name(self) -> str | None:
        """See `RemoteBackend.key_name`."""
        return "authorization" if self.api_key is not None else None


class AnyLLMBackend(Strict):
    """A provider of the any-llm-sdk package. Needs `pip install 'parley-gateway[any-llm]'`.

    Example:
        backends:
          mistral: {kind: any_llm, provider: mistral, api_key: "${MISTRAL_API_KEY}"}
    """

    kind: Literal["any_llm"]
    """Selects this kind of backend."""
    provider: Annotated[str, Constraints(min_length=1)]
    """Name of the provider in any-llm-sdk, for example `mistral`."""
    api_key: ApiKey | None = field(default=None, repr=False)
    """Key of the provider. Default: the environment variable that any-llm-sdk reads."""
    base_url: BaseUrl | None = None
    """URL of the provider's API. Default: that of the package."""
    extra_body: ExtraBody = "preset"
    """Vendor parameters of callers that are passed on: those known to be harmless (`preset`), further names beside them
    (a list), all (`all`, for callers that you trust), or none (`off`). Others are rejected."""
    discover: bool = False
    """Whether the list of models of the provider is read, every five minutes, if
    the package can read it. It completes the `metadata` of models, and `/v1/models` has its names in place of an id
    with `*`."""


class LlamaCppBackend(Strict):
    """llama.cpp's server, started and restarted by Parley.

    Example:
        backends:
          local: {kind: llama_cpp, model_path: /models/qwen3.gguf, context: 8192, slots: 2}
          fetched: {kind: llama_cpp, model_url: "https://host/model.gguf"}
    """

    kind: Literal["llama_cpp"]
    """Selects this kind of backend."""
    model_path: Path | None = None
    """GGUF file of the model. Default: SmolLM2-135M-Instruct, which is installed with Parley."""
    model_url: Annotated[str | None, After(_model_url)] = None
    """Address of the GGUF file. If the file is missing, it is fetched at the start, into `model_path`, or else into the
    folder `models` of the state folder. The address may end in `#sha256=` and the checksum of the file."""
    context: Annotated[int, Constraints(ge=256)] = 4096
    """Tokens of prompt and answer of one request, at most the length that the model was trained with."""
    slots: Annotated[int, Constraints(ge=1, le=64)] = 4
    """Number of requests that are answered at a time."""
    threads: Annotated[int | None, Constraints(ge=1)] = None
    """Threads of the server. Default: half of the machine's cores; more slow down the workers and each other."""
    health: HealthCheck | None = HealthCheck(interval=1.0, timeout=10.0)
    """Active health check. The short interval makes a restarted server usable as soon as its model is loaded."""
    extra_body: ExtraBody = "preset"
    """Vendor parameters of callers that are passed on: those known to be harmless (`preset`), further names beside them
    (a list), all (`all`, for callers that you trust), or none (`off`). Others are rejected."""


BackendConfig = Annotated[
    OpenAIBackend | AnthropicBackend | ParleyBackend | LlamaCppBackend | AnyLLMBackend, ByKind(), Before(apply_vendor)
]
