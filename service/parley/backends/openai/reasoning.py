"""Sends the reasoning of earlier turns in the form that a server accepts.

Parley's field is `reasoning_content`. Some servers require the reasoning of earlier turns, some reject it, and some
accept it under another name only. The table of vendors has what is documented or reported for each host; the
configuration overrides it. For other servers Parley learns the field name from responses, and rejected or required
fields from error messages; the call is then retried once with a corrected body.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from parley.backends.openai.learned_fields import Learned, LearnedFields
from parley.backends.openai.reasoning_details import DETAILS
from parley.config import ReasoningRule, vendor_of
from parley.core.messages.extra_fields import dump_bytes, loads

Field = Literal["reasoning_content", "reasoning"]
History = Literal["send", "require", "omit"]
Message = dict[str, Any]

_FRAGMENTED = {"reasoning.text": "text", "reasoning.summary": "summary"}
_TEXTS: tuple[Field, ...] = ("reasoning_content", "reasoning")
_DETAILS = frozenset({DETAILS, "reasoning_opaque", "reasoning_text", "thinking_blocks"})
_FAMILY = _DETAILS | {*_TEXTS}
# Response fields that a strict server may reject in a request. Fields that only callers set are not among them.
_RESPONSE_FIELDS = _FAMILY | {"refusal", "annotations", "citations", "executed_tools", "images", "search_results"}
_PLACEHOLDER = (
    " "  # DeepSeek and Kimi also reject an empty text (NousResearch/hermes-agent#17341, charmbracelet/crush#2696)
)

REJECTION = re.compile(
    r"unsupported|not supported|not permitted|not allowed|not accepted|unknown|unexpected|unrecognized|invalid"
    r"|forbid|additional propert|cannot find field|extra (?:inputs|fields)",
    re.IGNORECASE,
)
"""Matches the error message of a server that rejects a field."""
_NULL = re.compile(r"\bcontent\b.{0,80}(?:null|none|string|required|missing|empty)", re.IGNORECASE)
_REQUIREMENT = re.compile(
    r"must be (?:passed|provided|present|included)|missing|is required|field required", re.IGNORECASE
)


ANY = ReasoningRule()


def rule_for(base_url: str) -> ReasoningRule:
    """Returns the known rule for the host of a URL, or `ANY`."""
    vendor = vendor_of(base_url)
    return vendor.reasoning if vendor is not None else ANY


class ReasoningHistory:
    """Converts the reasoning of earlier turns to the form that one backend accepts."""

    def __init__(self, rule: ReasoningRule, learned: LearnedFields) -> None:
        self._rule = rule
        self._learned = learned

    def write(self, messages: Sequence[Message], model: str) -> None:
        """Rewrites the assistant messages of a body in place; `model` is the upstream's model name."""
        assistant_messages = [message for message in messages if message.get("role") == "assistant"]
        if not assistant_messages or not any(
            not _RESPONSE_FIELDS.isdisjoint(message) or "tool_calls" in message for message in assistant_messages
        ):
            return
        known = self._learned.get(model)
        rule = self._known_rule(known)
        for message in assistant_messages:
            _rename(message, rule)
            if DETAILS in message:
                if rule.field is None and known.field == DETAILS:
                    _remove(message, _TEXTS)
                message[DETAILS] = _merge_fragments(message[DETAILS])
            _remove(message, known.rejected)
        if rule.history == "require":
            _add_placeholders(messages[:-1], rule.field or "reasoning_content")  # excludes a prefilled answer

    def record_field(self, model: str, field: str) -> None:
        """Records the field name that a response uses for reasoning."""
        if self._rule.field is None and self._learned.get(model).field != field:
            self._learned.update(model, lambda known: replace(known, field=field))

    def learn(self, messages: Iterable[Message], model: str, error_text: str) -> bool:
        """Learns from a rejected request.

        Args:
            messages: The messages of the rejected request.
            model: The upstream's model name.
            error_text: The upstream's error message.

        Returns:
            Whether something new was learned, so that the next body differs.
        """
        named = {name for name in _RESPONSE_FIELDS if re.search(rf"\b{name}\b", error_text)}
        known = self._learned.get(model)
        if not known.required and named & {*_TEXTS} and _REQUIREMENT.search(error_text):
            self._learned.update(model, lambda old: replace(old, required=True))
            return True
        assistant_messages = [message for message in messages if message.get("role") == "assistant"]
        sent = {name for message in assistant_messages for name in message}
        rejected = named & sent if REJECTION.search(error_text) else set()
        if any(
            message.get("content") is None and message.get("refusal") for message in assistant_messages
        ) and _NULL.search(error_text):
            rejected.add("refusal")
        rejected -= known.rejected
        if rejected:
            self._learned.update(model, lambda old: replace(old, rejected=old.rejected | rejected))
        return bool(rejected)

    def _known_rule(self, known: Learned) -> ReasoningRule:
        field = self._rule.field or next((name for name in _TEXTS if name == known.field), None)
        history: History = "require" if known.required and self._rule.history == "send" else self._rule.history
        return replace(self._rule, field=field, history=history)


def _merge_fragments(details: Any) -> Any:
    """Merges the fragments in which OpenRouter streams each detail; vendors accept complete details only."""
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
    """Returns whether a detail is the next fragment of the previous one."""
    same = all(item.get(name) == previous.get(name) for name in ("type", "index"))
    return same and item.get("index") is not None and item.get("type") in _FRAGMENTED


def _append(previous: dict[str, Any], item: dict[str, Any]) -> None:
    field = _FRAGMENTED[item["type"]]
    text = f"{previous.get(field) or ''}{item.get(field) or ''}"
    previous |= {name: value for name, value in item.items() if value is not None} | {field: text}


def _rename(message: Message, rule: ReasoningRule) -> None:
    """Removes the fields that the rule excludes, and renames the text field."""
    if rule.history == "omit":
        _remove(message, _FAMILY)
        return
    if rule.details is not None:
        _remove(message, _DETAILS - rule.details)
    if rule.field is not None:
        other = _TEXTS[rule.field == _TEXTS[0]]
        if other in message:
            message.setdefault(rule.field, message.pop(other))
            message.pop(other, None)


def _remove(message: Message, names: Iterable[str]) -> None:
    for name in names:
        value = message.pop(name, None)
        if name == "refusal" and value and not message.get("content"):
            message["content"] = value


def _add_placeholders(messages: Iterable[Message], field: Field) -> None:
    for message in messages:
        if message.get("role") == "assistant":
            message[field] = message.get(field) or _PLACEHOLDER
