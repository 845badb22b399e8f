"""Known error bodies: faults of the operator's configuration or of the provider."""

from parley.backends.errors.kinds import Kind
from parley.backends.errors.known_bodies.rows import ANY, Row, by_code, by_pattern

ROWS: tuple[Row, ...] = (
    by_code(Kind.LOOP, "Parley", "loop_detected", ANY),
    by_pattern(
        Kind.LOOP,
        "Parley, in a dialect whose errors have no code",
        r"\bhas passed through \d+ Parleys\b",
        "The request has passed through 8 Parleys: their backends lead to one another",
        ANY,
    ),
    by_code(
        Kind.MISCONFIGURED,
        "OpenAI, Azure OpenAI, xAI, Moonshot, DashScope: the key",
        "invalid_api_key incorrect_api_key api_key_invalid api_key_expired invalidapikey invalid_authentication_error"
        " authentication_error authenticationerror authentication unauthorized unauthenticated"
        " unrecognizedclientexception"
        " account_deactivated organization_restricted access_terminated access_terminated_error",
        ANY,
    ),
    by_code(
        Kind.MISCONFIGURED,
        "Google ErrorInfo.reason, Bedrock, OpenRouter: permission",
        "service_disabled api_key_service_blocked permission_denied permission_error permissiondeniederror"
        " accessdeniedexception access_denied consumer_invalid billing_disabled",
    ),
    by_code(
        Kind.MISCONFIGURED,
        "OpenAI, Azure OpenAI, Groq, Together, Fireworks: the model or the deployment",
        "model_not_found model_not_available model_not_active model_decommissioned model_deprecated model_retired"
        " deploymentnotfound deployment_not_found unsupported_model model_not_supported invalid_model unknown_model"
        " model_terms_required operationnotsupported unsupported_api_for_model engine_not_found not_found_error"
        " notfounderror not_found resourcenotfoundexception",
    ),
    by_code(
        Kind.MISCONFIGURED,
        "OpenAI: the region",
        "unsupported_country_region_territory unsupported_region",
    ),
    by_code(
        Kind.UNRECOGNIZED,
        "Groq: the model's own output was unusable (groq/groq-typescript#103, vercel/ai#6916)",
        "tool_use_failed json_validate_failed output_parse_failed model_error modelerrorexception",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "xAI 400 (continuedev/continue#10778), OpenAI, Gemini, Mistral",
        r"(?:incorrect|invalid|missing|no|expired|unknown|wrong) (?:\w+ )?api[-_ ]?key"
        r"|api[-_ ]?key\b.{0,60}\b"
        r"(?:not valid|invalid|expired|not found|disabled|revoked|leaked|required|missing|blocked)",
        "Incorrect API key provided: xa***in. You can obtain an API key from https://console.x.ai.",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "OpenAI, Groq, Together, Anthropic: a model that does not exist, or no longer exists",
        r"\b(?:model|engine|deployment)\b.{0,160}?\b(?:do(?:es)? not exist|not found|not exist\b|is not available"
        r"|is not supported\b(?! (?:with|for|by|in) (?:this|the) (?:param|request|image|tool))|unavailable"
        r"|decommissioned|deprecated|retired|discontinued|shut ?down|end of (?:its )?life"
        r"|no longer (?:supported|available|served))",
        "The model `llama-3.1-70b-versatile` has been decommissioned and is no longer supported.",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "OpenRouter 400 and 404, Bedrock 400",
        r"not a valid model|unknown model|invalid model\b|model identifier is invalid|no endpoints found"
        r"|no allowed providers|on-demand throughput isn.t supported"
        r"|(?:unable to|could not|couldn.t) (?:find|load) model",
        "meta-llama/llama-2-13b is not a valid model ID",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "Gemini FAILED_PRECONDITION, OpenAI 403",
        r"location is not supported|country, region,? or territory not supported"
        r"|(?:not (?:available|supported)|unavailable) in (?:your|this) (?:country|region|location)"
        r"|unsupported (?:country|region)",
        "User location is not supported for the API use.",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "OpenAI, Groq, Mistral, Fireworks: the account",
        r"organi[sz]ation (?:must be|is not|has been) (?:verified|restricted|disabled|active)"
        r"|(?:account|organi[sz]ation|project|workspace|subscription)\b.{0,40}\b"
        r"(?:suspended|deactivated|disabled|restricted|terminated|inactive|not active|expired)"
        r"|requires? (?:terms acceptance|accepting the terms)"
        r"|only available (?:on|to|for|with) .{0,40}\b(?:plan|tier|customers)",
        "Your organization must be verified to stream this model.",
    ),
    by_pattern(
        Kind.MISCONFIGURED,
        "Azure OpenAI",
        r"operation does not work with the specified model|api[- ]version\b.{0,40}\b(?:not supported|invalid|required)"
        r"|resource not found|unsupported api version",
        "The chatCompletion operation does not work with the specified model, text-embedding-3-small.",
    ),
    by_pattern(
        Kind.UNRECOGNIZED,
        "Groq",
        r"failed to call a function|tool call validation failed|tool (?:call )?generation failed"
        r"|failed to generate json"
        r"|failed_generation|(?:model|tool call) output (?:could not|cannot) be parsed",
        "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.",
    ),
    by_pattern(
        Kind.UNRECOGNIZED,
        "OpenRouter",
        r"\A(?:provider returned error\s*)+\Z|no healthy (?:upstream|endpoints?)",
        "Provider returned error",
    ),
)
