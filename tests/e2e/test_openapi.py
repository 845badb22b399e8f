"""The live service agrees with the API document that the edge serves."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.checks import ignored_auth

from tests import sse
from tests.processes import Parley, environment, started
from tests.upstream import Answer, Json, Received, ScriptedUpstream, completion, hello

ROOT = Path(__file__).parents[2]
SETTINGS = Path(__file__).with_name("schemathesis.toml")
DOCUMENT = json.loads((ROOT / "edge" / "openapi.json").read_text(encoding="utf-8"))
# The same operations as under /v1 and /api/v1/sessions, with errors of another form.
REPEATED = "^/((upchatty|fastapi|openpipe)/|api/v1/(chat|models|usage))"
RUNS = {
    "one of each operation": ["--exclude-path-regex", REPEATED, "--max-examples", "8"],
    # Without warnings: each operation is tested by itself, so that its sessions are unknown.
    "the other dialects": [
        *("--include-path-regex", REPEATED, "--max-examples", "5", "--phases", "examples,fuzzing", "--warnings", "off"),
    ],
}
TOKEN = {"token": "Paris", "logprob": -0.1, "bytes": [80, 97, 114, 105, 115], "top_logprobs": []}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with the model of the document's examples, and a scripted upstream."""
    with ScriptedUpstream() as upstream:
        upstream.default = varied
        file = tmp_path_factory.mktemp("openapi") / "parley.yaml"
        file.write_text(
            f'backends:\n  up: {{kind: openai, base_url: "{upstream.url}"}}\ndefault_model: myapp-123\n'
            "models:\n  - id: myapp-123\n    targets: [{backend: up}]\n"
        )
        with started("--config", str(file)) as running:
            yield running


def varied(request: Received) -> Answer | dict[str, Any]:
    """Returns a different complete answer for each request length: text, tools, probabilities, refusals."""
    plain_text = hello(request)
    if not isinstance(plain_text, Json):
        return plain_text
    probable = completion("Paris")
    probable["choices"][0]["logprobs"] = {"content": [TOKEN], "refusal": None}
    ways: list[Answer | dict[str, Any]] = [
        plain_text,
        completion(None, tool_calls=[CALL]),
        probable,
        completion(None, refusal="I cannot."),
    ]
    return ways[len(request.raw) % len(ways)]


def test_the_document_is_served_without_a_key(parley: Parley) -> None:
    """GET /openapi.json returns the committed file as JSON, HEAD its headers; other methods are rejected."""
    with parley.connection() as connection:
        connection.request("GET", "/openapi.json")
        response = connection.getresponse()
        assert (200, "application/json") == (response.status, response.headers["content-type"])
        assert DOCUMENT == json.loads(response.read())
        connection.request("HEAD", "/openapi.json")
        head = connection.getresponse()
        expected = (200, response.headers["content-length"], b"")
        assert expected == (head.status, head.headers["content-length"], head.read())
        connection.request("POST", "/openapi.json")
        rejected = connection.getresponse()
        assert (405, "GET, HEAD") == (rejected.status, rejected.headers["allow"])


def test_each_operation_is_refused_without_a_key(parley: Parley) -> None:
    """Each documented operation answers 401 and the challenge when the credential is missing."""
    document = schemathesis.openapi.from_dict(DOCUMENT)
    answers = {}
    for (path, item), method in product(DOCUMENT["paths"].items(), ("get", "post", "patch", "delete")):
        if method in item:
            names = dict.fromkeys(re.findall(r"{(\w+)}", path), "unknown")
            case = document[path][method].Case(path_parameters=names, body={}, media_type="application/json")
            response = case.call(base_url=parley.http)
            answers[method, path] = response.status_code, "Bearer" in str(response.headers.get("www-authenticate"))
    assert dict.fromkeys(answers, (401, True)) == answers


@pytest.mark.parametrize("run", RUNS)
def test_schemathesis_finds_no_violation(parley: Parley, tmp_path: Path, run: str) -> None:
    """Responses to generated requests have documented statuses, types, headers and schemas, and no 5xx."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(SETTINGS), "run"]
    done = subprocess.run(
        [*command, f"{parley.http}/openapi.json", "--url", parley.http, "--no-color", *RUNS[run]],
        env=environment(PARLEY_KEY=parley.key, PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}\n{parley.log[-2000:]}"
    assert "No issues found" in done.stdout


def checked_call(parley: Parley, method: str, path: str, body: Any = None, **names: str) -> Any:
    """Makes a documented call, checks the answer against the document, and returns it."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    body_arguments = {} if body is None else {"body": body, "media_type": "application/json"}
    case = operation.Case(path_parameters=names, **body_arguments)
    headers = {"Authorization": f"Bearer {parley.key}"}
    response = case.call_and_validate(base_url=parley.http, headers=headers, excluded_checks=[ignored_auth])
    assert 200 == response.status_code
    return response


def test_successful_answers_follow_the_document(parley: Parley) -> None:
    """Each kind of call succeeds, from the first turn of a session to its deletion, with a documented answer."""
    question = {"model": "myapp-123", "messages": [{"role": "user", "content": "Hi"}]}
    session = checked_call(parley, "POST", "/api/v1/chat/completions", question).json()["chatSessionId"]
    assert "myapp-123" in [model["id"] for model in checked_call(parley, "GET", "/api/v1/models").json()["data"]]
    assert "myapp-123" == checked_call(parley, "GET", "/api/v1/models/{model}", model="myapp-123").json()["id"]
    assert session in [found["id"] for found in checked_call(parley, "GET", "/api/v1/sessions").json()["sessions"]]
    path = "/api/v1/sessions/{session_id}"
    assert 1 == checked_call(parley, "GET", path, session_id=session).json()["turn_count"]
    assert 2 == len(checked_call(parley, "GET", f"{path}/messages", session_id=session).json()["messages"])
    export = checked_call(parley, "GET", f"{path}/export", session_id=session)
    assert ["user", "assistant"] == [json.loads(line)["role"] for line in export.text.splitlines()]
    assert (
        session
        == checked_call(parley, "POST", f"{path}/fork", {"through_turn": 1}, session_id=session).json()["forked_from"]
    )
    assert session == checked_call(parley, "DELETE", path, session_id=session).json()["id"]


def test_events_of_a_stream_follow_the_document(parley: Parley) -> None:
    """Each event but the last has a chunk with the documented schema."""
    question = {
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    response = checked_call(parley, "POST", "/v1/chat/completions", question)
    reference = {"$ref": "#/components/schemas/ChatCompletionChunk", "components": DOCUMENT["components"]}
    chunk = Draft202012Validator(reference)
    found = sse.chunks(response.text)
    assert [[]] * len(found) == [[error.message for error in chunk.iter_errors(each)] for each in found]
    assert "usage" in found[-1]
