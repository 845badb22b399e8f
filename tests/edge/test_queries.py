"""Query parameters of the REST listener: each list has those of the API document, and rejects others."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DOCUMENT = json.loads((Path(__file__).parents[2] / "edge" / "openapi.json").read_text())
PARAMETERS: dict[str, list[str]] = {
    path: [known["name"] for known in operations["get"]["parameters"] if known.get("in") == "query"]
    for path, operations in _DOCUMENT["paths"].items()
    if "get" in operations
}
LISTS = sorted(path for path, names in PARAMETERS.items() if names)
OTHERS = sorted(path for path, names in PARAMETERS.items() if not names)
VALUES = {"by": "day", "account": "true", "since": "2026-11-01", "until": "2026-11-02"}


def url(path: str, query: str) -> str:
    """Returns the URL of a path of the document."""
    return path.format(session_id="s", model="m") + "?" + query


def details(path: str, answer: Any) -> tuple[str, str | None]:
    """Returns the message and the parameter of an error in the dialect of the path."""
    if path.startswith("/fastapi/"):
        [one] = answer["detail"]
        assert "query" == one["loc"][0]
        return one["msg"], one["loc"][1]
    error = answer["error"]
    return (error["message"], error["param"]) if isinstance(error, dict) else (error, None)


@pytest.mark.parametrize("path", LISTS)
async def test_a_documented_parameter_reaches_the_service(
    client: aiohttp.ClientSession, worker: Worker, path: str
) -> None:
    """Every documented parameter is accepted, also percent-encoded; those that clients add are ignored."""
    query = "&".join(f"{name}={VALUES.get(name, '1')}" for name in PARAMETERS[path])
    for line in (query, query.replace("s", "%73"), f"api-version=2024-10-21&{query}&beta=true"):
        async with client.get(url(path, line)) as response:
            assert 200 == response.status, await response.text()
        assert set(PARAMETERS[path]) <= {field.name for field, _ in worker.request.ListFields()}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query", ["start=2026-11-01", "limit=5", "%73tart=1", "Model=m", "data.model=m", "since%5B%5D=1"]
)
async def test_an_unknown_parameter_of_a_list_is_rejected(
    client: aiohttp.ClientSession, worker: Worker, path: str, query: str
) -> None:
    """An ignored filter would change the meaning of the answer: the error names it, and those that the path has."""
    async with client.get(url(path, query)) as response:
        message, param = details(path, await response.json())
        assert (422 if path.startswith("/fastapi/") else 400) == response.status
    assert param in {None, "start", "limit", "Model", "data", "since"} | {"data.model", "since[]"}
    assert message.startswith("Unknown query parameter `")
    assert message.endswith(", ".join(f"`{name}`" for name in PARAMETERS[path]))
    assert [] == worker.calls


@pytest.mark.parametrize("path", OTHERS)
async def test_a_path_without_parameters_ignores_them(client: aiohttp.ClientSession, worker: Worker, path: str) -> None:
    """OpenAI's and other vendors' clients send page sizes and versions where the answer is complete without them."""
    async with client.get(
        url(path, "limit=20&after=x&order=desc&api-version=1&session_id=other&model=other")
    ) as response:
        assert 200 == response.status
