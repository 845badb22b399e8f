"""The vendor parameters that a backend passes on by default.

A preset lists parameters of generation: sampling, penalties, stop conditions, reasoning, and the filters of a search
that the vendor's model makes anyway. `closed` lists what presets leave out, and why.
"""

from collections.abc import Mapping

Preset = Mapping[str, frozenset[str] | None]
"""The allowed parameters. The value is None, or the allowed members where the parameter is an object."""


def _preset(*texts: str, objects: Preset | None = None) -> Preset:
    """Returns a preset of the names in `texts`, and of objects with their allowed members."""
    return dict.fromkeys(" ".join(texts).split()) | dict(objects or {})


_COMMON = "top_k min_p repetition_penalty reasoning thinking include_reasoning"
# Other variables of a chat template may replace the template (CVE-2025-61620), its tools or its documents.
_TEMPLATE_SWITCHES: Preset = {
    "chat_template_kwargs": frozenset(
        ("enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "preserve_thinking", "clear_thinking")
    )
}
# tools/server/README.md
_LLAMA_CPP = """typical_p top_n_sigma xtc_probability xtc_threshold min_keep samplers dry_multiplier dry_base
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta dynatemp_range
    dynatemp_exponent repeat_penalty repeat_last_n ignore_eos t_max_predict_ms n_probs json_schema reasoning_format
    thinking_budget_tokens"""
# vllm/entrypoints/openai/protocol.py
_VLLM = """length_penalty stop_token_ids include_stop_str_in_output min_tokens skip_special_tokens allowed_token_ids
    spaces_between_special_tokens truncate_prompt_tokens bad_words add_special_tokens guided_json guided_choice
    cache_salt thinking_token_budget"""
# python/sglang/srt/entrypoints/openai/protocol.py
_SGLANG = "no_stop_trim separate_reasoning stream_reasoning"
_OLLAMA = "think"  # docs/openai.md
# Qwen's name for the API of its vendor, which LMDeploy and FastDeploy read too. LangChain's ChatQwen always sends it.
_QWEN = "enable_thinking thinking_budget"

LLAMA_CPP: Preset = _preset(_COMMON, _LLAMA_CPP, objects=_TEMPLATE_SWITCHES)
SELF_HOSTED: Preset = _preset(_COMMON, _LLAMA_CPP, _VLLM, _SGLANG, _OLLAMA, _QWEN, objects=_TEMPLATE_SWITCHES)
ANTHROPIC: Preset = _preset("top_k thinking", objects={"output_config": frozenset({"effort"})})

VENDORS: Mapping[str, Preset] = {
    "api.openai.com": {},  # all of its documented parameters are fields of the request
    "azure.com": {},
    "openrouter.ai": _preset(_COMMON, "top_a usage"),
    "api.deepseek.com": _preset("top_k thinking"),
    "api.mistral.ai": _preset("random_seed safe_prompt prompt_mode"),
    "api.groq.com": _preset(
        "reasoning_format include_reasoning citation_options disable_tool_validation search_settings"
    ),
    "api.together.xyz": _preset(_COMMON, "context_length_exceeded_behavior", objects=_TEMPLATE_SWITCHES),
    "api.fireworks.ai": _preset(
        _COMMON,
        "typical_p mirostat_target mirostat_lr prompt_truncate_len context_length_exceeded_behavior ignore_eos",
        "min_tokens reasoning_history perf_metrics_in_response",
    ),
    "api.cerebras.ai": _preset("disable_reasoning clear_thinking reasoning_format"),
    "baseten.co": _preset(_COMMON, objects={"chat_template_args": _TEMPLATE_SWITCHES["chat_template_kwargs"]}),
    "api.x.ai": {},
    "googleapis.com": {"google": frozenset({"thinking_config"})},  # of the Gemini API and of Vertex AI
    "api.perplexity.ai": _preset(
        "top_k search_domain_filter search_recency_filter search_mode search_language_filter search_after_date_filter",
        "search_before_date_filter last_updated_after_filter last_updated_before_filter return_images disable_search",
        "return_related_questions language_preference",
    ),
    "moonshot.": _preset("thinking"),
    "dashscope": _preset("top_k repetition_penalty vl_high_resolution_images", _QWEN),
    "siliconflow": _preset("top_k min_p", _QWEN),
    "bigmodel.cn": _preset("thinking do_sample tool_stream"),
    "api.z.ai": _preset("thinking do_sample tool_stream"),
    "minimax": _preset("reasoning_split top_k"),
}
"""The presets of vendors, by a part of their host names. Source: each vendor's reference of chat completions."""


def for_url(base_url: str) -> Preset:
    """Returns the preset of an OpenAI-compatible server: its vendor's, or that of self-hosted servers."""
    return next((preset for part, preset in VENDORS.items() if part in _host(base_url)), SELF_HOSTED)


def _host(base_url: str) -> str:
    return base_url.partition("://")[2].partition("/")[0].lower()


def member(base_url: str) -> str | None:
    """Returns the member of the body that contains the vendor parameters; None if they are members of the body.

    Google's API has `extra_body` in the JSON itself, where OpenAI's packages have only an argument of this name
    (ai.google.dev/gemini-api/docs/openai).
    """
    return "extra_body" if "googleapis.com" in _host(base_url) else None


def for_provider(provider: str) -> Preset:
    """Returns the preset of a provider of any-llm-sdk, by its name."""
    known = {"anthropic": ANTHROPIC, "llamacpp": LLAMA_CPP, "vllm": SELF_HOSTED, "ollama": SELF_HOSTED}
    if provider in known:
        return known[provider]
    return next((preset for part, preset in VENDORS.items() if provider in part), _preset(_COMMON))
