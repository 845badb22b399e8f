"""The deadline of an exchange on a connection, whose timer serves many exchanges."""

import asyncio

import pytest

from parley.backends.http.connection import Connection
from tests.unit.backends.test_response_head import Idle

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_SECONDS = 0.03


@pytest.mark.parametrize("exchanges_before", [0, 1, 2])
async def test_each_exchange_has_its_deadline(exchanges_before: int) -> None:
    """An exchange fails at its deadline, also after the timer of an earlier one has fired or been stopped."""
    connection, loop = Connection(), asyncio.get_running_loop()
    connection.connection_made(Idle())
    for _ in range(exchanges_before):
        connection.send(b"", loop.time() + _SECONDS)
        connection.data_received(_ANSWER)
        assert 204 == await connection.wait_head()
        await asyncio.sleep(2 * _SECONDS)  # the timer fires, and finds nothing to do
    connection.send(b"", loop.time() + 60)
    connection.wait(loop.time() + _SECONDS)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await connection.wait_head()


async def test_a_later_deadline_replaces_an_earlier_one() -> None:
    """A timer that fires early fails nothing; the exchange goes on until the later deadline."""
    connection, loop = Connection(), asyncio.get_running_loop()
    connection.connection_made(Idle())
    connection.send(b"", loop.time() + _SECONDS)
    connection.wait(later := loop.time() + 4 * _SECONDS)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await connection.wait_head()
    assert loop.time() >= later - _SECONDS


async def test_a_deadline_passes_only_while_something_waits() -> None:
    """What the reader does between two waits takes time that is no silence; an old deadline fails the next wait."""
    connection, loop = Connection(), asyncio.get_running_loop()
    connection.connection_made(Idle())
    connection.send(b"", loop.time() + _SECONDS)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.sleep(2 * _SECONDS)
    assert connection.error is None
    async with asyncio.timeout(10):
        await connection.wait()
    assert isinstance(connection.error, TimeoutError)


async def test_a_complete_response_has_no_deadline() -> None:
    """A reader that is slow reads a response that has arrived; another request can follow on the connection."""
    connection, loop = Connection(), asyncio.get_running_loop()
    connection.connection_made(Idle())
    connection.send(b"", loop.time())
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    connection.check(loop.time())
    assert (True, True, b"{}") == (connection.is_open, connection.can_continue, connection.take())


async def test_the_timer_of_a_wait_that_has_ended_fails_nothing() -> None:
    """It stays set while the reader handles what has arrived, and while the connection is idle in the pool."""
    connection, loop = Connection(), asyncio.get_running_loop()
    connection.connection_made(Idle())
    connection.send(b"", loop.time() + _SECONDS)
    waiting = connection.wait()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{")
    await waiting
    await asyncio.sleep(2 * _SECONDS)
    assert (True, None) == (connection.is_open, connection.error)
    waiting = connection.wait(loop.time() + _SECONDS)
    connection.data_received(b"}")
    await waiting
    await asyncio.sleep(2 * _SECONDS)
    assert (True, b"{}") == (connection.is_open, connection.take())
