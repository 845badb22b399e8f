"""Settings of the edge in `parley up`, for calls through the full stack."""

import base64
import json
import random
from http.client import HTTPResponse
from pathlib import Path

from tests.processes import Parley, started
from tests.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
APP = "https://app.example.com"


def _send_image(parley: Parley, image: bytes) -> HTTPResponse:
    """Sends an image to the model; returns the complete answer."""
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"messages": [{"role": "user", "content": parts}], "store": False})
    with parley.connection() as connection:
        connection.request("POST", CHAT, body, parley.headers() | {"Origin": APP})
        response = connection.getresponse()
        response.read()
        return response


def test_a_large_image_reaches_the_upstream_and_a_page_may_read_the_answer(
    upstream: ScriptedUpstream, scripted_config: Path
) -> None:
    """With `--max-body 28MiB` a 20 MB image arrives unchanged; `--cors-origin` lets a page read the answer."""
    image = random.Random(1).randbytes(20_000_000)
    options = ["--config", str(scripted_config), "--workers", "1", "--max-body", "28MiB", "--cors-origin", APP]
    with started(*options, "--dialect-host", "openpipe=pipes.example.com") as parley:
        response = _send_image(parley, image)
        assert 200 == response.status
        assert APP == response.headers["access-control-allow-origin"]
        assert 413 == _send_image(parley, image + bytes(2_500_000)).status
        with parley.connection() as connection:
            connection.request("GET", "/api/v1/models", headers={"Host": "pipes.example.com"})
            assert {"message", "type", "param", "code"} == json.loads(connection.getresponse().read())["error"].keys()
    sent = upstream.requests[0].json["messages"][0]["content"][1]["image_url"]["url"]
    assert image == base64.b64decode(sent.removeprefix("data:image/png;base64,"))
    assert 1 == len(upstream.requests)
