"""The backends: who can be asked, and how."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from parley.config.types import Duration, Strict, matching, off

_PRINTABLE = re.compile(r"[!-~]+")


def _base_url(text: str) -> str:
    """Refuses what is no base of `…/chat/completions`. What was written may be secret, and is not repeated."""
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


def _printable_key(text: str) -> str:
    """Refuses what no header can carry."""
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("must be one word of printable ASCII, without line breaks; look where it comes from")
    return text


ApiKey = Annotated[str, AfterValidator(_printable_key)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Connections = Annotated[int, Field(ge=1, le=10_000)]


class HealthCheck(Strict):
    """Asks a backend every `interval` seconds how it is; one that does not say it is well is left out until it does."""

    interval: Duration = 5.0
    timeout: Duration = 2.0


class HttpHealthCheck(HealthCheck):
    """The same over HTTP: `path`, from the root of the server, must answer 200."""

    path: Annotated[str, matching(r"/[!-~]*", 'must be a path from the root of the server, for example "/health"')] = (
        "/health"
    )


class Reasoning(Strict):
    """How a server takes the reasoning of earlier turns.

    `field` is its name in messages; without it, the name that the server's own answers use. `history`: whether earlier
    turns are sent with their reasoning (`send`), must all have some (`require`: DeepSeek, Kimi), or go without (`omit`:
    OpenAI, Mistral).
    """

    field: Literal["reasoning_content", "reasoning"] | None = None
    history: Literal["send", "require", "omit"] = "send"


class OpenAIBackend(Strict):
    """Any endpoint that speaks OpenAI's chat completions: `base_url` ends before `/chat/completions`.

    `connections` bounds those of one worker. `prefill` says how the server is asked to go on from the beginning of an
    answer: by an assistant message at the end (`message`: llama.cpp, Ollama, OpenRouter), with vLLM's
    `continue_final_message` (`vllm`), with `prefix: true` in that message (`prefix`: Mistral, DeepSeek), or not at all
    (`off`: OpenAI). Without it: `off` for api.openai.com and Azure, else `message`. `reasoning` says how it takes the
    reasoning of earlier turns; without it, that is known of the larger hosts, and learned of all others.
    """

    kind: Literal["openai"]
    base_url: BaseUrl
    api_key: ApiKey | None = Field(default=None, repr=False)
    connections: Connections = 1000
    prefill: Annotated[Literal["message", "vllm", "prefix", "off"], BeforeValidator(off)] | None = None
    reasoning: Reasoning | None = None
    health: HttpHealthCheck | None = None


class AnthropicBackend(Strict):
    """Anthropic's Messages API, or an endpoint that speaks it: `base_url` ends before `/v1/messages`.

    `max_tokens` goes with requests that set no limit: this API demands one. Models that refuse to go on from the
    beginning of an answer are not asked to where `prefill` is `off`.
    """

    kind: Literal["anthropic"]
    base_url: BaseUrl = "https://api.anthropic.com"
    api_key: ApiKey | None = Field(default=None, repr=False)
    connections: Connections = 1000
    max_tokens: int = Field(default=4096, ge=1)
    prefill: Annotated[Literal["message", "off"], BeforeValidator(off)] = "message"


class ParleyBackend(Strict):
    """Another Parley, over gRPC: `target` is `host:port`, or an address as gRPC names it (`dns:///parley.eu:50051`).

    `tls` checks the server's certificate, against the system's authorities or those in the file `ca`.
    """

    kind: Literal["parley"]
    target: Annotated[str, matching("[!-~]+", 'must be an address without spaces, for example "parley.eu:50051"')]
    api_key: ApiKey | None = Field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None
    health: HealthCheck | None = None


class AnyLLMBackend(Strict):
    """A provider of the any-llm-sdk package, by its name there; needs `pip install parley-gateway[any-llm]`."""

    kind: Literal["any_llm"]
    provider: str = Field(min_length=1)
    api_key: ApiKey | None = Field(default=None, repr=False)
    base_url: BaseUrl | None = None


class LlamaCppBackend(Strict):
    """llama.cpp's own server, started and watched by Parley. Without `model_path`: the model in the package.

    `context` is the number of tokens that each of the `slots` parallel requests may use, at most what the model was
    trained with; `threads` defaults to half of the machine's cores: more only slow each other down beside the workers.
    Its health is asked for each second, so that it is used again as soon as a restarted one has loaded its model.
    """

    kind: Literal["llama_cpp"]
    model_path: Path | None = None
    context: int = Field(default=4096, ge=256)
    slots: int = Field(default=4, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1)
    health: HealthCheck | None = HealthCheck(interval=1.0, timeout=10.0)


BackendConfig = Annotated[
    OpenAIBackend | AnthropicBackend | ParleyBackend | LlamaCppBackend | AnyLLMBackend, Field(discriminator="kind")
]
