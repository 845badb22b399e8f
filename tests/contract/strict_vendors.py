"""Servers that are as strict as the documents of each vendor: they refuse what the vendor refuses.

A rule has the source of its strictness beside it; everything else is answered in the vendor's own form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.contract import anthropic_api as anthropic
from tests.upstream import Answer, Events, Json, Received, chunk, completion, ending, stream

KEY = "key-of-the-operator"
ROLES = frozenset({"system", "user", "assistant", "tool"})
_COMMON = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "stop", "response_format"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
)


def answered(request: Received) -> Answer:
    """Answers in OpenAI's form."""
    return stream("Hel", "lo.") if request.json.get("stream") else Json(completion("Hello."))


@dataclass(frozen=True)
class Strict:
    """What one vendor demands."""

    path: str
    """Path of the request, from the root of the server."""
    source: str
    """Where the vendor, or a report about it, says so."""
    key: tuple[str, str] | None = ("authorization", f"Bearer {KEY}")
    """Header of the key; None for a server without keys."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters."""
    fields: frozenset[str] | None = None
    """All fields of a body; None if the vendor ignores others."""
    refused: frozenset[str] = frozenset()
    """Fields that it refuses."""
    roles: frozenset[str] = ROLES | {"developer"}
    """Roles of messages."""
    refused_of_messages: frozenset[str] = frozenset()
    """Fields of messages that it refuses."""
    required_of_calls: str | None = None
    """Field that every earlier tool call must have."""
    required_of_turns: str | None = None
    """Field that every earlier answer with a tool call must have."""
    answer: Callable[[Received], Answer] = answered
    """The answer."""


