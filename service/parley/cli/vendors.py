"""`parley vendors`: prints the presets of vendors."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from parley.cli.shared.options import JsonOption
from parley.cli.shared.terminal import print_table
from parley.config import VENDORS, Vendor


def vendors(*, as_json: JsonOption = False) -> None:
    """List the presets of vendors: what a backend with `vendor: NAME` sets. Every field can be replaced."""
    if as_json:
        sys.stdout.write(json.dumps({name: _data(vendor) for name, vendor in VENDORS.items()}, indent=2) + "\n")
        return
    cells = [
        (name, address(vendor), vendor.key or "-", "; ".join(differences(vendor)) or "-", f"https://{vendor.source}")
        for name, vendor in VENDORS.items()
    ]
    print_table(
        ("Vendor", "Address", "Key", "What differs", "Source"), cells, folded=("Address", "What differs", "Source")
    )


def address(vendor: Vendor) -> str:
    """Returns the base URL; the field's name where each customer has one of its own."""
    return str(vendor.settings.get("base_url", "base_url"))


def differences(vendor: Vendor) -> Iterator[str]:
    """Yields what the preset sets besides the address, each in a few words."""
    settings = vendor.settings
    if vendor.kind != "openai":
        yield f"kind: {vendor.kind}"
    for name in ("key_header", "path", "api_version", "prefill"):
        if name in settings:
            yield f"{name}: {settings[name]}"
    for name in ("rename", "roles"):
        if name in settings:
            yield f"{name}: {_pairs(settings[name])}"
    for name in ("drop", "unsupported"):
        if name in settings:
            yield f"{name}: {', '.join(settings[name])}"
    if "health" in settings:
        yield f"health: {settings['health']['path']}"


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} → {own}" for name, own in values.items())


def _data(vendor: Vendor) -> dict[str, Any]:
    """Returns the preset as in a configuration, with its source and the usual variable of its key."""
    return {"kind": vendor.kind, **vendor.settings, "key": vendor.key, "source": f"https://{vendor.source}"}
