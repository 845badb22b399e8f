"""Reads the list of models of a server with OpenAI's or Anthropic's API, and what it says about each model.

Every vendor has its own fields. What is missing, or of the wrong type, is not known.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from math import inf
from typing import Any, get_args

import orjson

from parley.config.metadata import Metadata, Modality, Price

_MAX_MODELS = 2000  # a list of these, with descriptions, fits an answer
_MAX_TEXT = 256
_MAX_COUNT = 2**32 - 1
_MAX_DIGITS = 10
_MODALITIES: Mapping[str, Modality] = {one: one for one in get_args(Modality)}

# Paths of fields, the first one that is known counts. Sources: openrouter.ai/docs/api-reference/list-available-models;
# console.groq.com/docs/models (`context_window`); docs.mistral.ai/api (`max_context_length`, `capabilities`);
# docs.together.ai/reference/models (`context_length`, `organization`); docs.fireworks.ai (`supports_tools`); vLLM's
# entrypoints/openai/protocol.py (`max_model_len`); llama.cpp's tools/server/README.md (`meta.n_ctx_train`);
# docs.anthropic.com/en/api/models-list (`display_name`, `max_input_tokens`).
_CONTEXT = (
    "top_provider.context_length",
    "context_length",
    "context_window",
    "max_context_length",
    "max_model_len",
    "max_input_tokens",
    "meta.n_ctx",
    "meta.n_ctx_train",
)
_MAX_OUTPUT = ("top_provider.max_completion_tokens", "max_completion_tokens", "max_output_tokens")
_TOOLS = ("supports_tools", "capabilities.function_calling")
_REASONING = ("capabilities.reasoning",)
# OpenRouter has texts, of one token; Together has numbers, of a million.
_PRICES = (
    (("pricing.prompt", "pricing.completion", "pricing.input_cache_read"), 1e6),
    (("pricing.input", "pricing.output", "pricing.cached_input"), 1.0),
)
_IMAGES = ("supports_image_input", "capabilities.vision")


def parse(data: bytes, prefix: str = "") -> dict[str, Metadata]:
    """Returns what a server says about each of its models, by its id.

    Args:
        data: The answer.
        prefix: The beginning of ids that requests do not have.

    Raises:
        ValueError: The body is no list.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    models = body.get("data", body.get("models")) if isinstance(body, dict) else body
    if models is None and isinstance(body, dict) and body.get("object") == "list":
        models = []  # Ollama without models
    if not isinstance(models, list):
        raise ValueError("the answer has no list of models")  # noqa: TRY004 - as for any other wrong answer
    found = (model for model in models if isinstance(model, dict) and _text(model.get("id")))
    return {model["id"].removeprefix(prefix): _metadata(model) for model in islice(found, _MAX_MODELS)}


def _metadata(model: Mapping[str, Any]) -> Metadata:
    return Metadata(
        name=_text(model.get("name")) or _text(model.get("display_name")),
        description=_text(model.get("description"), 512),
        owner=_text(model.get("owned_by")) or _text(model.get("organization")),
        context_length=_count(model, _CONTEXT),
        max_output=_count(model, _MAX_OUTPUT),
        modalities=_modalities(model, "architecture.input_modalities") or _image_modalities(model),
        output_modalities=_modalities(model, "architecture.output_modalities"),
        tools=_supported("tools", model, _TOOLS),
        reasoning=_supported("reasoning", model, _REASONING),
        price=_price(model),
    )


def _price(model: Mapping[str, Any]) -> Price | None:
    """Returns the prices of a million tokens; None if the prompt or the answer has none."""
    for names, factor in _PRICES:
        prompt, completion, cached = (_amount(value, factor) for value in _values(model, names))
        if prompt is not None and completion is not None:
            return Price(prompt=prompt, completion=completion, cached_prompt=cached)
    return None


def _amount(value: Any, factor: float) -> float | None:
    """Returns a price; None for what is no number, or negative: OpenRouter's sign for a price that varies."""
    if isinstance(value, bool):
        return None
    try:
        amount = round(float(value) * factor, 6)
    except (TypeError, ValueError):
        return None
    return amount if 0 <= amount < inf else None


def _values(model: Mapping[str, Any], paths: Iterable[str]) -> Iterable[Any]:
    for path in paths:
        value: Any = model
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        yield value


def _count(model: Mapping[str, Any], paths: Iterable[str]) -> int | None:
    counts = map(_whole, _values(model, paths))
    return next((value for value in counts if value is not None and 0 < value <= _MAX_COUNT), None)


def _whole(value: Any) -> int | None:
    """Returns a whole number, which some servers send as text or with a fraction of zero; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(model: Mapping[str, Any], paths: Iterable[str]) -> bool | None:
    return next((value for value in _values(model, paths) if isinstance(value, bool)), None)


def _supported(name: str, model: Mapping[str, Any], paths: Iterable[str]) -> bool | None:
    """Returns whether a model supports a parameter, by its list of parameters or by flags; None if that is not known.

    A list that is complete, as OpenRouter's, has the most usual parameters too; Parley's own has not.
    """
    listed = model.get("supported_parameters")
    if isinstance(listed, list) and any(one in listed for one in (name, "max_tokens", "temperature")):
        return name in listed
    return _flag(model, paths)


def _text(value: Any, size: int = _MAX_TEXT) -> str | None:
    """Returns text that is not empty, cut, and in one line of printable characters; None for anything else."""
    if not isinstance(value, str):
        return None
    return "".join(one for one in value[:size] if one.isprintable()) or None


def _modalities(model: Mapping[str, Any], path: str) -> list[Modality] | None:
    """Returns the known modalities of a list; None if it has none."""
    (listed,) = _values(model, (path,))
    texts = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    return [_MODALITIES[one] for one in texts if one in _MODALITIES] or None


def _image_modalities(model: Mapping[str, Any]) -> list[Modality] | None:
    images = _flag(model, _IMAGES)
    if images is None:
        return None
    return ["text", "image"] if images else ["text"]
