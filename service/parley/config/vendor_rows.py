"""The table of vendors: their presets, and what is known of their hosts. Each row names its source."""

from collections.abc import Mapping

from parley.config.vendor import ReasoningRule, Vendor
from parley.config.vendor_parameters import ANTHROPIC, COMMON, QWEN, TEMPLATE_SWITCHES, named

_OLD_LIMIT = {"max_completion_tokens": "max_tokens"}
_NEW_LIMIT = {"max_tokens": "max_completion_tokens"}
_SYSTEM = {"developer": "system"}
_HEALTH = {"path": "/health"}
_OPENAI_ONLY = ["user", "safety_identifier", "prompt_cache_key"]
"""Parameters that change no answer, and that a strict server refuses."""
_NONE: frozenset[str] = frozenset()
_OMIT = ReasoningRule(history="omit")
_REQUIRED = ReasoningRule("reasoning_content", "require", _NONE)
_GOOGLE = {"google": frozenset({"thinking_config"})}
_EXTRA_BODY = "extra_body"
"""Google's API has this member in the JSON itself, where OpenAI's packages have only an argument of this name."""

VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor(
        settings={"base_url": "https://api.openai.com/v1", "rename": _NEW_LIMIT, "prefill": "off"},
        source="platform.openai.com/docs/api-reference/chat/create",
        hosts=("api.openai.com",),
        key="OPENAI_API_KEY",
        reasoning=_OMIT,  # no such field: platform.openai.com/docs/api-reference/chat
        parameters={},  # all of its documented parameters are fields of the request
    ),
    "azure": Vendor(
        settings={
            "path": "/openai/deployments/{model}/chat/completions",
            "api_version": "2024-10-21",
            "key_header": "api-key",
            "prefill": "off",
            "rename": _NEW_LIMIT,
        },
        source="learn.microsoft.com/azure/ai-services/openai/reference",
        hosts=("openai.azure.com",),
        key="AZURE_OPENAI_API_KEY",
        example="https://NAME.openai.azure.com",
        reasoning=_OMIT,
        parameters={},
        provider="azure.ai.openai",
    ),
    "anthropic": Vendor(
        settings={"base_url": "https://api.anthropic.com"},
        source="docs.anthropic.com/en/api/messages",
        hosts=("anthropic.com",),
        key="ANTHROPIC_API_KEY",
        kind="anthropic",
        parameters=ANTHROPIC,
        provider="anthropic",
    ),
    "gemini": Vendor(
        settings={
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "roles": _SYSTEM,
            "drop": [*_OPENAI_ONLY, "service_tier"],
            "unsupported": ["frequency_penalty", "presence_penalty", "seed", "logit_bias", "prediction", "verbosity"],
            "prefill": "off",
        },
        source="ai.google.dev/gemini-api/docs/openai",
        hosts=("generativelanguage.googleapis.com",),
        key="GEMINI_API_KEY",
        reasoning=_OMIT,  # it rejects unknown fields
        parameters=_GOOGLE,
        parameters_member=_EXTRA_BODY,
        listed_prefix="models/",  # OpenCoworkAI/open-codesign#186
        provider="gcp.gemini",
    ),
    "mistral": Vendor(
        settings={
            "base_url": "https://api.mistral.ai/v1",
            "rename": {**_OLD_LIMIT, "seed": "random_seed"},
            "roles": _SYSTEM,
            "drop": [*_OPENAI_ONLY, "service_tier", "messages.name"],
            "unsupported": [
                *("logit_bias", "logprobs", "top_logprobs", "web_search_options", "modalities", "audio", "verbosity"),
            ],
            "prefill": "prefix",
        },
        source="docs.mistral.ai/api/endpoint/chat",
        hosts=("mistral.ai",),
        key="MISTRAL_API_KEY",
        reasoning=_OMIT,  # BerriAI/litellm#30835; co-l/openfox#220
        parameters=named("random_seed safe_prompt prompt_mode"),
        provider="mistral_ai",
    ),
    "groq": Vendor(
        settings={
            "base_url": "https://api.groq.com/openai/v1",
            "rename": _NEW_LIMIT,
            "drop": ["messages.name"],
            "unsupported": ["logprobs", "top_logprobs", "logit_bias", "n"],
        },
        source="console.groq.com/docs/openai",
        hosts=("groq.com",),
        key="GROQ_API_KEY",
        reasoning=ReasoningRule("reasoning", details=_NONE),  # console.groq.com/docs/reasoning; vercel/ai#8057
        parameters=named("reasoning_format include_reasoning citation_options disable_tool_validation search_settings"),
        provider="groq",
    ),
    "cerebras": Vendor(
        settings={
            "base_url": "https://api.cerebras.ai/v1",
            "rename": _NEW_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["frequency_penalty", "presence_penalty", "logit_bias"],
            "prefill": "off",
        },
        source="inference-docs.cerebras.ai/resources/openai",
        hosts=("cerebras.ai",),
        key="CEREBRAS_API_KEY",
        reasoning=ReasoningRule("reasoning", details=_NONE),  # QwenLM/qwen-code#11045; proxysoul/Empryo#209
        parameters=named("disable_reasoning clear_thinking reasoning_format"),
    ),
    "deepseek": Vendor(
        settings={"base_url": "https://api.deepseek.com", "rename": _OLD_LIMIT, "roles": _SYSTEM, "prefill": "off"},
        source="api-docs.deepseek.com/api/create-chat-completion",
        hosts=("deepseek.com",),
        key="DEEPSEEK_API_KEY",
        reasoning=_REQUIRED,  # api-docs.deepseek.com/guides/thinking_mode; openclaw/openclaw#73417
        parameters=named("top_k thinking"),
        provider="deepseek",
    ),
    "kimi": Vendor(
        settings={
            "base_url": "https://api.moonshot.ai/v1",
            "rename": _NEW_LIMIT,
            "roles": _SYSTEM,
            "prefill": "partial",
        },
        source="platform.kimi.ai/docs/api/chat",
        hosts=("moonshot.ai", "moonshot.cn", "kimi.com"),
        key="MOONSHOT_API_KEY",
        reasoning=_REQUIRED,  # charmbracelet/crush#2696; HKUDS/nanobot#946
        parameters=named("thinking"),
    ),
    "xai": Vendor(
        settings={
            "base_url": "https://api.x.ai/v1",
            "rename": _NEW_LIMIT,
            "unsupported": ["logit_bias", "frequency_penalty", "presence_penalty"],
            "prefill": "off",
        },
        source="docs.x.ai/docs/api-reference",
        hosts=("x.ai",),
        key="XAI_API_KEY",
        parameters={},
        provider="x_ai",
    ),
    "openrouter": Vendor(
        settings={"base_url": "https://openrouter.ai/api/v1"},
        source="openrouter.ai/docs/api-reference/chat-completion",
        hosts=("openrouter.ai",),
        key="OPENROUTER_API_KEY",
        reasoning=ReasoningRule(
            "reasoning", details=frozenset({"reasoning_details"})
        ),  # openrouter.ai/docs, reasoning tokens
        parameters=named(COMMON, "top_a usage"),
    ),
    "together": Vendor(
        settings={"base_url": "https://api.together.xyz/v1", "rename": _OLD_LIMIT, "roles": _SYSTEM},
        source="docs.together.ai/reference/chat-completions-1",
        hosts=("together.xyz", "together.ai"),
        key="TOGETHER_API_KEY",
        parameters=named(COMMON, "context_length_exceeded_behavior", objects=TEMPLATE_SWITCHES),
    ),
    "fireworks": Vendor(
        settings={"base_url": "https://api.fireworks.ai/inference/v1", "rename": _OLD_LIMIT, "roles": _SYSTEM},
        source="docs.fireworks.ai/api-reference/post-chatcompletions",
        hosts=("fireworks.ai",),
        key="FIREWORKS_API_KEY",
        reasoning=ReasoningRule("reasoning_content", details=_NONE),  # BerriAI/litellm#39962
        parameters=named(
            COMMON,
            "typical_p mirostat_target mirostat_lr prompt_truncate_len context_length_exceeded_behavior ignore_eos",
            "min_tokens reasoning_history perf_metrics_in_response",
        ),
    ),
    "vllm": Vendor(
        settings={"base_url": "http://localhost:8000/v1", "prefill": "vllm", "health": _HEALTH},
        source="docs.vllm.ai/en/latest/serving/openai_compatible_server",
    ),
    "sglang": Vendor(
        settings={"base_url": "http://localhost:30000/v1", "roles": _SYSTEM, "prefill": "vllm", "health": _HEALTH},
        source="docs.sglang.ai/basic_usage/openai_api_completions.html",
    ),
    "ollama": Vendor(
        settings={
            "base_url": "http://localhost:11434/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["logit_bias", "n", "tool_choice"],
            "prefill": "message",
            "health": {"path": "/api/version"},
        },
        source="docs.ollama.com/api/openai-compatibility",
    ),
    "llama_cpp": Vendor(
        settings={"base_url": "http://localhost:8080/v1", "roles": _SYSTEM, "prefill": "message", "health": _HEALTH},
        source="github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    "lmstudio": Vendor(
        settings={
            "base_url": "http://localhost:1234/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["n", "logprobs", "top_logprobs"],
            "prefill": "off",
            "health": {"path": "/v1/models"},
        },
        source="lmstudio.ai/docs/developer/openai-compat/chat-completions",
    ),
    "tgi": Vendor(
        settings={
            "base_url": "http://localhost:8080/v1",
            "rename": _OLD_LIMIT,
            "roles": _SYSTEM,
            "unsupported": ["n"],
            "prefill": "vllm",
            "health": _HEALTH,
        },
        source="huggingface.co/docs/text-generation-inference/messages_api",
    ),
    "bedrock": Vendor(
        settings={"prefill": "off"},
        source="docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions-mantle.html",
        hosts=("amazonaws.com", "api.aws"),
        key="AWS_BEARER_TOKEN_BEDROCK",
        example="https://bedrock-mantle.REGION.api.aws/v1",
        provider="aws.bedrock",
    ),
}
"""The vendors with a preset. One without a `base_url` has none that all customers share."""

