"""Translates the address and the key of each deployment into a backend."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from parley.cli.litellm import headers, tables
from parley.cli.litellm.source import Remarks, text, variable
from parley.cli.litellm.vendors import OTHER_ADDRESS, OTHER_NAME, VENDORS
from parley.cli.shared.vendors import OTHER, Vendor
from parley.config import VENDORS as PRESETS
from parley.config.source import FieldPath

_MAX_NAME = 32
_ADDRESS = re.compile(r"https?://[^@\s]+|\$\{[^@\s]+")
_ROUTED = ("azure", "bedrock", "openai")
_UNKNOWN = Vendor()
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?:-preview)?")
_NEW_LIMIT_SINCE = "2024-09"  # older versions of Azure's API have no `max_completion_tokens`
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
        if provider in OTHER_ADDRESS and base and base != vendor.base_url:
            vendor = _of_other_address(vendor)
        if problem := _problem(model, provider, vendor, base):
            self.remarks.add((*path, "model"), f"{problem}; the deployment is left out")
            return None
        if vendor.kind == "any_llm":
            self.remarks.add((*path, "model"), _PACKAGE)
        key = self._key(params, provider, vendor, path, is_needed=_needs_key(vendor, base))
        backend = vendor.backend(base, key)
        backend |= self._version(params, path) if provider == "azure" else {}
        backend |= self._headers(params, vendor, path, has_key=bool(key))
        return {"backend": self._name(provider, backend), "model": model}

    def _version(self, params: dict[str, Any], path: FieldPath) -> dict[str, Any]:
        """Returns the version of Azure's API, and what differs in older ones."""
        version = params.get("api_version")
        if version is None:
            return {}
        if variable(version):
            return {"api_version": text(version)}
        if not _DATED.fullmatch(str(version)):
            self.remarks.add((*path, "api_version"), "is no dated version; that of the preset is used")
            return {}
        return {"api_version": str(version)} | ({"rename": {}} if str(version) < _NEW_LIMIT_SINCE else {})

    def _headers(self, params: dict[str, Any], vendor: Vendor, path: FieldPath, *, has_key: bool) -> dict[str, Any]:
        if vendor.kind == "any_llm":
            for name in params.keys() & {"headers", "extra_headers", "organization"}:
                self.remarks.add((*path, name), "any-llm-sdk sends no further headers; left out")
            return {}
        found = headers.translated(params, path, self.remarks, self._hidden, has_key=has_key)
        return {"headers": found} if found else {}

    def _base_url(self, params: dict[str, Any], provider: str, vendor: Vendor) -> str:
        base = params.get("api_base") or params.get("base_url")
        if not base or vendor.kind == "any_llm":
            return ""
        url = text(base).partition("?")[0].rstrip("/")  # Azure's have ?api-version=…
        for cut in tables.CUTS:
            url = url.removesuffix(cut)
        url = re.sub(r"/openai(/deployments/[^/]*|/v1)?$", "", url) if provider == "azure" else url
        suffix = tables.SUFFIXES.get(provider, "")
        return url if url.endswith(suffix) else url + suffix

    def _key(self, params: dict[str, Any], provider: str, vendor: Vendor, path: FieldPath, *, is_needed: bool) -> str:
        """Returns the environment variable with the key; "" for none. A key in the clear gets a variable.

        Without a key, that of the vendor is used, unless the key is in a header, or a word stands for no key.
        """
        given = params.get("api_key")
        if vendor.kind == "any_llm":
            return ""
        if name := variable(given):
            return name
        if given is None or str(given).strip().lower() in {"", *tables.PLACEHOLDERS}:
            return "" if headers.have_key(params) or (given is not None and not is_needed) else vendor.key
        return self._hidden(str(given), vendor.key or _upper(provider), (*path, "api_key"))

    def _hidden(self, secret: str, wanted: str, path: FieldPath) -> str:
        """Returns the variable that replaces a key in the clear, the same for the same key."""
        if secret not in self._secrets:
            names = (wanted if count == 1 else f"{wanted}_{count}" for count in range(1, len(self.taken) + 2))
            self._secrets[secret] = next(name for name in names if name not in self.taken)
            self.taken.add(self._secrets[secret])
        name = self._secrets[secret]
        what = "the key" if path[-1] == "api_key" else "the value"
        self.remarks.add(path, f"{what} is not copied: set it in the environment as {name}")
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
        return tables.PREFIXES.get(chosen, chosen) or _at_address(params), text(model)
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
    return _at_address(params), model


def _needs_key(vendor: Vendor, base: str) -> bool:
    """Returns whether the vendor's own servers are called, and refuse calls without a key."""
    preset = PRESETS.get(vendor.preset)
    return preset is not None and bool(preset.key) and (not base or preset.has_host(urlsplit(base).hostname or ""))


def _at_address(params: dict[str, Any]) -> str:
    """Returns the vendor of a model without one: that of any server, if there is an address."""
    return OTHER_NAME if params.get("api_base") or params.get("base_url") else ""


def _of_other_address(vendor: Vendor) -> Vendor:
    """Returns another server with the API of the vendor."""
    return replace(vendor, preset="") if vendor.kind == "anthropic" else replace(OTHER, key=vendor.key)


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
    if vendor in (_UNKNOWN, OTHER) and not base:
        return "its vendor is unknown; set `api_base` if it has OpenAI's API"
    if vendor.kind == "openai" and not (base or vendor.base_url):
        return f"{provider} needs its URL: set `api_base`"
    return None


def _upper(provider: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY"
