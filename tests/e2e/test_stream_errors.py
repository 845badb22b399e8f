"""Failures within a stream in each dialect, whose documents specify only the format of errors."""

from typing import Any

import aiohttp
import pytest

from tests import sse
from tests.e2e import vendor
from tests.processes import Parley
from tests.upstream import Events, ScriptedUpstream

REQUEST = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
MESSAGE = 'The model "scripted" broke off before its answer was whole; try again'
OPENAI = {"error": {"message": MESSAGE, "type": "server_error", "param": None, "code": "stream_broken"}}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", OPENAI),
        ("/openpipe/api/v1/chat/completions", OPENAI),
        ("/api/v1/chat/completions", {"error": MESSAGE}),
        ("/upchatty/api/v1/chat/completions", {"error": MESSAGE}),
        ("/fastapi/api/v1/chat/completions", {"detail": MESSAGE}),
    ],
)
async def test_an_error_event_has_the_format_of_the_dialect(
    stack: Parley, upstream: ScriptedUpstream, path: str, expected: dict[str, Any]
) -> None:
    """The last event is the error in the format of the dialect, without `[DONE]` after it."""
    upstream.answer(Events([*list(vendor.text("Hel", "lo").events)[:3], vendor.error("Boom", "server_error")]))
    headers = {"Authorization": f"Bearer {stack.key}", "Accept": "*/*"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(stack.http + path, json=REQUEST, headers=headers) as response,
    ):
        assert 200 == response.status
        *events, last = sse.read(await response.text())[0]
    assert ("Hello", expected) == (sse.text(events), last)