OTHERS: tuple[Vendor, ...] = (
    Vendor(
        hosts=("azure.com",), settings={"prefill": "off"}, reasoning=_OMIT, parameters={}, provider="azure.ai.inference"
    ),
    Vendor(
        hosts=("aiplatform.googleapis.com", "-aiplatform.googleapis.com"),
        parameters=_GOOGLE,
        parameters_member=_EXTRA_BODY,
        provider="gcp.vertex_ai",
    ),
    Vendor(hosts=("googleapis.com",), parameters=_GOOGLE, parameters_member=_EXTRA_BODY, provider="gcp.gemini"),
    Vendor(
        hosts=("baseten.co",),
        parameters=named(COMMON, objects={"chat_template_args": TEMPLATE_SWITCHES["chat_template_kwargs"]}),
    ),
    Vendor(
        hosts=("perplexity.ai",),
        parameters=named(
            "top_k search_domain_filter search_recency_filter search_mode search_language_filter",
            "search_after_date_filter search_before_date_filter last_updated_after_filter last_updated_before_filter",
            "return_images disable_search return_related_questions language_preference",
        ),
        provider="perplexity",
    ),
    Vendor(hosts=("dashscope",), parameters=named("top_k repetition_penalty vl_high_resolution_images", QWEN)),
    Vendor(hosts=("siliconflow",), parameters=named("top_k min_p", QWEN)),
    Vendor(hosts=("bigmodel.cn", "z.ai"), parameters=named("thinking do_sample tool_stream")),
    Vendor(hosts=("minimax",), parameters=named("reasoning_split top_k")),
    Vendor(hosts=("cohere",), provider="cohere"),
)
"""The vendors without a preset whose hosts are known. Source: each vendor's reference of chat completions."""
