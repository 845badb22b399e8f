"""The time in which a connection collects a body, for `coalesce`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from parley.backends.http.connection import Connection, hold_end

SECONDS = 10_000.0
"""So long that a test practically never spans a common moment."""


@pytest.fixture
async def connections() -> AsyncIterator[list[Connection]]:
    """Two connections that wait for their responses."""
    kept: list[asyncio.StreamWriter] = []  # a writer that is not kept closes its connection, since Python 3.12
    server = await asyncio.start_server(lambda _, writer: kept.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(2)]
    for connection in opened:
        connection.send(b"GET / HTTP/1.1\r\n\r\n", float("inf"))
    yield opened
    for connection in opened:
        connection.close()
    for writer in kept:
        writer.close()
    server.close()


async def test_holds_end_at_common_moments(connections: list[Connection]) -> None:
    """Holds that begin at different times end together, so that their streams share wake-ups."""
    ends = []
    for connection in connections:
        connection.hold(SECONDS)
        assert connection.hold_timer is not None
        ends.append(connection.hold_timer.when())
        await asyncio.sleep(0.02)
    assert ends[0] == ends[1]


@pytest.mark.parametrize("now", [0.0, 0.013, 0.0251, 1234.567])
def test_a_hold_lasts_at_least_half_of_its_time(now: float) -> None:
    """The common moment is in the second half of the time, or a millisecond later."""
    assert 0.025 <= hold_end(now, 0.05) - now <= 0.0511


@pytest.mark.parametrize("seconds", [0.033, 0.05, 1.0])
def test_a_hold_after_a_hold_lasts_the_whole_time(seconds: float) -> None:
    """A hold that begins at a common moment, a little before it, as timers may, or soon after, ends one time later."""
    moment = hold_end(1234.567, seconds)
    ends = [hold_end(moment + late, seconds) for late in (-0.0009, 0.0, 0.01)]
    assert [pytest.approx(moment + seconds)] * 3 == ends
