"""`parley models`: lists the configured models; `pull` fetches one."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cyclopts import App

from parley.cli.shared.options import ConfigOption, JsonOption
from parley.cli.shared.terminal import print_table
from parley.config import Config, Metadata, Model
from parley.config.loader import load
from parley.config.metadata import merged_metadata
from parley.config.vendor_models import vendor_metadata

app = App(
    name="models",
    help="List the configured models; fetch weights.",
    help_epilogue="Examples:\n  parley models --config parley.yaml\n  parley models pull https://host/model.gguf",
    help_format="plaintext",
)
app.command(
    "parley.cli.pull:pull",
    name="pull",
    help="Fetch the weights of a model, with progress, resume and checksum.",
    help_epilogue="Examples:\n"
    "  parley models pull https://host/model-Q4_K_M.gguf\n"
    "  parley models pull ~/Downloads/model.gguf --name small",
)


@app.default
def models(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the configured models. `*` marks the default model."""
    rows = _rows(load(config))
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    cells = [
        (
            "*" if row["default"] else "",
            row["id"],
            "\n".join(target["backend"] for target in row["targets"]),
            "\n".join(target["model"] or "-" for target in row["targets"]),
            f"{row['sessions']}{', own ids' if row['session_ids'] == 'caller' else ''}",
            _known(row["metadata"]),
            "\n".join(_aliases(row)) or "-",
        )
        for row in rows
    ]
    print_table(
        ("", "ID", "Backend", "Model there", "Sessions", "Known", "Aliases"),
        cells,
        folded=("Backend", "Model there", "Known", "Aliases"),
        multiline=("Backend", "Model there", "Aliases"),
    )


def _aliases(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields the aliases of a model, with their last day."""
    for alias, day in row["aliases"].items():
        word = "retired" if alias in row["retired_aliases"] else "until"
        yield f"{alias} {word} {day}" if day else alias


def _known(metadata: Mapping[str, Any]) -> str:
    """Returns what is known of a model and decides where requests go, in a few words."""
    words = [
        *(
            f"{name.replace('_', ' ')} {metadata[name]}"
            for name in ("context_length", "max_output")
            if name in metadata
        ),
        *metadata.get("modalities", ()),
        *(name if metadata[name] else f"no {name}" for name in ("tools", "reasoning") if name in metadata),
    ]
    return ", ".join(words) or "-"


def _metadata(config: Config, model: Model) -> Metadata:
    """Returns the metadata of a model, with what is known of its first target's model at the vendor."""
    target = model.targets[0]
    vendor = getattr(config.backends[target.backend], "vendor", None)
    return merged_metadata(model.metadata, vendor_metadata(vendor, target.model))


def _rows(config: Config) -> list[dict[str, Any]]:
    """Returns an entry for each model, in the order of the configuration, without secrets."""
    return [
        {
            "id": model.id,
            "default": model.id == config.default_model,
            "sessions": model.sessions.mode,
            "session_ids": model.sessions.ids,
            "aliases": {alias.id: alias.retires and str(alias.retires) for alias in model.aliases},
            "retired_aliases": [alias.id for alias in model.aliases if alias.is_retired],
            "metadata": {name: value for name, value in asdict(_metadata(config, model)).items() if value is not None},
            "targets": [asdict(target) for target in model.targets],
        }
        for model in config.models
    ]
