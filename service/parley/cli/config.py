"""`parley config`: checks a configuration file."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

_EXAMPLE = "Example:\n  parley config check parley.yaml"

app = App(name="config", help="Check a configuration file.", help_epilogue=_EXAMPLE)


@app.command(help_epilogue=_EXAMPLE)
def check(file: Annotated[Path, Parameter(help="The YAML file.")], /) -> None:
    """Check a configuration file; list every problem with its line or field."""
    from parley.cli.shared.checks import check_config
    from parley.config.loader import load

    config = load(file)
    check_config(config, file)
    print(f"{file} is fine: {_count(config.backends, 'backend')}, {_count(config.models, 'model')}")


def _count(things: object, name: str) -> str:
    """Returns the count with the noun: `1 model`, `2 models`."""
    count = len(things)  # type: ignore[arg-type]
    return f"{count} {name}{'' if count == 1 else 's'}"
