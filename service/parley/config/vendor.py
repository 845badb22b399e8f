"""What is known of a vendor, or of a server of a certain kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

VendorName = Literal[
    "openai",
    "azure",
    "anthropic",
    "gemini",
    "mistral",
    "groq",
    "cerebras",
    "deepseek",
    "kimi",
    "xai",
    "openrouter",
    "together",
    "fireworks",
    "vllm",
    "sglang",
    "ollama",
    "llama_cpp",
    "lmstudio",
    "tgi",
    "bedrock",
]

Parameters = Mapping[str, frozenset[str] | None]
"""Vendor parameters of callers. The value is None, or the allowed members where the parameter is an object."""


@dataclass(frozen=True, slots=True)
class ReasoningRule:
    """How a server accepts the reasoning of earlier turns."""

    field: Literal["reasoning_content", "reasoning"] | None = None
    """Name of the text field; None uses the name in its responses."""
    history: Literal["send", "require", "omit"] = "send"
    """`require` adds a placeholder to messages without reasoning; `omit` sends no reasoning."""
    details: frozenset[str] | None = None
    """Other reasoning fields that are sent; None sends all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What is known of one vendor. Its hosts are known without `vendor: NAME` too, and its rules hold for them."""

    settings: Mapping[str, Any] | None = None
    """Fields of a backend with this preset; None for a vendor without a preset."""
    source: str = ""
    """Where the vendor documents them, without `https://`."""
    hosts: tuple[str, ...] = ()
    """Its hosts: a domain with its subdomains; with a hyphen first, the end of a name; without a dot, a part of one."""
    key: str = ""
    """Environment variable that the vendor's own documents use for the key; empty for servers without keys."""
    kind: Literal["openai", "anthropic"] = "openai"
    """Kind of the backend."""
    example: str = ""
    """Form of the `base_url`, of a vendor without one that all customers share."""
    reasoning: ReasoningRule = ReasoningRule()
    """How it receives the reasoning of earlier turns."""
    parameters: Parameters | None = None
    """Its parameters that callers may send by default; None: those of self-hosted servers."""
    parameters_member: str | None = None
    """Member of the body that has them; None: they are members of the body."""
    listed_prefix: str = ""
    """Beginning of the names in its list of models, which it rejects in requests."""
    provider: str = ""
    """Value of `gen_ai.provider.name` in traces, as OpenTelemetry's conventions define it; empty: the kind."""

    @property
    def preset(self) -> Mapping[str, Any]:
        """The fields of a backend with this preset."""
        return self.settings or {}

    def has_host(self, host: str) -> bool:
        """Returns whether a host name, in lower case, is one of the vendor's."""
        return any(_matches(host, known) for known in self.hosts)


def _matches(host: str, known: str) -> bool:
    if "." not in known:
        return known in host
    return host.endswith(known) if known.startswith("-") else f".{host}".endswith(f".{known}")
