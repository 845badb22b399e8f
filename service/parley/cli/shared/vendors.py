"""The vendors that `parley init` offers and that `parley import` finds in other configurations.

The tables are data: a vendor is added by a line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
        settings: Further settings of the backend.
    """

    base_url: str
    key: str
    title: str = ""
    model: str = ""
    kind: Kind = "openai"
    settings: tuple[tuple[str, str], ...] = ()

    def backend(self, base_url: str = "", key: str = "") -> dict[str, Any]:
        """Returns the backend as in the configuration.

        Args:
            base_url: Replaces the URL of the vendor.
            key: The environment variable with the key; "" for no key.
        """
        entry: dict[str, Any] = {"kind": self.kind, **dict(self.settings)}
        url = base_url or self.base_url
        if url and not (self.kind == "anthropic" and url == self.base_url):
            entry["base_url"] = url
        if key:
            entry["api_key"] = f"${{{key}}}"
        return entry


def _package(provider: str, title: str = "") -> Vendor:
    """Returns a vendor that any-llm-sdk calls, with credentials of the environment."""
    return Vendor("", "", title, kind="any_llm", settings=(("provider", provider),))


VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor("https://api.openai.com/v1", "OPENAI_API_KEY", "OpenAI", "gpt-5-mini"),
    "anthropic": Vendor(
        "https://api.anthropic.com", "ANTHROPIC_API_KEY", "Anthropic", "claude-haiku-4-5", kind="anthropic"
    ),
    "gemini": Vendor(
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "Google Gemini", "gemini-2.5-flash"
    ),
    "mistral": Vendor("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "Mistral", "mistral-small-latest"),
    "deepseek": Vendor("https://api.deepseek.com", "DEEPSEEK_API_KEY", "DeepSeek", "deepseek-chat"),
    "groq": Vendor("https://api.groq.com/openai/v1", "GROQ_API_KEY", "Groq", "openai/gpt-oss-20b"),
    "openrouter": Vendor("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "OpenRouter", "openai/gpt-5-mini"),
    "together_ai": Vendor("https://api.together.xyz/v1", "TOGETHERAI_API_KEY", "Together AI", "openai/gpt-oss-20b"),
    "fireworks_ai": Vendor(
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "Fireworks AI",
        "accounts/fireworks/models/gpt-oss-20b",
    ),
    "xai": Vendor("https://api.x.ai/v1", "XAI_API_KEY", "xAI", "grok-3-mini"),
    "azure": Vendor("", "AZURE_API_KEY", "Azure OpenAI (the model is the deployment)"),
    "ollama": Vendor("http://localhost:11434/v1", "", "Ollama on this machine", "qwen3:8b"),
    "hosted_vllm": Vendor("", "", "vLLM, SGLang or another server of your own"),
    "local": Vendor("", "", "the built-in small model, without an account", kind="llama_cpp"),
    "perplexity": Vendor("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "cerebras": Vendor("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "sambanova": Vendor("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "deepinfra": Vendor("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "nvidia_nim": Vendor("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "cohere": Vendor("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY"),
    "codestral": Vendor("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "huggingface": Vendor("https://router.huggingface.co/v1", "HF_TOKEN"),
    "github": Vendor("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "meta_llama": Vendor("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "moonshot": Vendor("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "dashscope": Vendor("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "zai": Vendor("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "minimax": Vendor("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "volcengine": Vendor("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "nebius": Vendor("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "novita": Vendor("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "hyperbolic": Vendor("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "friendliai": Vendor("https://api.friendli.ai/serverless/v1", "FRIENDLI_TOKEN"),
    "featherless_ai": Vendor("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "nscale": Vendor("https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    "ai21": Vendor("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "baseten": Vendor("https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    "vercel_ai_gateway": Vendor("https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
    "lm_studio": Vendor("http://localhost:1234/v1", ""),
    "llamafile": Vendor("http://127.0.0.1:8080/v1", ""),
    "azure_ai": Vendor("", "AZURE_AI_API_KEY"),
    "databricks": Vendor("", "DATABRICKS_API_KEY"),
    "litellm_proxy": Vendor("", "LITELLM_PROXY_API_KEY"),
    "bedrock": _package("bedrock"),
    "sagemaker": _package("sagemaker"),
    "vertex_ai": _package("vertexai"),
    "watsonx": _package("watsonx"),
}
"""Vendors by name; where LiteLLM knows the vendor, the name is LiteLLM's prefix."""


def offered() -> dict[str, Vendor]:
    """Returns the vendors that `parley init` offers, in the order of its list."""
    return {name: vendor for name, vendor in VENDORS.items() if vendor.title}
