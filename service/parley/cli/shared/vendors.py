"""The vendors that `parley init` offers. `parley vendors` prints their presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from parley.config import VENDORS as PRESETS

Kind = Literal["openai", "anthropic", "any_llm", "llama_cpp"]


@dataclass(frozen=True, slots=True)
class Vendor:
    """How to reach a vendor, or a server of a certain kind.

    Attributes:
        base_url: The URL of its API; "" if every installation has its own.
        key: The environment variable that its documentation uses for the key; "" if it needs none.
        title: Its name for people; "" if `parley init` does not offer it.
        model: A model that `parley init` suggests; "" if the user has to name one.
        kind: The kind of the backend.
        preset: The name of its preset; "" for none.
        settings: Further settings of the backend.
    """

    base_url: str = ""
    key: str = ""
    title: str = ""
    model: str = ""
    kind: Kind = "openai"
    preset: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    def backend(self, base_url: str = "", key: str = "") -> dict[str, Any]:
        """Returns the backend as in the configuration.

        Args:
            base_url: Replaces the URL of the vendor.
            key: The environment variable with the key; "" for no key.
        """
        entry: dict[str, Any] = {"vendor": self.preset} if self.preset else {"kind": self.kind}
        entry |= dict(self.settings)
        url = base_url or self.base_url
        if url and not (self.preset and url == self.base_url):
            entry["base_url"] = url
        if key:
            entry["api_key"] = f"${{{key}}}"
        return entry


_OFFERED: Mapping[str, tuple[str, str]] = {
    "openai": ("OpenAI", "gpt-5-mini"),
    "anthropic": ("Anthropic", "claude-haiku-4-5"),
    "gemini": ("Google Gemini", "gemini-2.5-flash"),
    "mistral": ("Mistral", "mistral-small-latest"),
    "deepseek": ("DeepSeek", "deepseek-chat"),
    "groq": ("Groq", "openai/gpt-oss-20b"),
    "cerebras": ("Cerebras", "gpt-oss-120b"),
    "kimi": ("Kimi (Moonshot AI)", ""),
    "xai": ("xAI", "grok-3-mini"),
    "openrouter": ("OpenRouter", "openai/gpt-5-mini"),
    "together": ("Together AI", "openai/gpt-oss-20b"),
    "fireworks": ("Fireworks AI", "accounts/fireworks/models/gpt-oss-20b"),
    "azure": ("Azure OpenAI", ""),
    "bedrock": ("Amazon Bedrock", ""),
    "ollama": ("Ollama", "qwen3:8b"),
    "vllm": ("vLLM", ""),
    "sglang": ("SGLang", ""),
    "llama_cpp": ("llama.cpp's server", ""),
    "lmstudio": ("LM Studio", ""),
    "tgi": ("Text Generation Inference", ""),
}
"""The title of each preset, and a model that is suggested; "" if there is none that lasts."""


def _of_preset(name: str) -> Vendor:
    preset, (title, model) = PRESETS[name], _OFFERED.get(name, ("", ""))
    return Vendor(preset.preset.get("base_url", ""), preset.key, title, model, preset.kind, name)


OTHER = Vendor(title="another server with OpenAI's API")
VENDORS: Mapping[str, Vendor] = {
    **{name: _of_preset(name) for name in (*_OFFERED, *(PRESETS.keys() - _OFFERED.keys()))},
    "other": OTHER,
    "local": Vendor(title="the built-in model, without an account", kind="llama_cpp"),
}
"""Vendors by name, in the order of `parley init`: the presets, any other server, and the built-in model."""


def package(provider: str) -> Vendor:
    """Returns a vendor that any-llm-sdk calls, with credentials of the environment."""
    return Vendor(kind="any_llm", settings=(("provider", provider),))


def with_key(vendor: Vendor, key: str) -> Vendor:
    """Returns a vendor whose key is in another environment variable."""
    return replace(vendor, key=key)


def offered() -> dict[str, Vendor]:
    """Returns the vendors that `parley init` offers, in the order of its list."""
    return {name: vendor for name, vendor in VENDORS.items() if vendor.title}
