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

# The schemes of document 002. The URLs are examples: each installation configures its own issuers.
_SCOPES = {"openid": "Sign in.", "email": "The email address.", "profile": "The profile."}
_SECURITY: dict[str, Any] = {
    "oauth2": {
        "type": "oauth2",
        "description": "An access token (JWT) of an OAuth 2.0 or OpenID Connect issuer of this installation, with the "
        "required scopes: `Authorization: Bearer eyJ…`. `/.well-known/oauth-protected-resource` lists the issuers; an "
        "issuer publishes its URLs at `/.well-known/openid-configuration`.",
        "flows": {
            "authorizationCode": {
                "authorizationUrl": "https://login.example.com/authorize",
                "tokenUrl": "https://login.example.com/token",
                "scopes": _SCOPES,
            },
        },
    },
    "jwt": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The same access token, however the client got it, for example by client credentials.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "An API key, in the format `Bearer sk-…`.",
    },
}


def document(protos: Protos) -> dict[str, Any]:
    """Returns the document of `parley.v1`."""
    schemas = Schemas(protos)
    shapes = {dialect.shape.name: dialect.shape.schema for dialect in DIALECTS}
    examples = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Parley", "version": "v1", "description": _DESCRIPTION.replace("\n", " ")},
        "servers": [{"url": "/"}],
        "security": [{"oauth2": [*_SCOPES]}, {"jwt": []}, {"key": []}],
        "tags": [{"name": name, "description": protos.comments[name]} for name in protos.services],
        "paths": Paths(protos, schemas, examples).all(),
        "components": {
            "schemas": schemas.components() | shapes,
            "responses": error_responses(protos),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


def main(descriptor: Path, output: Path) -> None:
    """Writes the document of a descriptor."""
    text = json.dumps(document(read(descriptor)), indent=2, ensure_ascii=False)
    output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
