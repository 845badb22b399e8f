"""Requests that the edge has encoded as protobuf: they are bytes in a google.api.HttpBody."""

CONTENT_TYPE = "application/vnd.parley.request"
"""The content type of the HttpBody, its first field, and no name of a model, with which a request itself may begin."""
HEAD = b"\x0a%c%b\x12" % (len(CONTENT_TYPE), CONTENT_TYPE.encode())
"""What an encoded request begins with; the bytes of the request follow after their number."""


def decoded(data: bytes) -> bytes:
    """Returns the bytes of an encoded request itself."""
    at = len(HEAD)
    while data[at : at + 1] >= b"\x80":
        at += 1
    return data[at + 1 :]
