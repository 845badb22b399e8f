"""Writes the API document of a descriptor: `python -m protos.openapi edge/parley.binpb edge/openapi.json`."""

import json
import sys
from pathlib import Path
from typing import Any

from protos.openapi.descriptor import Protos, read
from protos.openapi.paths import DIALECTS, HEADERS, PARAMETERS, Paths, error_responses
from protos.openapi.schemas import Schemas

_EXAMPLES = Path(__file__).with_name("examples.json")
_DESCRIPTION = """\
Chat completions with sessions that the server keeps. The same calls are there in several dialects, chosen by path or
by host name: a dialect is how errors look, and what chooses a stream. Fields that are not listed are ignored inside
objects; those of a completion's body itself reach the backend, as `extra_body` does. Unknown query parameters are
ignored, and null is as good as leaving a field out. Paths that are not listed answer 404, other methods 405 with
`Allow`."""


def document(protos: Protos) -> dict[str, Any]:
    """Returns the document of `parley.v1`."""
    schemas = Schemas(protos)
    shapes = {dialect.shape.name: dialect.shape.schema for dialect in DIALECTS}
    examples = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    bearer = {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer sk-…`."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Parley", "version": "v1", "description": _DESCRIPTION.replace("\n", " ")},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": protos.comments[name]} for name in protos.services],
        "paths": Paths(protos, schemas, examples).all(),
        "components": {
            "schemas": schemas.components() | shapes,
            "responses": error_responses(protos),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": {"key": bearer},
        },
    }


def main(descriptor: Path, output: Path) -> None:
    """Writes the document of a descriptor."""
    text = json.dumps(document(read(descriptor)), indent=2, ensure_ascii=False)
    output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
