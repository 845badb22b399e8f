"""Vendor parameters of callers that a backend passes on by default.

They are parameters of generation: sampling, penalties, stop conditions, reasoning, and the filters of a search that the
vendor's model makes anyway. `parley.backends.extra_body.closed` lists what is left out, and why.
"""

from parley.config.vendor import Parameters


def named(*texts: str, objects: Parameters | None = None) -> Parameters:
    """Returns the parameters named in `texts`, and objects with their allowed members."""
    return dict.fromkeys(" ".join(texts).split()) | dict(objects or {})


COMMON = "top_k min_p repetition_penalty reasoning thinking include_reasoning"
# Other variables of a chat template may replace the template (CVE-2025-61620), its tools or its documents.
TEMPLATE_SWITCHES: Parameters = {
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
QWEN = "enable_thinking thinking_budget"

LLAMA_CPP: Parameters = named(COMMON, _LLAMA_CPP, objects=TEMPLATE_SWITCHES)
SELF_HOSTED: Parameters = named(COMMON, _LLAMA_CPP, _VLLM, _SGLANG, _OLLAMA, QWEN, objects=TEMPLATE_SWITCHES)
ANTHROPIC: Parameters = named("top_k thinking", objects={"output_config": frozenset({"effort"})})
