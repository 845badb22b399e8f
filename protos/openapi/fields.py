"""Writes the names of a request's fields for the edge: `python -m protos.openapi.fields DESCRIPTOR fields.lua`."""

import sys
from pathlib import Path

from protos.openapi.descriptor import read

_HEAD = "-- GENERATED from protos/ by `make gen`: the names that the transcoder knows at the top of a request's body.\n"


def main(descriptor: Path, output: Path) -> None:
    """Writes the table of a descriptor."""
    fields = read(descriptor).messages["CreateChatCompletionRequest"].field
    names = sorted({name for field in fields for name in (field.name, field.json_name)})
    rows = "".join(f"  {name} = true,\n" for name in names)
    output.write_text(f"{_HEAD}return {{\n{rows}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
