"""Vendor parameters that no preset has, with the reason that the error message gives."""

_ROWS: tuple[tuple[str, str], ...] = (
    (
        "it chooses the model",
        """models fallbacks route provider preset custom_llm_provider model_list safety_model compound_custom
        deployment_id draft_model engine adapter adapter_id adapter_source lora lora_path lora_request""",
    ),
    (
        "it chooses an address",
        """api_base base_url api_version organization headers extra_headers extra_query client_args data_sources proxy
        webhook callback_url bootstrap_host bootstrap_port bootstrap_room mcp_servers search_parameters""",
    ),
    ("it is a credential", "api_key authorization credentials aws_access_key_id vertex_credentials"),
    (
        "it replaces the prompt that the chat template makes",
        "chat_template chat_template_kwargs add_generation_prompt documents raw_prompt input_embeds prompt_embeds",
    ),
    (
        "it runs a plugin",
        """plugins transforms guardrails logits_processors custom_logit_processor custom_params vllm_xargs nvext
        mm_processor_kwargs guided_decoding_backend enable_search container context_management""",
    ),
    (
        "it controls the scheduling or the caches of the server",
        """priority kv_transfer_params id_slot slot_id cache_prompt n_cache_reuse keep_alive ttl num_ctx options
        session_params rid request_id data_parallel_rank deferred background speed inference_geo""",
    ),
    (
        "it returns the instructions of the operator",
        """echo prompt_logprobs return_token_ids return_tokens_as_token_ids return_hidden_states raw_output verbose
        __verbose debug""",
    ),
    ("it evades the limits of tokens", "best_of use_beam_search n_predict num_predict max_new_tokens"),
    (  # CVE-2025-48942, CVE-2025-48943, CVE-2025-48944: an invalid expression stopped vLLM for all callers
        "the server compiles it, and one that is too hard stops it for all callers",
        """grammar guided_regex guided_grammar guided_whitespace_pattern structured_outputs regex ebnf stop_regex
        structural_tag""",
    ),
    ("it names another user or resource", "user_id cached_content tags"),
)

CLOSED = {name: reason for reason, names in _ROWS for name in names.split()}
"""The reason by the name of the parameter. An unlisted parameter is rejected too, without a reason."""
