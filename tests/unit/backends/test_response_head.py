"""The headers of a response: those of its head only, and for as long as the response lasts."""

import asyncio
from types import NoneType

import pytest

from parley.backends.http.connection import Connection
from parley.backends.http.errors import MalformedBody, MalformedHead
from parley.backends.http.pool import Pool
from parley.backends.http.response import Response

_NEVER = float("inf")


class Idle(asyncio.Transport):
    """A transport that sends nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drops the bytes."""

    def abort(self) -> None:
        """Does nothing."""


async def _receive(*parts: str) -> Connection:
    connection = Connection()
    connection.connection_made(Idle())
    connection.send(b"", _NEVER)
    for part in parts:
        connection.data_received(part.encode())
    return connection


def _response(connection: Connection) -> Response:
    async def connect() -> Connection:
        return connection

    return Response(connection, Pool(connect, 1, _NEVER))


async def test_trailers_and_informational_heads_are_no_headers() -> None:
    """A trailer that names an encoding changes nothing, even if it arrives with the head."""
    head = "HTTP/1.1 200 OK\r\nX-A: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    early = "HTTP/1.1 103 Early Hints\r\nContent-Encoding: br\r\n\r\n"
    connection = await _receive(early + head + "2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\n\r\n")
    response = _response(connection)
    assert {"x-a": "1", "transfer-encoding": "chunked"} == response.headers
    assert (True, b"{}") == (response.is_readable, response.take_complete())


async def test_the_headers_outlive_the_connection_s_next_exchange() -> None:
    """The error of a response is made from its headers after the connection was given back."""
    connection = await _receive("HTTP/1.1 429 Busy\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n")
    response = _response(connection)
    connection.send(b"", _NEVER)
    connection.data_received(b"HTTP/1.1 200 OK\r\nretry-after: 8\r\ncontent-length: 0\r\n\r\n")
    assert {"retry-after": "7", "content-length": "0"} == response.headers
    assert not response.is_readable


@pytest.mark.parametrize(("framing", "error"), [("transfer-encoding: chunked\r\n", MalformedBody), ("", NoneType)])
async def test_a_body_without_its_headers_still_ends_where_they_say(framing: str, error: type) -> None:
    """A stream drops them. The end of the connection is the end of a body only if they do not tell another one."""
    connection = await _receive(f"HTTP/1.1 200 OK\r\nx-a: 1\r\n{framing}\r\n")
    response = _response(connection)
    response.drop_headers()
    assert not response.headers
    connection.connection_lost(None)
    assert (error is NoneType, error) == (connection.is_complete, type(connection.error))


async def test_a_body_ends_as_its_own_headers_say_not_as_those_of_the_response_before() -> None:
    """The connection of a stream, which has dropped its headers, is used again."""
    connection = await _receive("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
    _response(connection).drop_headers()
    connection.data_received(b"{}")
    connection.send(b"", _NEVER)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n[]")
    connection.connection_lost(None)
    assert (True, None, b"[]") == (connection.is_complete, connection.error, connection.take())


async def test_the_last_of_several_headers_counts() -> None:
    """A proxy may add a header that the server has sent too."""
    connection = await _receive("HTTP/1.1 200 OK\r\nRetry-After: 7\r\nRetry-After: 8\r\n\r\n")
    assert {"retry-after": "8"} == _response(connection).headers


async def test_a_head_with_too_many_headers_fails() -> None:
    """It fails even if all of it arrives at once."""
    connection = await _receive("HTTP/1.1 200 OK\r\n" + "".join(f"x-{n}: 1\r\n" for n in range(300)) + "\r\n")
    with pytest.raises(MalformedHead, match="too many headers"):
        await connection.wait_head()


@pytest.mark.parametrize(
    "fields",
    [
        "content-length: 5\r\nContent-Length:5 \r\n",
        "content-length: 5, 5\r\n",
        "content-length: 5\nX-B: 1\nContent-Length: 5,5\n",
    ],
    ids=["two fields", "a list", "both"],
)
@pytest.mark.parametrize("size", [1, 40, 1000])
async def test_a_length_may_be_repeated(fields: str, size: int) -> None:
    """Several equal lengths are one, whatever parts of the head arrive together; the connection can be used again."""
    response = f"HTTP/1.1 200 OK\r\nX-A: 1\r\n{fields}X-C: 1\r\n\r\nhello"
    connection = await _receive()
    for _ in range(2):
        for at in range(0, len(response), size):
            connection.data_received(response[at : at + size].encode())
        received = _response(connection)
        assert ("1", "5", "1") == tuple(received.headers[name] for name in ("x-a", "content-length", "x-c"))
        assert (True, True, b"hello") == (connection.is_complete, connection.can_continue, connection.take())
        connection.send(b"", _NEVER)


@pytest.mark.parametrize("length", [3, 99])
@pytest.mark.parametrize("is_first", [False, True])
async def test_a_length_beside_chunks_is_ignored(length: int, *, is_first: bool) -> None:
    """A gateway may keep the header of the server and send the body in chunks of its own (RFC 9112, 6.3)."""
    fields = [f"content-length: {length}\r\n", "transfer-encoding: chunked\r\n"]
    head = "".join(fields if is_first else reversed(fields))
    connection = await _receive(f"HTTP/1.1 200 OK\r\n{head}\r\n5\r\nhello\r\n0\r\n\r\n")
    assert (True, True, b"hello") == (connection.is_complete, connection.can_continue, connection.take())


@pytest.mark.parametrize(
    "fields",
    [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: 5, x\r\n",
        "content-length: ,\r\n",
    ],
)
async def test_lengths_that_differ_fail(fields: str) -> None:
    """It is unknown where the body ends."""
    connection = await _receive(f"HTTP/1.1 200 OK\r\n{fields}\r\nhello")
    with pytest.raises(MalformedHead, match="Content-Length"):
        await connection.wait_head()


async def test_a_body_after_a_repeated_length_is_checked() -> None:
    """Bytes after the body are the failure that they are after every other head."""
    connection = await _receive("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello?")
    assert (True, b"hello", False) == (connection.is_complete, connection.take(), connection.is_open)


async def test_a_repeated_length_after_an_informational_head_fails() -> None:
    """The parser is not started a second time for the same response."""
    early = "HTTP/1.1 103 Early Hints\r\ncontent-length: 0, 0\r\n\r\n"
    for parts in ((early, "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello"), (early * 2,)):
        connection = await _receive(*parts)
        with pytest.raises(MalformedHead, match="Content-Length"):
            await connection.wait_head()


async def test_a_head_that_repeats_a_length_has_a_size() -> None:
    """It is not kept without a limit until its end arrives."""
    connection = await _receive("HTTP/1.1 200 OK\r\n", *["content-length: 5\r\n" * 100] * 40)
    with pytest.raises(MalformedHead, match="more than"):
        await connection.wait_head()
