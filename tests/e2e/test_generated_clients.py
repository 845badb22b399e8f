"""Calls of TypeScript and Python clients that are generated from /openapi.json."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e import vendor
from tests.e2e.node_packages import HERE, installed
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]
PARAMETERS = {"type": "object", "properties": {"unit": {"type": "string"}, "city": {"type": "string"}}}
UNKNOWN = 'Unknown model "nobody"'


def run(command: list[str], folder: Path, **more: str) -> str:
    """Runs a command to its end; returns its output."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False, timeout=5 * PATIENCE
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def document(stack: Parley, folder: Path) -> Path:
    """The path of a file with the served API document."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(stack.request("GET", "/openapi.json")[1]))
    return file


def settings(stack: Parley) -> dict[str, str]:
    """Returns the environment of a client's program."""
    return {"PARLEY_URL": stack.http, "OPENAI_API_KEY": stack.key}


def schemas_sent(upstream: ScriptedUpstream) -> list[Any]:
    """Returns the JSON Schemas of the tools that the upstream has received, keys in order."""
    return [json.dumps(tool["function"]["parameters"]) for tool in upstream.requests[0].json["tools"]]


def test_a_client_of_openapi_typescript(
    stack: Parley, upstream: ScriptedUpstream, installed: Path, tmp_path: Path
) -> None:
    """The generated types allow tool schemas and content parts, and calls succeed."""
    upstream.answer(vendor.complete_answer())
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "client.ts").write_text((HERE / "openapi_client.ts").read_text())
    program = tmp_path / "node_modules" / ".bin"
    run([str(program / "openapi-typescript"), str(document(stack, tmp_path)), "-o", "schema.d.ts"], tmp_path)
    strict = ["--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"]
    run([str(program / "tsc"), *strict, "--skipLibCheck", "client.ts"], tmp_path)
    got = json.loads(run(["node", "client.js"], tmp_path, **settings(stack)))
    assert (200, None, "Hello! How can I assist you today?", 1163, 1) == (
        got["status"],
        got["error"],
        got["content"],
        got["total"],
        got["sessions"],
    )
    assert (UNKNOWN, "model_not_found") == (got["refused"]["error"]["message"], got["refused"]["error"]["code"])
    assert [json.dumps(PARAMETERS)] == schemas_sent(upstream)


def test_a_client_of_openapi_python_client(stack: Parley, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The client is generated completely, and its calls succeed."""
    upstream.answer(vendor.complete_answer())
    generator = str(Path(sys.executable).with_name("openapi-python-client"))
    config = tmp_path / "config.json"
    config.write_text('{"content_type_overrides": {"application/jsonl": "application/octet-stream"}, "post_hooks": []}')
    options = ["--meta", "none", "--config", str(config), "--fail-on-warning"]
    options += ["--path", str(document(stack, tmp_path)), "--output-path", str(tmp_path / "generated")]
    run([generator, "generate", *options], tmp_path)
    script = Path(__file__).with_name("openapi_client.py")
    got = json.loads(run([sys.executable, str(script)], tmp_path, PYTHONPATH=str(tmp_path), **settings(stack)))
    assert ("Hello! How can I assist you today?", "stop", 1163, 1) == (
        got["content"],
        got["finish_reason"],
        got["total"],
        got["sessions"],
    )
    assert UNKNOWN == got["refused"]["error"]["message"]
    assert [json.dumps(PARAMETERS)] == schemas_sent(upstream)
