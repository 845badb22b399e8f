"""The lengths of well-known models of vendors whose own lists do not have them.

Only lengths: a request that is longer than a model takes goes to a fallback that it fits, and without one it is tried.
So a number that is no longer right fails no call.
"""

import re
from collections.abc import Mapping

from parley.config.metadata import Metadata

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}")
_GPT_4O = Metadata(context_length=128_000, max_output=16_384)
_GPT_4_1 = Metadata(context_length=1_047_576, max_output=32_768)
_GPT_5 = Metadata(context_length=400_000, max_output=128_000)
_GEMINI_2_5 = Metadata(context_length=1_048_576, max_output=65_536)

# Sources: platform.openai.com/docs/models (repeated by vercel.com/ai-gateway/models and docs.uipath.com/autopilot);
# ai.google.dev/gemini-api/docs/models.
_MODELS: Mapping[str, Mapping[str, Metadata]] = {
    "openai": {
        "gpt-4o": _GPT_4O,
        "gpt-4o-mini": _GPT_4O,
        "gpt-4.1": _GPT_4_1,
        "gpt-4.1-mini": _GPT_4_1,
        "gpt-4.1-nano": _GPT_4_1,
        "gpt-5": _GPT_5,
        "gpt-5-mini": _GPT_5,
        "gpt-5-nano": _GPT_5,
    },
    "gemini": {
        "gemini-2.0-flash": Metadata(context_length=1_048_576, max_output=8_192),
        "gemini-2.5-flash": _GEMINI_2_5,
        "gemini-2.5-pro": _GEMINI_2_5,
    },
}
UNKNOWN = Metadata()


def vendor_metadata(vendor: str | None, model: str) -> Metadata:
    """Returns what is known of a vendor's model. A date at the end of its name is that of a version."""
    if vendor is None or vendor not in _MODELS:
        return UNKNOWN
    return _MODELS[vendor].get(_DATE.sub("", model), UNKNOWN)
