"""Known error bodies: quotas, rate limits, overload."""

from parley.backends.errors.kinds import Kind
from parley.backends.errors.known_bodies.rows import ANY, LIMITS, Row, by_code, by_pattern

ROWS: tuple[Row, ...] = (
    by_pattern(
        Kind.OVERSIZED,
        "Groq 413, OpenAI 429: one request exceeds the tokens per minute",
        r"request too large for",
        "Request too large for model `llama-3.1-8b-instant` on tokens per minute (TPM): Limit 6000, Requested 9000",
        LIMITS,
    ),
    by_pattern(
        Kind.QUOTA,
        "Gemini, quotaId of a QuotaFailure; OpenRouter free models; Groq TPD and RPD",
        r"per[-_ ]?day\b|PerDay",
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        LIMITS,
    ),
    by_pattern(
        Kind.RATE_LIMITED,
        "Gemini: an exhausted quota, with a delay (google-gemini/gemini-cli#8414, continuedev/continue#10062)",
        r"exceeded your current quota[\s\S]*(?:please retry in \d|PerMinute)",
        "You exceeded your current quota, please check your plan and billing details. Please retry in 20.04466179s.",
        LIMITS,
    ),
    by_code(
        Kind.QUOTA,
        "OpenAI (platform.openai.com/docs/guides/error-codes), Azure OpenAI",
        "insufficient_quota billing_hard_limit_reached billing_not_active billing_hard_limit_exceeded quota_exceeded"
        " quotaexceeded insufficientquota",
        ANY,
    ),
    by_code(
        Kind.QUOTA,
        "Anthropic, OpenRouter, Moonshot, DashScope, LiteLLM, one-api, Zhipu 1113",
        "billing_error payment_required exceeded_current_quota_error arrearage budget_exceeded insufficient_user_quota"
        " insufficient_credits insufficient_balance insufficient_funds credits_exhausted 1113",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "OpenAI",
        r"exceeded (?:your|its|the) (?:current|monthly|free|usage|billing) ?\w* ?(?:quota|limit)"
        r"|exceeded current quota",
        "You exceeded your current quota, please check your plan and billing details.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "Anthropic 400 (anthropics/claude-code#7224)",
        r"credit balance is too low",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "Anthropic 400 and 403",
        r"reached your specified .{0,30}usage limits",
        "You have reached your specified workspace API usage limits. You will regain access on 2025-11-01.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "DeepSeek 402, OpenRouter 402, MiniMax 1008, Together",
        r"(?:insufficient|not enough|no|out of|negative) (?:account |your )?(?:balance|credits?|funds)\b",
        "Insufficient Balance",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "xAI 403 and 429 (continuedev/continue#10373)",
        r"used all (?:\w+ )?available credits|(?:monthly |your )?spending (?:limit|cap)",
        "Your team has either used all available credits or reached its monthly spending limit.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "OpenAI, account not active",
        r"not active, please check your billing|billing (?:hard )?limit|please (?:add|purchase|buy) (?:more )?credits",
        "Your account is not active, please check your billing details on our website.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "Hugging Face inference providers, Gemini prepaid",
        r"exceeded your monthly included credits|credits? (?:have been |are |is )?(?:depleted|exhausted|used up)"
        r"|quota (?:has been |is )?(?:depleted|exhausted|used up)",
        "You have exceeded your monthly included credits for Inference Providers.",
        ANY,
    ),
    by_pattern(
        Kind.QUOTA,
        "Zhipu, DashScope, in Chinese",
        r"余额不足|欠费|额度已用[完尽]",
        "余额不足或无可用资源包,请充值。",
        ANY,
    ),
    by_code(
        Kind.UNAVAILABLE,
        "Anthropic, Moonshot, OpenAI slow_down, OpenRouter",
        "overloaded_error overloaded engine_overloaded_error model_overloaded server_overloaded provider_overloaded"
        " provider_unavailable slow_down",
        ANY - {429},
    ),
    by_code(
        Kind.RATE_LIMITED,
        "OpenAI, Anthropic, Groq, Cerebras, Moonshot, Gemini, Bedrock",
        "rate_limit_exceeded rate_limit_error rate_limit rate_limited ratelimiterror too_many_requests"
        " rate_limit_reached_error resource_exhausted throttlingexception throttling throttled ratelimitreached"
        " servicequotaexceededexception capacity_exceeded concurrency_limit_exceeded"
        " token_quota_exceeded request_quota_exceeded",
        LIMITS | {401, 402, 502},
    ),
    by_pattern(
        Kind.RATE_LIMITED,
        "Bedrock, Together, Azure AI, vLLM behind proxies",
        r"rate limit(?:ed|s)? (?:is |was |has been )?(?:reached|exceeded|hit)|\btoo many requests\b"
        r"|too many tokens, please wait",
        "Too many tokens, please wait before trying again.",
        LIMITS,
    ),
)
