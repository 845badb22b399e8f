"""Translates what LiteLLM's `model_info` says about a model, and the parameters that a deployment drops."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parley.cli.litellm.source import Remarks, entries, number
from parley.config.source import FieldPath

_LENGTHS = (
    ("context_length", ("max_input_tokens",)),
    ("max_output", ("max_output_tokens", "max_tokens")),
)
_MODALITIES = {
    "supports_vision": "image",
    "supports_audio_input": "audio",
    "supports_pdf_input": "file",
    "supports_video_input": "video",
}
_ABILITIES = {"supports_function_calling": "tools", "supports_reasoning": "reasoning"}
KNOWN = frozenset({name for _, names in _LENGTHS for name in names} | _MODALITIES.keys() | _ABILITIES.keys())
"""Members of `model_info` that become `metadata`."""
_MAX_LENGTH = 1 << 31
_NAME = re.compile(r"[a-z][a-z_]*")
_KEPT = frozenset({"model", "messages", "stream", "n"})


def metadata(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the `metadata` of a model from the `model_info` of its deployments.

    The lengths are the smallest ones, the abilities those that any deployment has. What LiteLLM denies is left open,
    because Parley would reject such requests.
    """
    found: dict[str, Any] = {}
    for ours, names in _LENGTHS:
        lengths = [next(filter(None, map(number, map(info.get, names))), None) for info in infos]
        if known := [int(one) for one in lengths if one and one < _MAX_LENGTH]:
            found[ours] = min(known)
    if modalities := [ours for name, ours in _MODALITIES.items() if _claims(infos, name)]:
        found["modalities"] = ["text", *modalities]
    return found | {ours: True for name, ours in _ABILITIES.items() if _claims(infos, name)}


def _claims(infos: Iterable[Mapping[str, Any]], name: str) -> bool:
    return any(info.get(name) is True for info in infos)


def dropped(params: Mapping[str, Any], path: FieldPath, remarks: Remarks) -> dict[str, Any]:
    """Returns the `drop` of a target, empty if nothing is dropped."""
    found = []
    for name in entries(params.get("additional_drop_params")):
        if isinstance(name, str) and _NAME.fullmatch(name) and name not in _KEPT:
            found.append(name)
        else:
            remarks.add((*path, "additional_drop_params"), "has an entry that is no droppable parameter; left out")
    return {"drop": list(dict.fromkeys(found))} if found else {}
