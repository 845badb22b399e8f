"""`parley models`: shows the configured models."""

import json
import sys
from typing import Any

from parley.cli.settings import ConfigOption, JsonOption
from parley.config import Config, load


def models(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the configured models, the default one marked with `*`."""
    rows = _rows(load(config))
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "id", "backend", "model there", "sessions", box=None, header_style="bold")
    for row in rows:
        targets = row["targets"]
        cells = (
            "*" if row["default"] else "",
            row["id"],
            "\n".join(target["backend"] for target in targets),
            "\n".join(target["model"] or "-" for target in targets),
            row["sessions"],
        )
        table.add_row(*map(Text, cells))  # as text: an id in square brackets is no style
    Console().print(table)


def _rows(config: Config) -> list[dict[str, Any]]:
    """One entry a model, in the order of the configuration; without anything secret."""
    return [
        {
            "id": model.id,
            "default": model.id == config.default_model,
            "sessions": model.sessions,
            "targets": [target.model_dump() for target in model.targets],
        }
        for model in config.models
    ]
