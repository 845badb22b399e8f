"""What the settings of LiteLLM's proxy become: data for `parley.cli.litellm.translation`.

Names and meanings: https://docs.litellm.ai/docs/proxy/config_settings. A setting in none of these tables is listed as
unknown. When Parley gets a counterpart, the setting moves from the tables of texts to those of names.
"""

import re
from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    """Returns the words of a text."""
    return frozenset(text.split())


PREFIXES: Mapping[str, str] = {
    "azure_text": "azure",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "kimi",
    "cohere_chat": "cohere",
    "ai21_chat": "ai21",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "lm_studio": "lmstudio",
    "llamacpp": "llama_cpp",
    "openai_like": "other",
    "custom_openai": "other",
    "xinference": "other",
    "aiohttp_openai": "openai",
    "text-completion-openai": "",
    "sagemaker_chat": "sagemaker",
    "bedrock_converse": "bedrock",
    "vertex_ai_beta": "vertex_ai",
}
"""Prefixes that mean a vendor of another name; "" for an API that Parley does not call."""

BARE_MODELS: Mapping[str, str] = {
    r"(gpt|chatgpt|o\d|ft:gpt)[-\d]?.*": "openai",
    r"claude.*": "anthropic",
    r"gemini.*": "vertex_ai",
    r"command.*": "cohere",
    r"deepseek.*": "deepseek",
    r"mistral.*": "mistral",
}
"""Vendors of models without a prefix, by patterns."""

SUFFIXES: Mapping[str, str] = {"ollama": "/v1"}
"""What an `api_base` needs to become the base URL of an API like OpenAI's."""

CUTS = ("/chat/completions", "/v1/messages")
"""What Parley adds to a base URL itself."""

NOT_CHAT = re.compile(
    r"(^|[/-])(text-embedding|embed|embedding|embeddings|dall-e|whisper|tts|gpt-image|imagen|rerank|moderation)([-./]|$)"
)
"""Models whose API is not chat completions, by name."""
CHAT_MODES = ("chat", "responses")
"""Values of `model_info.mode` that chat completions answer."""

PLACEHOLDERS = _words(
    "none null empty na n/a no no-key nokey not-needed notneeded not-used dummy fake fake-key anything ollama lm-studio"
    " lmstudio vllm local test unused sk-unused sk-fake sk-dummy x xx xxx"
)
"""Keys that stand for no key, in lower case."""

DEFAULTS = _words(
    "temperature top_p n stop max_tokens max_completion_tokens presence_penalty frequency_penalty logit_bias logprobs"
    " top_logprobs seed tools tool_choice parallel_tool_calls functions function_call response_format reasoning_effort"
    " verbosity service_tier modalities web_search_options prediction"
)
"""Parameters of a deployment that become `defaults` of the model."""

PRICES: Mapping[str, str] = {
    "input_cost_per_token": "prompt",
    "output_cost_per_token": "completion",
    "cache_read_input_token_cost": "cached_prompt",
}
"""Prices of one token; Parley's are those of a million."""

USED_PARAMS = _words(
    "model api_key api_base base_url custom_llm_provider weight rpm tpm order timeout stream_timeout request_timeout"
    " max_parallel_requests litellm_credential_name api_version extra_headers headers organization"
    " additional_drop_params"
)
"""Parameters of a deployment that the translation reads."""

PARAMS: Mapping[str, str] = {
    "extra_body": "set what callers may send with `extra_body` of the backend",
    "drop_params": "presets drop what their vendors refuse; name others in `drop` of a backend",
    "allowed_openai_params": "all of OpenAI's parameters are passed on",
    "num_retries": "retries belong to the model: set `retries` there",
    "max_retries": "retries belong to the model: set `retries` there",
    "cooldown_time": "the breaker of a target chooses its own pauses",
    "region_name": "targets are not chosen by region",
    "tags": "targets are not chosen by tags; make a model of each group",
    "max_budget": "a target has no budget; set `cost_per_day` or `cost_per_month` in `limits`",
    "budget_duration": "a target has no budget; set `cost_per_day` or `cost_per_month` in `limits`",
    "mock_response": "Parley has no mock answers",
    "mock_timeout": "Parley has no mock answers",
    "merge_reasoning_content_in_choices": "reasoning stays in `reasoning_content`",
    "cache_control_injection_points": "Parley adds no cache marks; callers may send them",
    "ssl_verify": "certificates are always checked; name your authority with `ca` of the backend",
    "use_in_pass_through": "Parley passes no other paths through",
    "thinking": "set it for callers with `extra_body` of the backend, or in `reasoning_effort`",
    "input_cost_per_second": "prices are those of tokens",
    "output_cost_per_second": "prices are those of tokens",
    "user": "callers name their users",
    "metadata": "Parley adds no metadata to requests",
    "configurable_clientside_auth_params": "callers cannot replace keys and addresses of backends",
    "keepalive": "sent by callers: allow it with `extra_body` of the backend",
    "prompt_id": "set the prompt as `instructions` of the model",
    "guardrails": "set `guards`; see docs/guards.md",
    "aws_region_name": "any-llm-sdk reads it from the environment: set AWS_REGION",
    "aws_access_key_id": "any-llm-sdk reads it from the environment: set AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "any-llm-sdk reads it from the environment: set AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "any-llm-sdk reads it from the environment: set AWS_SESSION_TOKEN",
    "aws_profile_name": "any-llm-sdk reads it from the environment: set AWS_PROFILE",
    "vertex_project": "any-llm-sdk reads it from the environment: set GOOGLE_CLOUD_PROJECT",
    "vertex_ai_project": "any-llm-sdk reads it from the environment: set GOOGLE_CLOUD_PROJECT",
    "vertex_ai_location": "any-llm-sdk reads it from the environment: set GOOGLE_CLOUD_LOCATION",
    "vertex_location": "any-llm-sdk reads it from the environment: set GOOGLE_CLOUD_LOCATION",
    "vertex_credentials": "any-llm-sdk reads it from the environment: set GOOGLE_APPLICATION_CREDENTIALS",
    "tenant_id": "no sign-in of Entra ID: keep a token in a file, and name it with `api_key: file:/PATH`",
    "client_id": "no sign-in of Entra ID: keep a token in a file, and name it with `api_key: file:/PATH`",
    "client_secret": "no sign-in of Entra ID: keep a token in a file, and name it with `api_key: file:/PATH`",
    "azure_ad_token": "no sign-in of Entra ID: keep a token in a file, and name it with `api_key: file:/PATH`",
}
"""Parameters of a deployment without a counterpart."""

