"""`parley vendors`: prints the presets of vendors."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from parley.cli.shared.options import JsonOption
from parley.cli.shared.terminal import print_table
from parley.config import VENDORS, Vendor
from parley.supervisor.errors import CommandError

_INDENT = "  "

Names = Annotated[str, Parameter(name="NAME", help="Only these vendors. Default: all.")]


def vendors(*names: Names, as_json: JsonOption = False) -> None:
    """List the presets of vendors: what a backend with `vendor: NAME` sets. Every field can be replaced."""
    if unknown := [name for name in names if name not in VENDORS]:
        raise CommandError(f'the vendor "{unknown[0]}" is unknown; use one of: {", ".join(VENDORS)}')
    chosen = {name: vendor for name, vendor in VENDORS.items() if name in names or not names}
    if as_json:
        sys.stdout.write(json.dumps({name: _data(vendor) for name, vendor in chosen.items()}, indent=2) + "\n")
    elif sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        sys.stdout.write("\n".join(_block(name, vendor, width) for name, vendor in chosen.items()))
    else:
        _print_lines(chosen)


def _block(name: str, vendor: Vendor, width: int) -> str:
    """Returns the lines of a vendor for a terminal, whose width a table of all columns would exceed."""
    head = "  ".join(filter(None, (name, address(vendor), vendor.key)))
    lines = [*differences(vendor), f"https://{vendor.source}"]
    wrapped = (
        textwrap.fill(
            line,
            max(width, 40),
            initial_indent=_INDENT,
            subsequent_indent=_INDENT * 2,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )
    return "\n".join((head, *wrapped, ""))


def _print_lines(chosen: Mapping[str, Vendor]) -> None:
    """Prints one line for each vendor."""
    cells = [
        (name, address(vendor), vendor.key or "-", "; ".join(differences(vendor)) or "-", f"https://{vendor.source}")
        for name, vendor in chosen.items()
    ]
    print_table(
        ("Vendor", "Address", "Key", "What differs", "Source"), cells, folded=("Address", "What differs", "Source")
    )


def address(vendor: Vendor) -> str:
    """Returns the base URL; its form where each customer has one of its own."""
    return str(vendor.preset.get("base_url", vendor.example))


def differences(vendor: Vendor) -> Iterator[str]:
    """Yields what the preset sets besides the address, each in a few words."""
    settings = vendor.preset
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
    return {"kind": vendor.kind, **vendor.preset, "key": vendor.key, "source": f"https://{vendor.source}"}