def _mistral(request: Received) -> Answer:
    """Answers with lists of parts, as Mistral's reasoning models do (docs.mistral.ai/capabilities/reasoning)."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    text = {"type": "text", "text": "Hello."}
    if request.json.get("stream"):
        return Events([chunk({"role": "assistant", "content": [thinking]}), chunk({"content": [text]}), *ending()])
    body = completion()
    body["choices"][0]["message"]["content"] = [thinking, text]
    return Json(body)


def _anthropic(request: Received) -> Answer:
    if request.json.get("stream"):
        return Events([*anthropic.begins(), anthropic.delta(text="Hello."), *anthropic.ends()])
    return Json(anthropic.message(anthropic.text_block("Hello.")))


_CHAT = "/v1/chat/completions"
_REASONING = frozenset({"reasoning_content"})
_BOTH = _REASONING | {"reasoning"}
STRICT: Mapping[str, Strict] = {
    "openai": Strict(
        _CHAT,
        "platform.openai.com/docs/guides/reasoning: max_tokens is not supported by reasoning models",
        refused=frozenset({"max_tokens"}),
        refused_of_messages=_BOTH,
    ),
    "azure": Strict(
        "/openai/deployments/target-1/chat/completions",
        "Azure/azure-rest-api-specs, AzureOpenAI/inference/stable/2024-10-21: max_tokens is not compatible with o1",
        refused=frozenset({"max_tokens"}),
        key=("api-key", KEY),
        query={"api-version": "2024-10-21"},
        refused_of_messages=_BOTH,
    ),
    "anthropic": Strict(
        "/v1/messages",
        "docs.anthropic.com/en/api/messages",
        key=("x-api-key", KEY),
        fields=frozenset(
            {"model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "stop_sequences", "tools"}
            | {"tool_choice", "metadata", "thinking", "service_tier"}
        ),
        roles=frozenset({"user", "assistant"}),
        refused_of_messages=frozenset({"name", "tool_calls", "reasoning_content"}),
        answer=_anthropic,
    ),
    "gemini": Strict(
        "/v1beta/openai/chat/completions",
        "Vali-98/ChatterUI#227; SuzumiyaAkizuki/ComfyUI-NewBie-LLM-Formatter#3; ai.google.dev, thought signatures",
        fields=_COMMON
        | {"max_tokens", "max_completion_tokens", "n", "logprobs", "top_logprobs"}
        | {"reasoning_effort", "extra_body"},
        roles=ROLES,
        refused_of_messages=_BOTH,
        required_of_calls="extra_content",
    ),
    "mistral": Strict(
        _CHAT,
        "mistralai/client-python, ChatCompletionRequest; mistralai/platform-docs-public#7: others are forbidden;"
        " nomtek/mistralai_client_dart#44; charmbracelet/crush#1590; anomalyco/models.dev#1986: reasoning_effort",
        fields=(_COMMON - {"stream_options"})
        | {
            "reasoning_effort",
            "max_tokens",
            "random_seed",
            "presence_penalty",
            "frequency_penalty",
            "n",
            "prediction",
            "safe_prompt",
        },
        roles=ROLES,
        refused_of_messages=_BOTH | {"name"},
        answer=_mistral,
    ),
    "groq": Strict(
        "/openai/v1/chat/completions",
        "console.groq.com/docs/openai, unsupported features; vercel/ai#8057",
        refused=frozenset({"logprobs", "logit_bias", "top_logprobs"}),
        refused_of_messages=_REASONING | {"name"},
    ),
    "cerebras": Strict(
        _CHAT,
        "inference-docs.cerebras.ai/resources/openai; QwenLM/qwen-code#11045",
        refused=frozenset({"frequency_penalty", "presence_penalty", "logit_bias"}),
        roles=ROLES,
        refused_of_messages=_REASONING,
    ),
    "deepseek": Strict(
        "/chat/completions",
        "api-docs.deepseek.com/api/create-chat-completion; api-docs.deepseek.com/guides/thinking_mode",
        refused=frozenset({"max_completion_tokens"}),
        roles=ROLES,
        required_of_turns="reasoning_content",
    ),
    "kimi": Strict(
        _CHAT,
        "platform.kimi.ai/docs/api/chat: max_tokens is deprecated; openclaw/openclaw#8579; charmbracelet/crush#2696",
        refused=frozenset({"max_tokens"}),
        roles=ROLES,
        required_of_turns="reasoning_content",
    ),
    "xai": Strict(
        _CHAT,
        "docs.x.ai/docs/api-reference; miaoxworld/NativeTavern#83: penalties of 0 are refused too",
        refused=frozenset({"logit_bias", "presence_penalty", "frequency_penalty"}),
    ),
    "openrouter": Strict("/api/v1/chat/completions", "openrouter.ai/docs/api-reference/chat-completion"),
    "together": Strict(_CHAT, "docs.together.ai/reference/chat-completions-1", roles=ROLES),
    "fireworks": Strict(
        "/inference/v1/chat/completions",
        "docs.fireworks.ai/api-reference/post-chatcompletions: max_completion_tokens is an alias",
        roles=ROLES,
    ),
    "vllm": Strict(_CHAT, "docs.vllm.ai/en/latest/serving/openai_compatible_server", key=None),
    "sglang": Strict(_CHAT, "docs.sglang.ai/basic_usage/openai_api_completions.html", key=None, roles=ROLES),
    "ollama": Strict(
        _CHAT,
        "docs.ollama.com/api/openai-compatibility, supported request fields",
        key=None,
        refused=frozenset({"logit_bias", "n", "tool_choice", "max_completion_tokens"}),
        roles=ROLES,
    ),
    "llama_cpp": Strict(_CHAT, "github.com/ggml-org/llama.cpp, tools/server/README.md", key=None, roles=ROLES),
    "lmstudio": Strict(
        _CHAT,
        "lmstudio-ai/docs, 3_openai-compat/chat-completions.md, supported payload parameters",
        key=None,
        refused=frozenset({"max_completion_tokens", "n", "logprobs", "top_logprobs"}),
        roles=ROLES,
    ),
    "tgi": Strict(
        _CHAT,
        "huggingface.co/docs/text-generation-inference/messages_api; huggingface/text-generation-inference#2925",
        key=None,
        refused=frozenset({"n", "max_completion_tokens"}),
        roles=ROLES,
    ),
    "bedrock": Strict(_CHAT, "docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions-mantle.html"),
}


def serve(rules: Strict, request: Received) -> Answer:
    """Answers a request, or refuses it as the vendor would."""
    parts = urlsplit(request.path)
    if parts.path != rules.path:
        return _refuse(404, f"no resource {parts.path}")
    if dict(parse_qsl(parts.query)) != dict(rules.query):
        return _refuse(404, "Resource not found: api-version")
    if rules.key is not None and request.headers.get(rules.key[0]) != rules.key[1]:
        return _refuse(401, "no key")
    if any(name in request.headers for name in {"authorization", "api-key", "x-api-key"} - {(rules.key or ("",))[0]}):
        return _refuse(400, "a second key")
    problem = _problem(rules, request.json)
    return _refuse(422, problem) if problem else rules.answer(request)


def _problem(rules: Strict, body: dict[str, Any]) -> str | None:
    unknown = body.keys() - rules.fields if rules.fields is not None else set()
    for name in sorted(unknown | (body.keys() & rules.refused)):
        return f'Unknown name "{name}": extra inputs are not permitted'
    for message in body["messages"]:
        if message["role"] not in rules.roles:
            return f"unknown role {message['role']}"
        for name in sorted(message.keys() & rules.refused_of_messages):
            return f"messages: '{name}' is not supported: extra inputs are not permitted"
        if rules.required_of_turns and message.get("tool_calls") and not message.get(rules.required_of_turns):
            return f"messages: `{rules.required_of_turns}` is missing"
        for call in message.get("tool_calls", ()) if rules.required_of_calls else ():
            if not call.get(rules.required_of_calls):
                return "Function call is missing a thought_signature in functionCall parts"
    return None


def _refuse(status: int, message: str) -> Json:
    return Json({"error": {"message": message, "type": "invalid_request_error"}}, status)
