"""Writes the table of presets into a page: `python -m docs.vendors docs/vendors.md OUTPUT`.

The rows are those of parley.config.vendor_rows. The table replaces the text between the page's two markers.
"""

import sys
from pathlib import Path

from parley.cli.vendors import address, differences
from parley.config import VENDORS

BEGIN = "<!-- generated from service/parley/config/vendor_rows.py by make gen: begin -->\n"
END = "<!-- generated: end -->"


def table() -> str:
    """Returns a row for each preset."""
    rows = [
        f"| `{name}` | `{address(vendor)}` | {f'`{vendor.key}`' if vendor.key else ''} |"
        f" {'<br>'.join(f'`{one}`' for one in differences(vendor))} | [source](https://{vendor.source}) |"
        for name, vendor in VENDORS.items()
    ]
    return "\n".join(["| vendor | address | usual name of the key | what differs | |", "|---|---|---|---|---|", *rows])


def page(text: str) -> str:
    """Returns a page with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    source, output = map(Path, sys.argv[1:])
    output.write_text(page(source.read_text(encoding="utf-8")), encoding="utf-8")
