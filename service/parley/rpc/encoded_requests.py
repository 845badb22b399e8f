"""Requests that the edge has encoded as protobuf: they are bytes in a google.api.HttpBody."""

CONTENT_TYPE = "application/protobuf; message=parley.v1.CreateChatCompletionRequest"
"""The content type of the HttpBody, its first field. It has a space: a request may begin with a name of a model, which
has none.
"""
HEAD = b"\x0a%c%b\x12" % (len(CONTENT_TYPE), CONTENT_TYPE.encode())
"""What an encoded request begins with; the bytes of the request follow after their number."""


def decoded(data: bytes) -> bytes:
    """Returns the bytes of an encoded request itself."""
    at = len(HEAD)
    while data[at : at + 1] >= b"\x80":
        at += 1
    return data[at + 1 :]
