"""The API document: valid, up to date, and consistent with the service and the edge."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from jsonschema_rs import Draft202012Validator

from parley.rpc import field_rules
from protos.openapi import descriptor, error_catalogue, errors

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "edge" / "openapi.json").read_text(encoding="utf-8"))
CHAT = {
    "openai": "/v1/chat/completions",
    "chipp": "/api/v1/chat/completions",
    "upchatty": "/upchatty/api/v1/chat/completions",
    "fastapi": "/fastapi/api/v1/chat/completions",
    "openpipe": "/openpipe/api/v1/chat/completions",
}


def golden(name: str) -> dict[str, Any]:
    """Returns a golden file of the edge's tests: the status, headers and body of each case."""
    found: dict[str, Any] = json.loads((ROOT / "tests" / "edge" / "golden" / f"{name}.json").read_text("utf-8"))
    return found


def problems(schema: dict[str, Any], instance: Any) -> list[str]:
    """Returns the violations of a schema of the document."""
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(instance)]


def responses(dialect: str) -> dict[str, Any]:
    """Returns the documented responses of a chat completion by status."""
    found = DOCUMENT["paths"][CHAT[dialect]]["post"]["responses"]
    return {status: _resolved(response) for status, response in found.items()}


def _resolved(response: dict[str, Any]) -> dict[str, Any]:
    name = response.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["responses"][name] if name else response


def test_the_document_is_valid() -> None:
    """The document is OpenAPI 3.1 by the specification's own schema."""
    assert "3.1.0" == DOCUMENT["openapi"]
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_a_document_that_is_not_valid_is_noticed() -> None:
    """The validation of the previous test rejects an invalid document."""
    with pytest.raises(ValueError, match="title"):
        schemathesis.openapi.from_dict({**DOCUMENT, "info": {"version": "1"}}).validate()


def test_the_document_is_what_the_protos_make(tmp_path: Path) -> None:
    """`make gen` does not change the document."""
    made = tmp_path / "openapi.json"
    command = [sys.executable, "-m", "protos.openapi", "edge/parley.binpb", str(made)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert made.read_text("utf-8") == (ROOT / "edge" / "openapi.json").read_text("utf-8")


def test_the_transcoder_knows_exactly_the_fields_of_rest() -> None:
    """Each field of a message in a request is memory for as long as the call lasts."""
    commented = descriptor.read(ROOT / "edge" / "parley.binpb")
    transcoder = descriptor.read(ROOT / "edge" / "transcoder.binpb")
    for name, message in commented.messages.items():
        expected = [one.name for one in message.field if not descriptor.is_grpc_only(commented, name, one)]
        assert expected == [one.name for one in transcoder.messages[name].field]
    assert "parts" in [one.name for one in commented.messages["Message"].field]


def test_the_edge_s_catalogue_of_errors_is_that_of_the_service() -> None:
    """The generated Lua file is up to date."""
    assert error_catalogue.lua() == (ROOT / "edge" / "lua" / "error_catalogue.lua").read_text("utf-8")


def test_ranges_are_those_that_are_enforced() -> None:
    """The document has the ranges that the service checks, and no others."""
    properties = DOCUMENT["components"]["schemas"]["CreateChatCompletionRequest"]["properties"]
    documented = {
        name: (schema["minimum"], schema["maximum"])
        for name, schema in properties.items()
        if "minimum" in schema and schema["maximum"] < 2**31
    }
    assert field_rules.CHAT_RANGES == documented


def test_every_example_follows_its_schema() -> None:
    """The examples of requests, responses and errors match their schemas."""
    bodies = [*DOCUMENT["components"]["responses"].values()]
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            bodies += [operation["responses"]["200"], operation.get("requestBody", {"content": {}})]
    shown = [body["content"]["application/json"] for body in bodies if "application/json" in body["content"]]
    for media in shown:
        examples = [media["example"]] if "example" in media else [each["value"] for each in media["examples"].values()]
        assert [[]] * len(examples) == [problems(media["schema"], example) for example in examples]


@pytest.mark.parametrize("dialect", CHAT)
def test_every_reason_is_documented_as_the_edge_shows_it(dialect: str) -> None:
    """Each reason's example has the edge's status, code and format."""
    shown = {
        name: (int(status), example["value"])
        for status, response in responses(dialect).items()
        for name, example in response["content"]["application/json"].get("examples", {}).items()
    }
    for reason, seen in golden(f"errors_{dialect}").items():
        if reason in errors.ADMIN:
            continue
        status, value = shown[reason]
        assert seen["status"] == status, reason
        assert _form(seen["body"]) == _form(value), reason


def _form(body: dict[str, Any]) -> Any:
    """Returns an error's body without its message and the field at fault."""
    if "error" in body and isinstance(body["error"], dict):
        return body["error"]["type"], body["error"]["code"]
    return [(name, type(value)) for name, value in body.items()]


def test_the_edge_s_own_refusals_are_those_of_its_script() -> None:
    """Statuses, codes and messages are as in the edge's script, but for errors of other paths and of the service."""
    script = (ROOT / "edge" / "lua" / "error_catalogue.lua").read_text("utf-8")
    rows = re.findall(r'^    \[(\d+)\] = \{ message = "([^"]*)"(?:, code = "(\w+)")?', script, re.MULTILINE)
    elsewhere = {404, 405, 409, 429, 500, 501}
    expected = {int(status): (message, code or "invalid_request") for status, message, code in rows}
    actual = {failure.status: (failure.message, failure.code) for failure in errors.EDGE.values()}
    assert "The request body is larger than 8 MiB" == actual[413][0]  # written into the script's by a setting
    expected[413] = (actual[413][0], expected[413][1])
    assert {status: row for status, row in expected.items() if status not in elsewhere} == actual


@pytest.mark.parametrize("dialect", CHAT)
@pytest.mark.parametrize("kind", ["errors", "envoy", "bodies"])
def test_every_error_of_the_edge_follows_the_document(dialect: str, kind: str) -> None:
    """The golden errors of the edge have documented statuses (except other paths and methods) and schemas."""
    documented = responses(dialect)
    for case, seen in golden(f"{kind}_{dialect}").items():
        status = "404" if seen["status"] == 405 else str(seen["status"])
        assert status in documented, case
        if seen.get("body") is not None and status != "200":
            assert [] == problems(documented[status]["content"]["application/json"]["schema"], seen["body"]), case


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/models", "data"), ("/api/v1/sessions", "sessions"), ("/api/v1/sessions/{session_id}/messages", "messages")],
)
def test_lists_are_always_there(path: str, field: str) -> None:
    """Lists are required fields, so that generated clients need not check for them."""
    content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    assert field in DOCUMENT["components"]["schemas"][name]["required"]
    assert field in content["example"]


def test_the_security_schemes_of_document_002() -> None:
    """Each call accepts an access token by OAuth 2.0, the same token as it is, or an API key."""
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert [{"oauth2": ["openid", "email", "profile"]}, {"jwt": []}, {"key": []}] == DOCUMENT["security"]
    assert ["oauth2", "http", "apiKey"] == [scheme["type"] for scheme in schemes.values()]
    assert ("bearer", "JWT") == (schemes["jwt"]["scheme"], schemes["jwt"]["bearerFormat"])
    assert ("header", "Authorization") == (schemes["key"]["in"], schemes["key"]["name"])
