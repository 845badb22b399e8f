"""The presets of vendors: what a backend with `vendor: NAME` sets, each field of which the file may replace."""

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


@dataclass(frozen=True, slots=True)
class Vendor:
    """The preset of one vendor."""

    settings: Mapping[str, Any]
    """Fields of the backend."""
    source: str
    """Where the vendor documents them, without `https://`."""
    host: str
    """Host whose rules apply, wherever `base_url` leads: vendor parameters, reasoning of earlier turns, prefill."""
    key: str = ""
    """Environment variable that the vendor's own documents use for the key; empty for servers without keys."""
    kind: Literal["openai", "anthropic"] = "openai"
    """Kind of the backend."""
    example: str = ""
    """Form of the `base_url`, of a vendor without one that all customers share."""

    @property
    def url(self) -> str:
        """A URL of the vendor's host."""
        return f"https://{self.host}"


_OLD_LIMIT = {"max_completion_tokens": "max_tokens"}
_NEW_LIMIT = {"max_tokens": "max_completion_tokens"}
_SYSTEM = {"developer": "system"}
_HEALTH = {"path": "/health"}
_OPENAI_ONLY = ["user", "safety_identifier", "prompt_cache_key"]
"""Parameters that change no answer, and that a strict server refuses."""

VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor(
        {"base_url": "https://api.openai.com/v1", "rename": _NEW_LIMIT},
        "platform.openai.com/docs/api-reference/chat/create",
        "api.openai.com",
        "OPENAI_API_KEY",
    ),
    "azure": Vendor(
        {
            "path": "/openai/deployments/{model}/chat/completions",
            "api_version": "2024-10-21",
            "key_header": "api-key",
            "rename": _NEW_LIMIT,
        },
        "learn.microsoft.com/azure/ai-services/openai/reference",
        "openai.azure.com",
        "AZURE_OPENAI_API_KEY",
        example="https://NAME.openai.azure.com",
    ),
    "anthropic": Vendor(
        {"base_url": "https://api.anthropic.com"},
        "docs.anthropic.com/en/api/messages",
        "api.anthropic.com",
        "ANTHROPIC_API_KEY",
        "anthropic",
    ),
    "gemini": Vendor(
        {
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "roles": _SYSTEM,
            "drop": [*_OPENAI_ONLY, "service_tier"],
            "unsupported": ["frequency_penalty", "presence_penalty", "seed", "logit_bias", "prediction", "verbosity"],
            "prefill": "off",
        },
        "ai.google.dev/gemini-api/docs/openai",
        "generativelanguage.googleapis.com",
        "GEMINI_API_KEY",
    ),
    "mistral": Vendor(
        {
            "base_url": "https://api.mistral.ai/v1",
            "rename": {**_OLD_LIMIT, "seed": "random_seed"},
            "roles": _SYSTEM,
            "drop": [*_OPENAI_ONLY, "service_tier", "messages.name"],
            "unsupported": [
                *("logit_bias", "logprobs", "top_logprobs", "web_search_options", "modalities", "audio", "verbosity"),
            ],
            "prefill": "prefix",
        },
        "docs.mistral.ai/api/endpoint/chat",
        "api.mistral.ai",
        "MISTRAL_API_KEY",
    ),
    "groq": Vendor(
        {
            "base_url": "https://api.groq.com/openai/v1",
            "rename": _NEW_LIMIT,
            "drop": ["messages.name"],
            "unsupported": ["logprobs", "top_logprobs", "logit_bias", "n"],
        },
        "console.groq.com/docs/openai",
        "api.groq.com",
        "GROQ_API_KEY",
    ),
    "cerebras": Vendor(
        {
            "base_url": "https://api.cerebras.ai/v1",
            "rename": _NEW_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["frequency_penalty", "presence_penalty", "logit_bias"],
            "prefill": "off",
        },
        "inference-docs.cerebras.ai/resources/openai",
        "api.cerebras.ai",
        "CEREBRAS_API_KEY",
    ),
    "deepseek": Vendor(
        {"base_url": "https://api.deepseek.com", "rename": _OLD_LIMIT, "roles": _SYSTEM, "prefill": "off"},
        "api-docs.deepseek.com/api/create-chat-completion",
        "api.deepseek.com",
        "DEEPSEEK_API_KEY",
    ),
    "kimi": Vendor(
        {"base_url": "https://api.moonshot.ai/v1", "rename": _NEW_LIMIT, "roles": _SYSTEM, "prefill": "partial"},
        "platform.kimi.ai/docs/api/chat",
        "api.moonshot.ai",
        "MOONSHOT_API_KEY",
    ),
    "xai": Vendor(
        {
            "base_url": "https://api.x.ai/v1",
            "rename": _NEW_LIMIT,
            "unsupported": ["logit_bias", "frequency_penalty", "presence_penalty"],
            "prefill": "off",
        },
        "docs.x.ai/docs/api-reference",
        "api.x.ai",
        "XAI_API_KEY",
    ),
    "openrouter": Vendor(
        {"base_url": "https://openrouter.ai/api/v1"},
        "openrouter.ai/docs/api-reference/chat-completion",
        "openrouter.ai",
        "OPENROUTER_API_KEY",
    ),
    "together": Vendor(
        {"base_url": "https://api.together.xyz/v1", "rename": _OLD_LIMIT, "roles": _SYSTEM},
        "docs.together.ai/reference/chat-completions-1",
        "api.together.xyz",
        "TOGETHER_API_KEY",
    ),
    "fireworks": Vendor(
        {"base_url": "https://api.fireworks.ai/inference/v1", "rename": _OLD_LIMIT, "roles": _SYSTEM},
        "docs.fireworks.ai/api-reference/post-chatcompletions",
        "api.fireworks.ai",
        "FIREWORKS_API_KEY",
    ),
    "vllm": Vendor(
        {"base_url": "http://localhost:8000/v1", "prefill": "vllm", "health": _HEALTH},
        "docs.vllm.ai/en/latest/serving/openai_compatible_server",
        "localhost",
    ),
    "sglang": Vendor(
        {"base_url": "http://localhost:30000/v1", "roles": _SYSTEM, "prefill": "vllm", "health": _HEALTH},
        "docs.sglang.ai/basic_usage/openai_api_completions.html",
        "localhost",
    ),
    "ollama": Vendor(
        {
            "base_url": "http://localhost:11434/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["logit_bias", "n", "tool_choice"],
            "prefill": "message",
            "health": {"path": "/api/version"},
        },
        "docs.ollama.com/api/openai-compatibility",
        "localhost",
    ),
    "llama_cpp": Vendor(
        {"base_url": "http://localhost:8080/v1", "roles": _SYSTEM, "prefill": "message", "health": _HEALTH},
        "github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        "localhost",
    ),
    "lmstudio": Vendor(
        {
            "base_url": "http://localhost:1234/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["n", "logprobs", "top_logprobs"],
            "prefill": "off",
            "health": {"path": "/v1/models"},
        },
        "lmstudio.ai/docs/developer/openai-compat/chat-completions",
        "localhost",
    ),
    "tgi": Vendor(
        {
            "base_url": "http://localhost:8080/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["n"],
            "prefill": "vllm",
            "health": _HEALTH,
        },
        "huggingface.co/docs/text-generation-inference/messages_api",
        "localhost",
    ),
    "bedrock": Vendor(
        {"prefill": "off"},
        "docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions-mantle.html",
        "amazonaws.com",
        "AWS_BEARER_TOKEN_BEDROCK",
        example="https://bedrock-mantle.REGION.api.aws/v1",
    ),
}
"""The presets by name. A vendor without a `base_url` has none that all customers share."""


