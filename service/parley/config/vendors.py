"""The vendors of backends: by name, for presets, and by host."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from parley.config.vendor import Vendor
from parley.config.vendor_rows import OTHERS, VENDORS


def vendor_of(url: str) -> Vendor | None:
    """Returns the vendor whose host a URL names; None if the host is not known."""
    host = _host(url)
    return next((vendor for vendor in (*VENDORS.values(), *OTHERS) if vendor.has_host(host)), None)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def apply_vendor(value: object) -> object:
    """Returns a backend of the file with the fields of its vendor's preset.

    Raises:
        ValueError: The vendor is unknown, or the backend lacks what its vendor needs. The text begins with the field.
    """
    if not isinstance(value, dict):
        return value
    if value.get("vendor") is None:
        if "kind" not in value:
            _check_spelling("vendor", value)
        return value
    name = value["vendor"]
    vendor = VENDORS.get(name) if isinstance(name, str) else None
    if vendor is None:
        raise ValueError(f"vendor: is unknown; {_suggestion(str(name))}")
    if value.get("kind", vendor.kind) != vendor.kind:
        raise ValueError(f"kind: the vendor {name} has the kind {vendor.kind}; remove one of them")
    _check_key(name, vendor, value)
    _check_address(name, vendor, value)
    settings = dict(vendor.preset)
    if "key_parameter" in value:
        settings.pop("key_header", None)
    return {"kind": vendor.kind, **settings, **value}


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # a worker validates nothing

    nearest = get_close_matches(name, VENDORS, 1)
    return f'did you mean "{nearest[0]}"?' if nearest else f"use one of: {', '.join(VENDORS)}"


def _check_spelling(field: str, value: Mapping[Any, Any]) -> None:
    """Rejects a backend that lacks a field, and has one whose name is almost the same."""
    from difflib import get_close_matches

    names = [str(name) for name, given in value.items() if name != field and given is not None]
    if near := get_close_matches(field, names, 1, 0.8):
        raise ValueError(f'{near[0]}: is unknown; did you mean "{field}"?')


def _check_key(name: str, vendor: Vendor, value: Mapping[Any, Any]) -> None:
    """Rejects a backend without any credential, unless it leads to another server, which may add its own."""
    address = value.get("base_url")
    leads_elsewhere = address is not None and not vendor.has_host(_host(str(address)))
    credentials = ("api_key", "api_keys", "headers", "query", "client_certificate")
    if vendor.key and not leads_elsewhere and all(value.get(one) is None for one in credentials):
        _check_spelling("api_key", value)
        raise ValueError(f'api_key: is required for {name}; set it, for example to "${{{vendor.key}}}"')


def _check_address(name: str, vendor: Vendor, value: Mapping[Any, Any]) -> None:
    """Rejects a backend without an address, or whose address has the beginning of the preset's path already."""
    address = value.get("base_url")
    if address is None and "base_url" not in vendor.preset:
        _check_spelling("base_url", value)
        raise ValueError(f'base_url: is required for {name}; set it, for example to "{vendor.example}"')
    beginning = "/".join(str(vendor.preset.get("path", "")).split("/")[:2])
    if beginning and "path" not in value and beginning in str(address).partition("://")[2]:
        raise ValueError(f'base_url: must end before {beginning}, which `path` has, for example "{vendor.example}"')
