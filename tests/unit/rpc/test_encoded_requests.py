"""Requests that the edge has encoded."""

from types import SimpleNamespace
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.core.errors import InvalidRequest
from parley.rpc import encoded_requests
from parley.rpc.decoding import decoder
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 20_000, 300_000])
def test_an_encoded_request_is_decoded(size: int) -> None:
    """Its bytes are the rest of the HttpBody, of any length; a request that is not encoded does not look like one."""
    request = CreateChatCompletionRequest(model="m", user="x" * size).SerializeToString()
    body = HttpBody(content_type=encoded_requests.CONTENT_TYPE, data=request).SerializeToString()
    assert (False, True) == (request.startswith(encoded_requests.HEAD), body.startswith(encoded_requests.HEAD))
    assert request == encoded_requests.decoded(body)


def test_the_request_of_an_empty_body_is_empty() -> None:
    """The edge writes the field without bytes, which protobuf's library leaves out."""
    assert b"" == encoded_requests.decoded(encoded_requests.HEAD + b"\0")


async def test_text_that_is_no_utf_8_is_a_fault_of_the_json() -> None:
    """The edge passes on strings as they are; the caller has sent JSON, and hears of JSON."""
    decode = decoder(CreateChatCompletionRequest.FromString, "CreateChatCompletionJson")
    call: Any = SimpleNamespace(metadata={})
    with pytest.raises(InvalidRequest, match="must be JSON in UTF-8") as caught:
        await decode(call, encoded_requests.HEAD + b"\3\x0a\1\xff")
    assert ["json_invalid"] == [violation.kind for violation in caught.value.violations]
