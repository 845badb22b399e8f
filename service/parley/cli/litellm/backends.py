"""Translates the address and the key of each deployment into a backend."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parley.cli.litellm import tables
from parley.cli.litellm.source import Remarks, text, variable
from parley.cli.shared.vendors import VENDORS, Vendor
from parley.config.source import FieldPath

_MAX_NAME = 32
_ADDRESS = re.compile(r"https?://[^@\s]+|\$\{[^@\s]+")
_ROUTED = ("azure", "bedrock", "openai")
_UNKNOWN = Vendor("", "")
_PACKAGE = (
    "is called through any-llm-sdk: run `pip install 'parley-gateway[any-llm]'`, and set the vendor's credentials in"
    " the environment"
)


@dataclass(slots=True)
class Backends:
    """Collects the backends: deployments with the same address and key share one.

    Attributes:
        found: The backends by name, as in Parley's configuration.
        taken: The environment variables that have a value already.
    """

    remarks: Remarks
    taken: set[str]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    _secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def target(self, params: dict[str, Any], path: FieldPath) -> dict[str, Any] | None:
        """Returns the target of a deployment, with its backend in `found`; None if Parley cannot call it.

        Args:
            params: The `litellm_params`.
            path: Their path, for remarks.
        """
        provider, model = split_model(params)
        vendor = VENDORS.get(provider, _UNKNOWN)
        base = self._base_url(params, provider, vendor)
        if problem := _problem(model, provider, vendor, base):
            self.remarks.add((*path, "model"), f"{problem}; the deployment is left out")
            return None
        if vendor.kind == "any_llm":
            self.remarks.add((*path, "model"), _PACKAGE)
        name = self._name(provider, vendor.backend(base, self._key(params, provider, vendor, path)))
        return {"backend": name, "model": model}

    def _base_url(self, params: dict[str, Any], provider: str, vendor: Vendor) -> str:
        base = params.get("api_base") or params.get("base_url")
        if not base or vendor.kind == "any_llm":
            return ""
        url = text(base).partition("?")[0].rstrip("/")  # Azure's have ?api-version=…
        for cut in tables.CUTS:
            url = url.removesuffix(cut)
        url = re.sub(r"/openai/deployments/[^/]*$", "", url) if provider == "azure" else url
        suffix = tables.SUFFIXES.get(provider, "")
        return url if url.endswith(suffix) else url + suffix

    def _key(self, params: dict[str, Any], provider: str, vendor: Vendor, path: FieldPath) -> str:
        """Returns the environment variable with the key; "" for none. A key in the clear gets a variable."""
        given = params.get("api_key")
        if vendor.kind == "any_llm" or (given is None and not vendor.key):
            return ""
        if given is None or (name := variable(given)):
            return vendor.key if given is None else name
        if not str(given).strip() or str(given).strip().lower() in tables.PLACEHOLDERS:
            return ""
        return self._hidden(str(given), vendor.key or _upper(provider), (*path, "api_key"))

    def _hidden(self, secret: str, wanted: str, path: FieldPath) -> str:
        """Returns the variable that replaces a key in the clear, the same for the same key."""
        if secret not in self._secrets:
            names = (wanted if count == 1 else f"{wanted}_{count}" for count in range(1, len(self.taken) + 2))
            self._secrets[secret] = next(name for name in names if name not in self.taken)
            self.taken.add(self._secrets[secret])
        name = self._secrets[secret]
        self.remarks.add(path, f"the key is not copied: set it in the environment as {name}")
        return name

    def _name(self, provider: str, backend: dict[str, Any]) -> str:
        """Returns the name of the backend, which is added if it is new."""
        for name, known in self.found.items():
            if known == backend:
                return name
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", provider)[: _MAX_NAME - 4] or "backend"
        names = (stem if count == 1 else f"{stem}-{count}" for count in range(1, len(self.found) + 2))
        name = next(name for name in names if name not in self.found)
        self.found[name] = backend
        return name


def split_model(params: dict[str, Any]) -> tuple[str, str]:
    """Returns the vendor and its name of the model; "" for a vendor that cannot be found out."""
    model = str(params.get("model") or "")
    chosen = str(params.get("custom_llm_provider") or "")
    if variable(model):
        return chosen or ("hosted_vllm" if params.get("api_base") or params.get("base_url") else ""), text(model)
    prefix, slash, rest = model.partition("/")
    if chosen and prefix != chosen:
        return tables.PREFIXES.get(chosen, chosen), model
    if slash and (prefix in VENDORS or prefix in tables.PREFIXES):
        return tables.PREFIXES.get(prefix, prefix), _without_route(prefix, rest)
    if slash:
        return prefix, rest
    for pattern, vendor in tables.BARE_MODELS.items():
        if re.fullmatch(pattern, model):
            return vendor, model
    return ("hosted_vllm" if params.get("api_base") or params.get("base_url") else ""), model


def variables_in_use(value: Any, all_params: Iterable[dict[str, Any]]) -> set[str]:
    """Returns the environment variables of a file: those that it names, and those of vendors without a key in it."""
    found = {VENDORS.get(split_model(params)[0], _UNKNOWN).key for params in all_params if not params.get("api_key")}
    return found | set(_named(value))


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _named(item)
    elif name := variable(value):
        yield name


def _without_route(prefix: str, model: str) -> str:
    """Removes the names of APIs that LiteLLM puts between vendor and model: `bedrock/converse/…`."""
    return re.sub(r"^(converse|invoke|responses|chat)/", "", model) if prefix in _ROUTED else model


def _problem(model: str, provider: str, vendor: Vendor, base: str) -> str | None:
    """Returns why Parley cannot call a deployment; None if it can."""
    if not model:
        return "is missing"
    if not provider:
        return "its vendor cannot be found out, or has no chat completions"
    if base and not _ADDRESS.fullmatch(base):
        return "its `api_base` is no URL, or has a password"
    if vendor is _UNKNOWN and not base:
        return "its vendor is unknown; set `api_base` if it has OpenAI's API"
    if vendor.kind == "openai" and not (base or vendor.base_url):
        return f"{provider} needs its URL: set `api_base`"
    return None


def _upper(provider: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY"
