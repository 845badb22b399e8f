"""Known error bodies: rejected content."""

from parley.backends.errors.kinds import Kind
from parley.backends.errors.known_bodies.rows import Row, by_code, by_pattern

ROWS: tuple[Row, ...] = (
    by_code(
        Kind.POLICY,
        "OpenAI, Azure OpenAI (learn.microsoft.com/azure/ai-services/openai/concepts/content-filter), OpenRouter",
        "content_filter content_policy_violation content_policy responsibleaipolicyviolation moderation_blocked"
        " image_content_policy_violation refusal",
    ),
    by_code(
        Kind.POLICY,
        "Gemini (ai.google.dev/api/generate-content, BlockReason and FinishReason), Bedrock guardrails",
        "safety image_safety prohibited_content blocklist recitation spii guardrail_intervened content_blocked",
    ),
    by_code(
        Kind.POLICY,
        "DashScope (help.aliyun.com/model-studio error codes), Zhipu 1301",
        "data_inspection_failed datainspectionfailed 1301 sensitive_content",
    ),
    by_pattern(
        Kind.POLICY,
        "Azure OpenAI",
        r"content management policy",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    ),
    by_pattern(
        Kind.POLICY,
        "Anthropic",
        r"blocked by content filtering policy",
        "Output blocked by content filtering policy",
    ),
    by_pattern(
        Kind.POLICY,
        "OpenAI reasoning models, code invalid_prompt",
        r"flagged as potentially violating",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
    ),
    by_pattern(
        Kind.POLICY,
        "OpenAI images and others",
        r"(?:rejected|blocked)\b.{0,20}\b(?:as a result of|by|due to)\b.{0,20}\bsafety (?:system|filter|setting)",
        "Your request was rejected as a result of our safety system.",
    ),
    by_pattern(Kind.POLICY, "DeepSeek", r"content exists risk", "Content Exists Risk"),
    by_pattern(
        Kind.POLICY,
        "Moonshot, type content_filter",
        r"considered high risk",
        "The request was rejected because it was considered high risk",
    ),
    by_pattern(
        Kind.POLICY,
        "OpenRouter 403 (openrouter.ai/docs/errors, moderation errors)",
        r"your input was flagged|requires moderation",
        'This model requires moderation on OpenAI. Your input was flagged for "violence". No credits were charged.',
    ),
    by_pattern(
        Kind.POLICY,
        "DashScope",
        r"inappropriate content",
        "Input data may contain inappropriate content.",
    ),
    by_pattern(
        Kind.POLICY,
        "xAI 403",
        r"violates usage guidelines",
        "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
    ),
    by_pattern(
        Kind.POLICY,
        "Gemini, in compatible form",
        r"\bprompt was blocked\b|\bblocked (?:by|due to|for) .{0,20}\bsafety\b",
        "The prompt was blocked: OTHER",
    ),
    by_pattern(
        Kind.POLICY,
        "Zhipu, Baidu, in Chinese",
        r"不安全或敏感内容|敏感词|内容安全",
        "系统检测到输入或生成内容可能包含不安全或敏感内容",
    ),
)
