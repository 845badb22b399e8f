"""Writes a translated configuration as commented YAML."""

from collections.abc import Iterator
from typing import Any

from parley.cli.litellm.source import Remark
from parley.cli.litellm.translation import Translation

_ENDLESS = 10**6


def yaml_text(translation: Translation, name: str) -> str:
    """Returns the configuration as YAML, with the remarks as comments at its end.

    Args:
        translation: The translation.
        name: The name of LiteLLM's file.
    """
    return "\n".join([*_lines(translation, name), ""])


def remark_lines(translation: Translation, name: str) -> list[str]:
    """Returns a line for each remark: `config.yaml:12: model_list[0]…: what to do`."""
    return [_remark(one, name) for one in translation.remarks]


def _lines(translation: Translation, name: str) -> Iterator[str]:
    config = translation.config
    yield f"# Translated from {name} of LiteLLM by `parley import litellm`."
    yield "# Check it with `parley config check`, and each backend with `parley doctor`."
    yield "backends:"
    for key, backend in config["backends"].items():
        yield f"  {_flow(key)}: {_flow(backend)}"
    yield "models:"
    for model in config["models"]:
        yield from _model(model)
    for key in config.keys() - {"backends", "models", "prices"}:
        yield f"{key}: {_flow(config[key])}"
    if "prices" in config:
        yield "# Of a million tokens."
        yield "prices:"
        for key, price in config["prices"].items():
            yield f"  {_flow(key)}: {_flow(price)}"
    if translation.remarks:
        yield "# Without a counterpart, or different:"
        for line in remark_lines(translation, name):
            yield f"#   {line}"


def _model(model: dict[str, Any]) -> Iterator[str]:
    yield f"  - id: {_flow(model['id'])}"
    if len(model["targets"]) == 1:
        yield f"    targets: {_flow(model['targets'])}"
    else:
        yield "    targets:"
        for target in model["targets"]:
            yield f"      - {_flow(target)}"
    for key, value in model.items():
        if key not in {"id", "targets"}:
            yield f"    {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    """Returns a value on one line."""
    import yaml

    text = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=_ENDLESS)
    return text.strip()[1:-1]


def _remark(remark: Remark, name: str) -> str:
    where = f"{name}:{remark.line}" if remark.line else name
    return f"{where}: {remark.path}: {remark.text}"
