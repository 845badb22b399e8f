"""Translates the configuration of LiteLLM's proxy into Parley's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.cli.litellm import tables
from parley.cli.litellm.backends import Backends, variables_in_use
from parley.cli.litellm.groups import Deployment, Groups
from parley.cli.litellm.source import Remark, Remarks, entries, mapping, number, pairs
from parley.config.source import FieldPath, Source

_MAX_ATTEMPTS = 32
_BY_WEIGHT = "simple-shuffle"


@dataclass(frozen=True, slots=True)
class Translation:
    """A translated configuration.

    Attributes:
        config: The data of Parley's configuration; without models if nothing could be translated.
        remarks: What has no counterpart or another meaning, in the order of the file.
    """

    config: dict[str, Any]
    remarks: Sequence[Remark]


def translate(source: Source) -> Translation:
    """Translates a file of LiteLLM's proxy, which is a mapping."""
    remarks = Remarks(source)
    data = mapping(source.data)
    _remark_settings(data, remarks)
    deployments = _deployments(data, remarks)
    backends = Backends(remarks, variables_in_use(data, [one.params for one in deployments]))
    groups = Groups(backends, remarks)
    for deployment in deployments:
        groups.add(deployment)
    models, prices = groups.models()
    _apply_settings(models, data)
    models += _aliases(models, data, remarks)
    _apply_fallbacks(models, data, remarks)
    _apply_retries(models, data)
    config: dict[str, Any] = {"backends": backends.found, "models": models}
    default = mapping(data.get("general_settings")).get("completion_model")
    if default in [model["id"] for model in models]:
        config["default_model"] = default
    elif default is not None:
        remarks.add(("general_settings", "completion_model"), "names no translated model; left out")
    if prices:
        config["prices"] = prices
    for name in mapping(data.get("environment_variables")):
        remarks.add(("environment_variables", name), "set it in the environment of Parley; the value is not copied")
    return Translation(config, remarks.all())


def _deployments(data: Mapping[str, Any], remarks: Remarks) -> list[Deployment]:
    """Returns the deployments that answer chat completions, with their credentials filled in."""
    credentials = {
        str(mapping(one).get("credential_name")): mapping(mapping(one).get("credential_values"))
        for one in entries(data.get("credential_list"))
    }
    found = []
    for index, item in enumerate(entries(data.get("model_list"))):
        entry = mapping(item)
        path: FieldPath = ("model_list", index)
        params = dict(mapping(entry.get("litellm_params")))
        params = {**credentials.get(str(params.get("litellm_credential_name")), {}), **params}
        params = {**{name: entry[name] for name in ("rpm", "tpm") if name in entry}, **params}
        one = Deployment(str(entry.get("model_name") or ""), params, dict(mapping(entry.get("model_info"))), path)
        if _is_chat(one, remarks):
            found.append(one)
    return found


def _is_chat(deployment: Deployment, remarks: Remarks) -> bool:
    """Returns whether Parley can have the deployment; adds a remark if not."""
    path, model = deployment.path, str(deployment.params.get("model") or "")
    mode = deployment.info.get("mode")
    if mode is not None and mode not in tables.CHAT_MODES:
        remarks.add((*path, "model_info", "mode"), "Parley has chat completions only; the deployment is left out")
    elif mode is None and tables.NOT_CHAT.search(model):
        remarks.add((*path, "litellm_params", "model"), "Parley has chat completions only; the deployment is left out")
    elif not deployment.name:
        remarks.add(path, "has no `model_name`; the deployment is left out")
    elif not _is_wildcard_of(deployment.name, model):
        remarks.add((*path, "model_name"), 'needs one "*", at its end, and at most one in `model`; left out')
    else:
        return True
    return False


def _is_wildcard_of(name: str, model: str) -> bool:
    """Returns whether Parley can have the `*` of a deployment, if there are any."""
    if "*" not in name:
        return "*" not in model
    return name.index("*") == len(name) - 1 and model.count("*") <= 1