def apply_vendor(value: object) -> object:
    """Returns a backend of the file with the fields of its vendor's preset.

    Raises:
        ValueError: The vendor is unknown, or the backend lacks what its vendor needs. The text begins with the field.
    """
    if not isinstance(value, dict):
        return value
    if value.get("vendor") is None:
        _check_spelling(value)
        return value
    name = value["vendor"]
    vendor = VENDORS.get(name) if isinstance(name, str) else None
    if vendor is None:
        raise ValueError(f"vendor: is unknown; {_suggestion(str(name))}")
    if value.get("kind", vendor.kind) != vendor.kind:
        raise ValueError(f"kind: the vendor {name} has the kind {vendor.kind}; remove one of them")
    _check_key(name, vendor, value)
    _check_address(name, vendor, value)
    settings = dict(vendor.settings)
    if "key_parameter" in value:
        settings.pop("key_header", None)
    return {"kind": vendor.kind, **settings, **value}


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # a worker validates nothing

    nearest = get_close_matches(name, VENDORS, 1)
    return f'did you mean "{nearest[0]}"?' if nearest else f"use one of: {', '.join(VENDORS)}"


def _check_spelling(value: Mapping[Any, Any]) -> None:
    """Rejects a backend without a kind that has a field whose name is almost `vendor`."""
    if "kind" in value:
        return
    from difflib import get_close_matches

    if near := get_close_matches("vendor", [name for name in map(str, value) if name != "vendor"], 1, 0.8):
        raise ValueError(f'{near[0]}: is unknown; did you mean "vendor"?')


def _check_key(name: str, vendor: Vendor, value: Mapping[Any, Any]) -> None:
    """Rejects a backend without any credential, unless it leads to another server, which may add its own."""
    leads_elsewhere = vendor.host not in str(value.get("base_url") or vendor.url)
    credentials = ("api_key", "api_keys", "headers", "query", "client_certificate")
    if vendor.key and not leads_elsewhere and all(value.get(one) is None for one in credentials):
        raise ValueError(f'api_key: is required for {name}; set it, for example to "${{{vendor.key}}}"')


def _check_address(name: str, vendor: Vendor, value: Mapping[Any, Any]) -> None:
    """Rejects a backend without an address, or whose address has the beginning of the preset's path already."""
    address = value.get("base_url")
    if address is None and "base_url" not in vendor.settings:
        raise ValueError(f'base_url: is required for {name}; set it, for example to "{vendor.example}"')
    beginning = "/".join(str(vendor.settings.get("path", "")).split("/")[:2])
    if beginning and "path" not in value and beginning in str(address).partition("://")[2]:
        raise ValueError(f'base_url: must end before {beginning}, which `path` has, for example "{vendor.example}"')
