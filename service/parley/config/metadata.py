"""What is known of a model: `/v1/models` shows it, and routing uses it."""

from dataclasses import fields, replace
from typing import Annotated, Literal

from parley.config.markers import Constraints
from parley.config.types import Count, Strict

Modality = Literal["text", "image", "audio", "file", "video"]
_MAX_TOKENS = 2**32 - 1  # `/v1/models` has 32 bits for it


class Price(Strict):
    """Prices of a million tokens. All prices have the same currency.

    Example:
        prices:
          openai/gpt-5-mini: {prompt: 0.25, cached_prompt: 0.025, completion: 2}
    """

    prompt: Annotated[float, Constraints(ge=0, allow_inf_nan=False)]
    """Price of a million prompt tokens."""
    completion: Annotated[float, Constraints(ge=0, allow_inf_nan=False)]
    """Price of a million completion tokens."""
    cached_prompt: Annotated[float | None, Constraints(ge=0, allow_inf_nan=False)] = None
    """Price of a million prompt tokens that the backend had cached. Default: `prompt`."""


class Metadata(Strict):
    """What a model can do. All fields are optional; what is not known is not shown, and limits nothing.

    Example:
        models:
          - id: support
            targets: [{backend: openai, model: gpt-5-mini}]
            metadata: {context_length: 131072, max_output: 16384, modalities: [text, image], tools: true}
    """

    name: str | None = None
    """Name for people."""
    description: str | None = None
    """What the model is good for."""
    owner: str | None = None
    """Maker of the model: `owned_by` of `/v1/models`. Default: the name of the first target's backend."""
    context_length: Annotated[Count | None, Constraints(ge=1, le=_MAX_TOKENS)] = None
    """Tokens of prompt and answer together. A request that is longer by estimate goes to a fallback that it fits, if
    there is one, without being tried here first."""
    max_output: Annotated[Count | None, Constraints(ge=1, le=_MAX_TOKENS)] = None
    """Largest number of tokens of an answer."""
    modalities: list[Modality] | None = None
    """What a prompt may contain: `text`, `image`, `audio`, `file`, `video`. A request with other parts goes to a
    fallback that it fits, or is rejected."""
    output_modalities: list[Modality] | None = None
    """What an answer may contain."""
    tools: bool | None = None
    """Whether the model can call tools. If not, a request with tools goes to a fallback that it fits, or is
    rejected."""
    reasoning: bool | None = None
    """Whether the model reasons before it answers."""
    price: Price | None = None
    """Prices that are shown if `prices` has none of the target. Receipts do not use them."""


def merged_metadata(configured: Metadata, listed: Metadata) -> Metadata:
    """Returns the configured metadata, with those of a backend's own list for what is not configured."""
    known = {field.name: getattr(configured, field.name) for field in fields(Metadata)}
    return replace(listed, **{name: value for name, value in known.items() if value is not None})