def _remark_settings(data: Mapping[str, Any], remarks: Remarks) -> None:
    """Adds a remark on every setting and section that has no counterpart."""
    for section, value in data.items():
        if section not in tables.USED_SECTIONS:
            remarks.add((section,), tables.SECTIONS.get(section, "is unknown; left out"))
        elif section.endswith("_settings"):
            for name in mapping(value):
                if f"{section}.{name}" not in tables.USED_SETTINGS:
                    text = tables.SETTINGS.get(f"{section}.{name}", "is unknown; left out")
                    remarks.add((section, name), text)
    strategy = mapping(data.get("router_settings")).get("routing_strategy")
    if strategy not in (None, _BY_WEIGHT):
        remarks.add(("router_settings", "routing_strategy"), "targets are chosen by weight among the healthy ones")


def _setting(data: Mapping[str, Any], name: str, *other: str) -> object:
    """Returns a setting of the router, or else of the library, under any of its names."""
    for section in ("router_settings", "litellm_settings"):
        values = mapping(data.get(section))
        for one in (name, *other):
            if values.get(one) is not None:
                return values[one]
    return None


def _apply_settings(models: list[dict[str, Any]], data: Mapping[str, Any]) -> None:
    """Gives the time limits of all models to those without their own."""
    total = number(_setting(data, "timeout", "request_timeout"))
    first = number(_setting(data, "stream_timeout"))
    for model in models:
        timeouts = {name: value for name, value in (("first_token", first), ("total", total)) if value}
        timeouts |= model.get("timeouts", {})
        if timeouts:
            model["timeouts"] = timeouts


def _aliases(models: list[dict[str, Any]], data: Mapping[str, Any], remarks: Remarks) -> list[dict[str, Any]]:
    """Returns a model for each alias, with the targets of the model that it names."""
    known = {model["id"]: model for model in models}
    found = []
    for section, name in (("router_settings", "model_group_alias"), ("litellm_settings", "model_alias_map")):
        for alias, value in mapping(mapping(data.get(section)).get(name)).items():
            path = (section, name, alias)
            chosen = mapping(value).get("model") if isinstance(value, dict) else value
            if not isinstance(chosen, str) or chosen not in known or alias in known or "*" in chosen:
                remarks.add(path, "names no translated model, or a name that a model has; left out")
                continue
            if mapping(value).get("hidden"):
                remarks.add(path, "the alias is listed by /v1/models; an alias cannot be hidden")
            found.append({**known[chosen], "id": alias})
    return found


def _apply_fallbacks(models: list[dict[str, Any]], data: Mapping[str, Any], remarks: Remarks) -> None:
    """Gives each model its fallbacks: its own, those for long prompts, then the default ones."""
    known = [model["id"] for model in models]
    for section in ("router_settings", "litellm_settings"):
        settings = mapping(data.get(section))
        for name in ("fallbacks", "context_window_fallbacks"):
            for model, wanted in pairs(settings.get(name)):
                path = (section, name)
                if name.startswith("context") and wanted:
                    remarks.add(path, "Parley's `fallbacks` answer after every failure, not only after long prompts")
                chosen = [one for one in models if model in (one["id"], "*")]
                if not chosen:
                    remarks.add(path, f'"{model}" is no translated model; its fallbacks are left out')
                for one in chosen:
                    _add_fallbacks(one, wanted, known, path, remarks)
        for one in models:
            path = (section, "default_fallbacks")
            _add_fallbacks(one, entries(settings.get("default_fallbacks")), known, path, remarks)


def _add_fallbacks(
    model: dict[str, Any], wanted: Sequence[Any], known: Sequence[str], path: FieldPath, remarks: Remarks
) -> None:
    fallbacks = list(model.get("fallbacks", []))
    for one in wanted:
        if not isinstance(one, str) or one not in known or ("*" in one and "*" not in model["id"]):
            remarks.add(path, "has an entry that is no translated model; left out")
        elif one != model["id"] and one not in fallbacks:
            fallbacks.append(one)
    if fallbacks:
        model["fallbacks"] = fallbacks


def _apply_retries(models: list[dict[str, Any]], data: Mapping[str, Any]) -> None:
    """Sets the attempts: LiteLLM retries in each group, Parley counts those of a call with all its fallbacks."""
    retries = _setting(data, "num_retries")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        return
    for model in models:
        attempts = (retries + 1) * (1 + len(model.get("fallbacks", [])))
        model["retries"] = {"attempts": min(attempts, _MAX_ATTEMPTS)}
