"""Settings of the edge in `parley up`, for calls through the full stack."""

import base64
import json
import random
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from tests.processes import Parley, started, until
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


HOSTS = ("fastapi=pipes.example.com", "chipp=*.example.com", "fastapi=*.eu.example.com", "fastapi=eu.chipp.*")
CHOSEN = {
    "pipes.example.com:80": "detail",
    "other.example.com": "error",
    "a.eu.example.com": "detail",
    "eu.example.com": "error",
    "chipp.eu.example.com": "detail",
    "eu.chipp.test.": "detail",
    "chipp.fastapi.test": "error",
    "fastapi.": "error",
    "[::1]:8080": "error",
    f"{'a.' * 118}eu.example.com": "detail",  # 250 characters
    f"{'a.' * 124}eu.example.com": "error",  # longer than names of DNS: one of all other hosts
}
"""The keys of errors by the host, of which the longest name applies, and endings before beginnings."""


def test_a_large_image_reaches_the_upstream_and_a_page_may_read_the_answer(
    upstream: ScriptedUpstream, scripted_config: Path
) -> None:
    """With `--max-body 28MiB` a 20 MB image arrives unchanged; `--cors-origin` lets a page read the answer."""
    image = random.Random(1).randbytes(20_000_000)
    options = ["--config", str(scripted_config), "--workers", "1", "--max-body", "28MiB", "--cors-origin", APP]
    with started(*options, *(f"--dialect-host={chosen}" for chosen in HOSTS)) as parley:
        response = _send_image(parley, image)
        assert 200 == response.status
        assert APP == response.headers["access-control-allow-origin"]
        assert 413 == _send_image(parley, image + bytes(2_500_000)).status
        for host, dialect in CHOSEN.items():
            with parley.connection() as connection:
                connection.request("GET", "/api/v1/models", headers={"Host": host})
                assert dialect == next(iter(json.loads(connection.getresponse().read()))), host
    sent = upstream.requests[0].json["messages"][0]["content"][1]["image_url"]["url"]
    assert image == base64.b64decode(sent.removeprefix("data:image/png;base64,"))
    assert 1 == len(upstream.requests)


def test_an_address_opens_only_so_many_connections(scripted_config: Path) -> None:
    """With `--max-connections-per-address 3`, a further connection of that address is refused, and of others served."""
    options = ("--config", str(scripted_config), "--workers", "1", "--max-connections-per-address", "3")
    with started(*options) as parley:

        def is_served(connection: HTTPConnection) -> bool:
            with suppress(ConnectionError):
                connection.request("GET", "/livez")
                return connection.getresponse().read() == b""
            return False

        def connection(address: str) -> HTTPConnection:
            return HTTPConnection(urlsplit(parley.http).netloc, source_address=(address, 0))

        def is_refused() -> bool:
            with closing(connection("127.0.0.2")) as further:
                return not is_served(further)

        held = [connection("127.0.0.2") for _ in range(3)]
        assert [True] * 3 == [is_served(one) for one in held]
        until(is_refused, "a further connection is refused")
        assert [True] * 3 == [is_served(one) for one in held]
        assert is_served(connection("127.0.0.1"))
