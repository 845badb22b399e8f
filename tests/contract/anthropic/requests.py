"""Requests to the backend for Anthropic's Messages API, and a tool for them."""

from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import ParleyError
from tests.contract.backends import call
from tests.upstream import ScriptedUpstream

SCHEMA = {"type": "object", "properties": {"zebra": {"type": "string", "maxLength": 5}, "apple": {"minimum": 0.5}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}


async def sent(backend: Anthropic, upstream: ScriptedUpstream, **fields: Any) -> Any:
    """Returns the body of a non-streaming request."""
    await backend.complete(call(**fields))
    return upstream.requests[-1].json


async def rejection(backend: Anthropic, upstream: ScriptedUpstream, **fields: Any) -> ParleyError:
    """Returns the error of a call that is rejected before the upstream is called."""
    with pytest.raises(ParleyError) as caught:
        await backend.complete(call(**fields))
    assert [] == upstream.requests
    return caught.value
