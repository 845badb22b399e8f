"""Reasoning of earlier turns: the name that a server has for it, and whether the server takes it back.

Parley's own name is `reasoning_content`. Servers differ: some demand the reasoning of earlier turns, some refuse it,
some take it under another name only. The table below says what is documented or reported of a host; the configuration
overrides it. Of any other server Parley learns it: the name from its answers, and what it refuses or demands from its
errors, after which the same call is sent once more without the field, or with it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from parley.backends.openai.learned_fields import Learned, LearnedFields
from parley.backends.openai.reasoning_details import DETAILS
from parley.core.messages.extra_fields import dump_bytes, loads

Field = Literal["reasoning_content", "reasoning"]
History = Literal["send", "require", "omit"]
Message = dict[str, Any]

_IN_PIECES = {"reasoning.text": "text", "reasoning.summary": "summary"}
_TEXTS: tuple[Field, ...] = ("reasoning_content", "reasoning")
_DETAILS = frozenset({DETAILS, "reasoning_opaque", "reasoning_text", "thinking_blocks"})
_FAMILY = _DETAILS | {*_TEXTS}
# Fields of answers that a strict server may refuse in a request. A caller's own fields are not among them.
_OF_ANSWERS = _FAMILY | {"refusal", "annotations", "citations", "executed_tools", "images", "search_results"}
_PLACEHOLDER = (
    " "  # DeepSeek and Kimi refuse an empty text, too (NousResearch/hermes-agent#17341, charmbracelet/crush#2696)
)

REFUSES = re.compile(
    r"unsupported|not supported|not permitted|not allowed|not accepted|unknown|unexpected|unrecognized|invalid"
    r"|forbid|additional propert|cannot find field|extra (?:inputs|fields)",
    re.IGNORECASE,
)
"""The words of a server that does not take a field."""
_NULL = re.compile(r"\bcontent\b.{0,80}(?:null|none|string|required|missing|empty)", re.IGNORECASE)
_REQUIREMENT = re.compile(
    r"must be (?:passed|provided|present|included)|missing|is required|field required", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a server takes: the name of the text (None: as its answers have it), whether, and which other fields.

    `require` adds a placeholder to messages that have no reasoning. `details` are the other fields that may carry
    reasoning; None is any.
    """

    field: Field | None = None
    history: History = "send"
    details: frozenset[str] | None = None


_NONE: frozenset[str] = frozenset()
_OMIT = Rule(history="omit")
_DEMANDED = Rule("reasoning_content", "require", _NONE)

# Each host with all of its subdomains, what it takes, and who says so.
_HOSTS: tuple[tuple[str, Rule, str], ...] = (
    ("api.deepseek.com", _DEMANDED, "api-docs.deepseek.com/guides/thinking_mode; openclaw/openclaw#73417"),
    ("api.moonshot.ai", _DEMANDED, "charmbracelet/crush#2696; HKUDS/nanobot#946"),
    ("api.moonshot.cn", _DEMANDED, "charmbracelet/crush#2696"),
    ("api.kimi.com", _DEMANDED, "charmbracelet/crush#2696"),
    ("api.groq.com", Rule("reasoning", details=_NONE), "console.groq.com/docs/reasoning; vercel/ai#8057"),
    ("api.cerebras.ai", Rule("reasoning", details=_NONE), "QwenLM/qwen-code#11045; proxysoul/Empryo#209"),
    (
        "openrouter.ai",
        Rule("reasoning", details=frozenset({"reasoning_details"})),
        "openrouter.ai/docs, reasoning tokens",
    ),
    ("api.fireworks.ai", Rule("reasoning_content", details=_NONE), "BerriAI/litellm#39962"),
    ("api.mistral.ai", _OMIT, "BerriAI/litellm#30835; co-l/openfox#220"),
    ("generativelanguage.googleapis.com", _OMIT, "ai.google.dev/gemini-api/docs/openai: unknown names are refused"),
    ("api.openai.com", _OMIT, "platform.openai.com/docs/api-reference/chat: no such field"),
    ("openai.azure.com", _OMIT, "as OpenAI"),
    ("services.ai.azure.com", _OMIT, "as OpenAI"),
)
ANY = Rule()


def rule_for(base_url: str) -> Rule:
    """Returns what is known of the server at this URL."""
    host = urlsplit(base_url).hostname or ""
    return next((rule for name, rule, _ in _HOSTS if f".{host}".endswith(f".{name}")), ANY)


