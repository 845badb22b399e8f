"""The vendors of LiteLLM: those of Parley's presets, and others by their addresses."""

from collections.abc import Mapping

from parley.cli.shared.vendors import VENDORS as KNOWN
from parley.cli.shared.vendors import Vendor, package, with_key

VENDORS: Mapping[str, Vendor] = {
    **KNOWN,
    # LiteLLM's own variables, where the vendor's documents have others.
    "azure": with_key(KNOWN["azure"], "AZURE_API_KEY"),
    "together": with_key(KNOWN["together"], "TOGETHERAI_API_KEY"),
    "perplexity": Vendor("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "sambanova": Vendor("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "deepinfra": Vendor("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "nvidia_nim": Vendor("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "cohere": Vendor("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY"),
    "codestral": Vendor("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "huggingface": Vendor("https://router.huggingface.co/v1", "HF_TOKEN"),
    "github": Vendor("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "meta_llama": Vendor("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
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
    "llamafile": Vendor("http://127.0.0.1:8080/v1"),
    "azure_ai": Vendor(key="AZURE_AI_API_KEY"),
    "databricks": Vendor(key="DATABRICKS_API_KEY"),
    "litellm_proxy": Vendor(key="LITELLM_PROXY_API_KEY"),
    "bedrock": package("bedrock"),  # with AWS's credentials, as LiteLLM
    "sagemaker": package("sagemaker"),
    "vertex_ai": package("vertexai"),
    "watsonx": package("watsonx"),
}
"""Vendors by name. Prefixes with another name are in `tables.PREFIXES`."""

OTHER_NAME = "other"
OTHER_ADDRESS = frozenset({"openai", "anthropic"})
"""Prefixes that, with an address of another server, mean its API and not its vendor."""
