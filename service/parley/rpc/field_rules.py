"""Ranges, lengths and permitted values of fields: enforced by the service, written into the API document and Lua.

A field is named as in the protos: `Message.field`. `make gen` fails if a comment of the protos shows another
range or other values.
"""

from typing import NamedTuple

from parley.core.messages.roles import ROLES

Range = tuple[int, int]


class LabelLimits(NamedTuple):
    """The limits of a map of labels.

    Attributes:
        size: The most labels.
        key_length: The most characters of a key.
        value_length: The most characters of a value.
    """

    size: int
    key_length: int
    value_length: int


_CHAT = "CreateChatCompletionRequest"

CHAT_RANGES: dict[str, Range] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "n": (1, 128),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}
"""The inclusive ranges of a completion's fields, in the order in which they are checked."""
LOGIT_BIAS: Range = (-100, 100)
"""The inclusive range of each value of `logit_bias`."""
_BYTE: Range = (0, 255)

RANGES: dict[str, Range] = {f"{_CHAT}.{name}": bounds for name, bounds in CHAT_RANGES.items()} | {
    f"{_CHAT}.logit_bias": LOGIT_BIAS,
    "TokenLogprob.bytes": _BYTE,
    "TopLogprob.bytes": _BYTE,
}
"""The inclusive range of a field, or of each of its values."""

DIALECT_RANGES: dict[str, dict[str, Range]] = {"upchatty": {"temperature": (0, 1)}}
"""The narrower ranges of a completion's fields in one dialect, which the edge enforces."""

TOOL_CHOICES = ("none", "auto", "required")
FUNCTION_CALLS = ("none", "auto")

VALUES: dict[str, tuple[str, ...]] = {"Message.role": ROLES}
"""The closed lists of values."""

MAX_ENTRIES = 2048
"""The most entries of an array or a map. OpenAI accepts 300 in `logit_bias`; a whole vocabulary takes a worker long."""
ENTRIES = ("logit_bias", "tools", "functions", "modalities", "stop_sequences")
"""The fields of a completion that `MAX_ENTRIES` bounds, besides `stop`. The size of a request bounds `messages`."""
ENTRY_FIELDS = tuple(f"{_CHAT}.{name}" for name in ENTRIES)

LABELS = LabelLimits(size=16, key_length=64, value_length=512)
LABEL_FIELDS = (f"{_CHAT}.metadata",)

MAX_NAME_LENGTH = 256
NAME_FIELDS = ("FunctionDefinition.name", "JsonSchema.name")
"""The names that are sent to a backend: characters without spaces."""
