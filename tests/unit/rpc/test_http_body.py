"""The message that carries the bytes of REST."""

import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.rpc.http_body import http_body


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_the_message_is_that_of_the_library(size: int) -> None:
    """The message has the content type and the data, whatever the size of its length."""
    data = b"\xff" * size
    assert HttpBody(content_type="text/event-stream", data=data) == HttpBody.FromString(
        http_body("text/event-stream")(data)
    )
