"""`parley import`: translates configurations of other gateways."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from parley.cli.shared.options import ForceOption
from parley.cli.shared.output_file import write_new
from parley.cli.shared.prose import print_wrapped, unbroken
from parley.cli.shared.terminal import without_control_characters
from parley.config.source import Source
from parley.supervisor.errors import CommandError

_EXAMPLES = "Examples:\n  parley import litellm config.yaml\n  parley import litellm config.yaml --output parley.yaml"

app = App(
    name="import",
    help="Translate the configuration of another gateway.",
    help_epilogue=_EXAMPLES,
    help_format="plaintext",
)


@app.command(help_epilogue=_EXAMPLES)
def litellm(
    file: Annotated[Path, Parameter(name="FILE", help="The config.yaml of LiteLLM's proxy.")],
    /,
    *,
    output: Annotated[
        Path | None, Parameter(name="--output", help="The file to write. Default: standard output.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Translate LiteLLM's config.yaml; list what has no counterpart, with its line, on standard error.

    Keys are never copied: the result names environment variables.
    """
    from parley.cli.litellm.output import remark_lines, yaml_text
    from parley.cli.litellm.translation import translate

    source = _read(file)
    translation = translate(source)
    for line in remark_lines(translation, file.name):
        print_wrapped(line, indent=2, file=sys.stderr)
    if not translation.config["models"]:
        raise CommandError(f"{file} has no model that can be translated; see the lines above")
    text = without_control_characters(yaml_text(translation, file.name))
    if output is None:
        sys.stdout.write(text)
        return
    write_new(output, text, force=force)
    count = len(translation.config["models"])
    next_step = unbroken(f"parley doctor --config {shlex.quote(str(output))}")
    print_wrapped(f"Wrote {output}: {count} model{'' if count == 1 else 's'}. Next: {next_step}", indent=2)


def _read(file: Path) -> Source:
    """Returns the parsed file. Raises CommandError, ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CommandError(f"{file} cannot be read ({reason}); name the config.yaml of LiteLLM's proxy") from error
    source = Source.read(text, str(file))
    if not isinstance(source.data, dict) or "model_list" not in source.data:
        raise CommandError(f"{file} has no `model_list`; name the config.yaml of LiteLLM's proxy")
    return source
