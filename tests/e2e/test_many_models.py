"""Models that a wildcard stands for, through the full stack: listed from the backend's own list, and called."""

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.processes import Parley, started, until
from tests.upstream import Json, Received, ScriptedUpstream, completion

_LAST_DAY = datetime.now(UTC).date() + timedelta(days=1)
CONFIG = """\
backends:
  vendor: {{kind: openai, base_url: "{url}", discover: true}}
models:
  - id: "vendor/*"
    targets: [{{backend: vendor, model: "*", rename: {{max_tokens: max_completion_tokens}}, drop: [seed]}}]
    fallbacks: [large]
    whole_answers: whole
  - {{id: "bare/*", targets: [{{backend: vendor, model: "bare-*"}}]}}
  - id: large
    targets: [{{backend: vendor, model: large}}]
    aliases: [{{id: huge, retires: {last_day}}}]
"""
_LIST = {
    "data": [
        {"id": "org/small", "owned_by": "org", "context_window": 500, "max_completion_tokens": 50},
        {"id": "large", "context_window": 100_000},
    ]
}
_UNKNOWN = {
    "error": {"message": "The model `bare-typo` does not exist", "type": "invalid_request_error", "param": "model"}
}


def _answer(request: Received) -> Any:
    if request.method == "GET":
        return Json(_LIST)
    return Json(_UNKNOWN, status=404) if request.json["model"] == "bare-typo" else completion("Hello")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A vendor's server with two models."""
    with ScriptedUpstream() as server:
        server.default = _answer
        yield server


@pytest.fixture(scope="module")
def client(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Parley that has read the vendor's list."""
    file = tmp_path_factory.mktemp("models") / "parley.yaml"
    file.write_text(CONFIG.format(url=upstream.url, last_day=_LAST_DAY))
    with started("--config", str(file), "--workers", "1") as running, _client(running) as found:
        until(lambda: "vendor/org/small" in _ids(found), "the vendor's list")
        yield found


def _client(parley: Parley) -> httpx.Client:
    return httpx.Client(base_url=f"{parley.http}/v1", headers={"authorization": f"Bearer {parley.key}"})


def _ids(client: httpx.Client) -> list[str]:
    return [model["id"] for model in client.get("/models").json()["data"]]


def _chat(client: httpx.Client, model: str, text: str = "Hi", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return client.post("/chat/completions", json=body)


def test_the_vendor_s_models_are_listed_with_what_it_says_about_them(client: httpx.Client) -> None:
    """Names with slashes can be read alone, too. A wildcard of which no name is known is listed itself."""
    assert ["vendor/org/small", "vendor/large", "bare/*", "large"] == _ids(client)
    small = client.get("/models/vendor/org/small").json()
    assert ("org", 500, 50) == (
        small["owned_by"],
        small["context_length"],
        small["top_provider"]["max_completion_tokens"],
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("vendor%2Forg%2Fsmall", "vendor/org/small"),
        ("bare/*", "bare/*"),
        ("vendor/../large", None),
        ("vendor/%2e%2e/large", None),
        ("vendor/a%20b", None),
        ("LARGE", None),
    ],
)
def test_a_path_names_a_model_as_a_request_does(client: httpx.Client, path: str, expected: str | None) -> None:
    """Slashes may be encoded; segments that lead elsewhere are part of no name."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)  # sends the path as it is
    connection.request("GET", f"/v1/models/{path}", headers=dict(client.headers))
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    assert (HTTPStatus.OK if expected else HTTPStatus.NOT_FOUND, expected) == (response.status, body.get("id"))


def test_a_name_is_called_with_the_parameters_of_its_target(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    """The answer has the requested id; the vendor gets its own name, and its own names of parameters."""
    response = _chat(client, "vendor/org/small", max_tokens=5, seed=1)
    body = upstream.requests[-1].json
    assert (HTTPStatus.OK, "vendor/org/small") == (response.status_code, response.json()["model"])
    assert ("org/small", 5) == (body["model"], body["max_completion_tokens"])
    assert body.keys().isdisjoint({"max_tokens", "seed"})


def test_what_does_not_fit_is_answered_by_the_fallback_at_once(
    client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    """The vendor's list has the context of both."""
    before = len(upstream.requests)
    response = _chat(client, "vendor/org/small", "word " * 1000)
    assert "large" == response.json()["model"]
    assert ["large"] == [request.json["model"] for request in upstream.requests[before:] if request.method == "POST"]


def test_an_unknown_name_is_not_found(client: httpx.Client) -> None:
    """Without a fallback the vendor's 404 is the caller's, with the code of OpenAI's documents."""
    response = _chat(client, "bare/typo")
    error = response.json()["error"]
    assert (HTTPStatus.NOT_FOUND, "model_not_found") == (response.status_code, error["code"])
    assert 'Unknown model "bare/typo"' == error["message"]


def test_an_alias_is_announced(client: httpx.Client) -> None:
    """The header passes the edge."""
    response = _chat(client, "huge")
    assert ("large", f'{_LAST_DAY}; use="large"') == (
        response.json()["model"],
        response.headers["x-parley-deprecated"],
    )