USED_INFO = _words("mode id db_model")
"""Members of `model_info` that the translation reads, or that mean nothing elsewhere."""

SETTINGS: Mapping[str, str] = {
    "litellm_settings.drop_params": "presets drop what their vendors refuse; name others in `drop` of a backend",
    "litellm_settings.modify_params": "requests are not changed",
    "litellm_settings.set_verbose": "use `parley up --log-level debug`",
    "litellm_settings.json_logs": "logs are JSON when the output is not a terminal",
    "litellm_settings.callbacks": "metrics are at /metrics, traces go to OTEL_EXPORTER_OTLP_ENDPOINT",
    "litellm_settings.success_callback": "traces go to OTEL_EXPORTER_OTLP_ENDPOINT, which Langfuse and others read",
    "litellm_settings.failure_callback": "traces go to OTEL_EXPORTER_OTLP_ENDPOINT, which Langfuse and others read",
    "litellm_settings.service_callbacks": "metrics of the store are at /metrics; see docs/metrics.md",
    "litellm_settings.turn_off_message_logging": "logs and traces never have the text of messages",
    "litellm_settings.redact_user_api_key_info": "logs and traces never have keys",
    "litellm_settings.cache": "set `cache` of models; see docs/cache.md",
    "litellm_settings.cache_params": "set `cache` of models; see docs/cache.md",
    "litellm_settings.max_budget": "set `cost_per_month` in `limits.account`, and `prices`",
    "litellm_settings.budget_duration": "set `cost_per_day` or `cost_per_month` in `limits.account`",
    "litellm_settings.content_policy_fallbacks": "a refusal for its content reaches the caller",
    "litellm_settings.default_team_settings": "teams are accounts: `parley accounts create`",
    "litellm_settings.default_internal_user_params": "users are accounts: `parley accounts create`",
    "litellm_settings.upperbound_key_generate_params": "keys are made by administrators: `parley keys create`",
    "litellm_settings.key_generation_settings": "keys are made by administrators: `parley keys create`",
    "litellm_settings.guardrails": "set `guards`; see docs/guards.md",
    "litellm_settings.telemetry": "Parley sends no telemetry",
    "litellm_settings.forward_traceparent_to_llm_provider": "set `trace_context` of a backend",
    "litellm_settings.ssl_verify": "certificates are always checked; name your authority with `ca` of a backend",
    "litellm_settings.forward_client_headers_to_llm_api": "list the headers in `forward_headers` of a backend",
    "general_settings.forward_client_headers_to_llm_api": "list the headers in `forward_headers` of a backend",
    "litellm_settings.cert_pem": "name it with `client_certificate` of a backend",
    "litellm_settings.allowed_fails": "the breaker of a target opens after 5 failures in a row or half of 20",
    "litellm_settings.cooldown_time": "the breaker of a target chooses its own pauses",
    "litellm_settings.return_response_headers": "headers of backends are not passed on",
    "litellm_settings.enable_json_schema_validation": "answers are not checked against schemas",
    "router_settings.content_policy_fallbacks": "a refusal for its content reaches the caller",
    "router_settings.allowed_fails": "the breaker of a target opens after 5 failures in a row or half of 20",
    "router_settings.allowed_fails_policy": "the breaker of a target opens after 5 failures in a row or half of 20",
    "router_settings.cooldown_time": "the breaker of a target chooses its own pauses",
    "router_settings.disable_cooldowns": "the breaker of a target cannot be turned off",
    "router_settings.retry_policy": "one number of attempts for all failures: `retries` of the model",
    "router_settings.model_group_retry_policy": "one number of attempts for all failures: `retries` of the model",
    "router_settings.retry_after": "pauses before retries are chosen by the failure",
    "router_settings.enable_pre_call_checks": "by `metadata.context_length`, a long prompt goes to a fallback",
    "router_settings.enable_tag_filtering": "targets are not chosen by tags; make a model of each group",
    "router_settings.tag_filtering_match_any": "targets are not chosen by tags; make a model of each group",
    "router_settings.routing_strategy_args": "targets are chosen by weight among the healthy ones",
    "router_settings.redis_host": "workers share their state in the store; several machines need `store: postgres`",
    "router_settings.redis_port": "workers share their state in the store; several machines need `store: postgres`",
    "router_settings.redis_password": "workers share their state in the store; several machines need `store: postgres`",
    "router_settings.redis_url": "workers share their state in the store; several machines need `store: postgres`",
    "router_settings.cache_responses": "set `cache` of models; see docs/cache.md",
    "router_settings.max_fallbacks": "set `retries.attempts` of the models",
    "router_settings.optional_pre_call_checks": "a session stays at its target while that is healthy",
    "router_settings.debug_level": "use `parley up --log-level debug`",
    "router_settings.set_verbose": "use `parley up --log-level debug`",
    "router_settings.default_max_parallel_requests": "set `max_concurrent` of the targets",
    "router_settings.provider_budget_config": "a backend has no budget; set `limits` and `prices`",
    "general_settings.master_key": "keys are made with `parley keys create`; administrators use the Unix socket",
    "general_settings.database_url": "set `store: {kind: postgres, url: …}` with a database of its own; keys and usage"
    " are not imported",
    "general_settings.database_connection_pool_limit": "set `store.pool`",
    "general_settings.database_connection_timeout": "connections to the store wait 3 s",
    "general_settings.store_model_in_db": "models are those of the configuration; `parley reload` reads it again",
    "general_settings.alerting": "set `budgets.webhook`, and rules of Prometheus; see docs/metrics.md",
    "general_settings.alerting_threshold": "set rules of Prometheus; see docs/metrics.md",
    "general_settings.background_health_checks": "set `health` of a backend",
    "general_settings.health_check_interval": "set `health: {interval: …}` of a backend",
    "general_settings.enable_jwt_auth": "set `auth.issuers`",
    "general_settings.litellm_jwtauth": "set `auth.issuers`",
    "general_settings.custom_auth": "set `auth.issuers`, or use API keys; Parley runs no code of a configuration",
    "general_settings.pass_through_endpoints": "Parley passes no other paths through",
    "general_settings.max_parallel_requests": "set `max_concurrent` of the targets",
    "general_settings.global_max_parallel_requests": "set `concurrent` in `limits.key` or `limits.account`",
    "general_settings.max_request_size_mb": "use `parley up --max-body`",
    "general_settings.infer_model_from_keys": "list the models of each vendor",
    "general_settings.disable_spend_logs": "usage is counted by day, without requests; see `parley usage`",
    "general_settings.store_prompts_in_spend_logs": "conversations are in sessions: `sessions` of the model",
    "general_settings.allow_requests_on_db_unavailable": "without a store, calls are refused with 503",
    "general_settings.port": "use `parley up --http HOST:PORT`",
    "general_settings.host": "use `parley up --http HOST:PORT`",
    "general_settings.user_header_name": "callers name their users with `user`",
    "general_settings.proxy_batch_write_at": "usage is written every few seconds",
}
"""Settings without a counterpart, by section and name."""

