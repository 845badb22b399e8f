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
Chat completions with server-side sessions. The same calls exist in several dialects, selected by path or host name. A
dialect defines the format of errors and how a stream is requested. Unknown fields at the top of a completion's body
reach the backend, like `extra_body`; unknown query parameters are ignored, and null is equivalent to an absent field.
Other paths are 404, other methods 405 with `Allow`."""


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