class ReasoningHistory:
    """Writes the reasoning of earlier turns as one backend takes it."""

    def __init__(self, rule: Rule, learned: LearnedFields) -> None:
        self._rule = rule
        self._learned = learned

    def write(self, messages: Sequence[Message], model: str) -> None:
        """Changes the assistant messages of a body for `model`, the target's own name."""
        assistant_messages = [message for message in messages if message.get("role") == "assistant"]
        if not any(not _OF_ANSWERS.isdisjoint(message) or "tool_calls" in message for message in assistant_messages):
            return
        known = self._learned.of(model)
        rule = self._known_rule(known)
        for message in assistant_messages:
            _rename(message, rule)
            if DETAILS in message:
                if rule.field is None and known.field == DETAILS:
                    _leave_out(message, _TEXTS)
                message[DETAILS] = _merge_fragments(message[DETAILS])
            _leave_out(message, known.refused)
        if rule.history == "require":
            _fill_in(messages[:-1], rule.field or "reasoning_content")  # the last may be the beginning of the answer

    def record_field(self, model: str, field: str) -> None:
        """Learns the name of reasoning from an answer."""
        if self._rule.field is None and self._learned.of(model).field != field:
            self._learned.change(model, lambda known: replace(known, field=field))

    def learn(self, messages: Iterable[Message], model: str, error_text: str) -> bool:
        """Learns from a refusal in these words; False where it is about something else, or says nothing new.

        `messages` are those that were refused.
        """
        named = {name for name in _OF_ANSWERS if re.search(rf"\b{name}\b", error_text)}
        known = self._learned.of(model)
        if not known.required and named & {*_TEXTS} and _REQUIREMENT.search(error_text):
            self._learned.change(model, lambda old: replace(old, required=True))
            return True
        assistant_messages = [message for message in messages if message.get("role") == "assistant"]
        sent = {name for message in assistant_messages for name in message}
        refused = named & sent if REFUSES.search(error_text) else set()
        if any(
            message.get("content") is None and message.get("refusal") for message in assistant_messages
        ) and _NULL.search(error_text):
            refused.add("refusal")
        refused -= known.refused
        if refused:
            self._learned.change(model, lambda old: replace(old, refused=old.refused | refused))
        return bool(refused)

    def _known_rule(self, known: Learned) -> Rule:
        field = self._rule.field or next((name for name in _TEXTS if name == known.field), None)
        history: History = "require" if known.required and self._rule.history == "send" else self._rule.history
        return replace(self._rule, field=field, history=history)


def _merge_fragments(details: Any) -> Any:
    """Puts the pieces together in which OpenRouter streams each of its details: vendors take back whole ones only."""
    items = loads(dump_bytes(details))
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return details
    merged: list[dict[str, Any]] = []
    for item in items:
        if merged and _continues_detail(merged[-1], item):
            _append(merged[-1], item)
        else:
            merged.append(item)
    return details if len(merged) == len(items) else merged


def _continues_detail(previous: dict[str, Any], item: dict[str, Any]) -> bool:
    """Tells whether a detail is the next piece of the one before."""
    same = all(item.get(name) == previous.get(name) for name in ("type", "index"))
    return same and item.get("index") is not None and item.get("type") in _IN_PIECES


def _append(previous: dict[str, Any], item: dict[str, Any]) -> None:
    field = _IN_PIECES[item["type"]]
    text = f"{previous.get(field) or ''}{item.get(field) or ''}"
    previous |= {name: value for name, value in item.items() if value is not None} | {field: text}


def _rename(message: Message, rule: Rule) -> None:
    """Leaves out what the rule does not have, and gives the text its name."""
    if rule.history == "omit":
        _leave_out(message, _FAMILY)
        return
    if rule.details is not None:
        _leave_out(message, _DETAILS - rule.details)
    if rule.field is not None:
        other = _TEXTS[rule.field == _TEXTS[0]]
        if other in message:
            message.setdefault(rule.field, message.pop(other))
            message.pop(other, None)


def _leave_out(message: Message, names: Iterable[str]) -> None:
    for name in names:
        value = message.pop(name, None)
        if name == "refusal" and value and not message.get("content"):
            message["content"] = value


def _fill_in(messages: Iterable[Message], field: Field) -> None:
    for message in messages:
        if message.get("role") == "assistant":
            message[field] = message.get(field) or _PLACEHOLDER