USED_SETTINGS = _words(
    """litellm_settings.fallbacks litellm_settings.default_fallbacks litellm_settings.context_window_fallbacks
    litellm_settings.num_retries litellm_settings.request_timeout litellm_settings.model_alias_map
    router_settings.fallbacks router_settings.default_fallbacks router_settings.context_window_fallbacks
    router_settings.num_retries router_settings.timeout router_settings.stream_timeout
    router_settings.model_group_alias router_settings.routing_strategy general_settings.completion_model"""
)
"""Settings that the translation reads."""

SECTIONS: Mapping[str, str] = {
    "include": "translate the included files too, and join the results",
    "guardrails": "set `guards`; see docs/guards.md",
    "mcp_servers": "Parley calls no MCP servers; callers answer tool calls",
    "finetune_settings": "Parley has chat completions only",
    "files_settings": "Parley has chat completions only",
    "assistant_settings": "Parley has chat completions only",
    "vector_store_registry": "Parley has chat completions only",
    "search_tools": "Parley calls no tools; callers answer tool calls",
    "agent_list": "Parley has chat completions only",
    "callback_settings": "traces go to OTEL_EXPORTER_OTLP_ENDPOINT; see docs/tracing.md",
    "prompts": "set prompts as `instructions` of models",
    "policies": "set `guards`; see docs/guards.md",
    "server_settings": "use the options of `parley up`",
}
"""Top-level sections without a counterpart."""

USED_SECTIONS = _words(
    "model_list litellm_settings router_settings general_settings environment_variables credential_list"
)
"""Top-level sections that the translation reads."""
