"""Known error bodies: the conversation exceeds the context window."""

from parley.backends.errors.kinds import Kind
from parley.backends.errors.known_bodies.rows import Row, by_code, by_pattern

ROWS: tuple[Row, ...] = (
    by_code(
        Kind.CONTEXT,
        "OpenAI, Azure OpenAI, Groq, Cerebras, OpenRouter",
        "context_length_exceeded string_above_max_length string_too_long max_context_length_exceeded",
    ),
    by_code(
        Kind.CONTEXT,
        "llama.cpp (tools/server), LiteLLM, GitHub Copilot, Zhipu 1261",
        "exceed_context_size_error context_window_exceeded contextwindowexceedederror model_max_prompt_tokens_exceeded"
        " context_window_exceeded_error 1261",
    ),
    by_pattern(
        Kind.CONTEXT,
        "OpenAI, Azure, DeepSeek, vLLM, Together, OpenRouter (vllm-project/vllm#20409)",
        r"maximum context length|maximum context limit",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9120 tokens.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "OpenAI, newer models",
        r"exceeds? (?:the|this model's|its) context window",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "OpenAI, one string alone",
        r"string too long",
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "vLLM, v1 engine",
        r"longer than the maximum model length",
        "The decoder prompt (length 9001) is longer than the maximum model length of 4096.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "vLLM, v0 engine",
        r"too long to fit into the model",
        "The prompt (total length 9001) is too long to fit into the model (context length 4096).",
    ),
    by_pattern(
        Kind.CONTEXT,
        "vLLM, input and output together",
        r"the model's context length is only",
        "You passed 9001 input tokens. However, the model's context length is only 4096 tokens",
    ),
    by_pattern(
        Kind.CONTEXT,
        "SGLang (QwenLM/Qwen3#1321, sgl-project/sglang#4048)",
        r"longer than the model's context length|input length .{0,30}exceeds the maximum allowed length",
        "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
    ),
    by_pattern(
        Kind.CONTEXT,
        "TGI 422, Together (huggingface/text-generation-inference#628)",
        r"`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1244 `inputs` tokens",
    ),
    by_pattern(
        Kind.CONTEXT,
        "llama.cpp (tools/server)",
        r"exceeds? the (?:available )?context size|context shift is disabled|input is too large to process",
        "the request exceeds the available context size (8192 tokens), try increasing it",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Ollama",
        r"exceed(?:s|ed)? (?:the |max(?:imum)? )*context length",
        "prompt too long; exceeded max context length by 812 tokens",
    ),
    by_pattern(
        Kind.CONTEXT,
        "LM Studio (lmstudio-ai/lmstudio-bug-tracker#237, #2256)",
        r"when context the overflows|loaded with context length of only|greater than the context length",
        "Trying to keep the first 15857 tokens when context the overflows. However, the model is loaded with context"
        " length of only 4096 tokens, which is not enough.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "xAI (cline/cline#3120)",
        r"maximum prompt length is",
        "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Groq, Cerebras, vLLM",
        r"reduce the length of (?:the|your) (?:messages|prompt|input|completion)",
        "Please reduce the length of the messages or completion. Current length is 8905 while limit is 8192",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Mistral",
        r"too large for model with",
        "Prompt contains 40124 tokens and 0 draft tokens, too large for model with 32768 tokens",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Cohere (cohere-ai/sandbox-topically#4)",
        r"too many tokens: (?:the )?(?:total|size)",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 6354.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Anthropic, Fireworks (stackblitz/bolt.new#1748)",
        r"prompt (?:is )?too long",
        "prompt is too long: 202128 tokens > 200000 maximum",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Anthropic, input and output together",
        r"exceed context limit",
        "input length and `max_tokens` exceed context limit: 184915 + 20000 > 204648, decrease input length",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Moonshot (MoonshotAI/MoonshotAI-Cookbook#18)",
        r"exceeded model token limit|model max length exceeded|input token length too long",
        "Invalid request: Your request exceeded model token limit: 131072 (requested: 140201)",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Gemini (google-gemini/gemini-cli#6678)",
        r"input token count.{0,60}exceeds",
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    ),
    by_pattern(
        Kind.CONTEXT,
        "Bedrock (aws-samples/bedrock-chat#95)",
        r"input is too long for requested model|too many input tokens|expected maxLength: \d+, actual: \d+",
        "Input is too long for requested model.",
    ),
    by_pattern(
        Kind.CONTEXT,
        "GitHub Copilot",
        r"prompt token count.{0,40}exceeds the limit",
        "prompt token count of 140201 exceeds the limit of 128000",
    ),
    by_pattern(
        Kind.CONTEXT, "MiniMax", r"context window exceeds limit", "invalid params, context window exceeds limit"
    ),
    by_pattern(
        Kind.CONTEXT,
        "DashScope",
        r"range of input length should be",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
    ),
    by_pattern(Kind.CONTEXT, "Zhipu", r"prompt exceeds max length", "Prompt exceeds max length"),
    by_pattern(
        Kind.CONTEXT,
        "watsonx",
        r"number of input tokens.{0,30}(?:cannot|must not) exceed",
        "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model",
    ),
    by_pattern(
        Kind.CONTEXT,
        "NVIDIA NIM, TensorRT-LLM, Perplexity, others",
        r"(?:prompt|input|sequence|token)s? (?:token )?(?:length|count|limit)\b.{0,40}\bexceed"
        r"|(?:prompt|input|conversation|request) (?:is |was )?too long\b"
        r"|exceeds? (?:the )?(?:maximum|max) (?:input|prompt)"
        r"|input tokens exceed",
        "Prompt length (9001) exceeds maximum input length (8192)",
    ),
    by_pattern(
        Kind.CONTEXT,
        "any server that mentions its context in a rejection",
        r"\bcontext[-_ ](?:length|size|window|limit)\b|\bcontext overflow\b",
        "Not enough space is left in the context window",
    ),
)
