"""Connections to the primary of several servers, such as those of Patroni: `postgresql://parley@one,two,three/parley`."""

from asyncio.staggered import staggered_race
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_DELAY_SECONDS = 0.3  # after which the next server is tried too: one whose machine is down never answers
_ATTRIBUTE = "target_session_attrs"


async def connect(url: str, **options: Any) -> Connection:
    """Opens a connection; with several hosts in the URL, to the first that answers and is the primary.

    asyncpg tries one host after another, and a host that is down would take the whole time for the connection.

    Args:
        url: The URL. Its parameter `target_session_attrs` replaces `primary`.
        options: The options of `asyncpg.connect`.

    Raises:
        Exception: What `asyncpg.connect` raises. Of several hosts, the error of the last one, or that it is no primary.
    """
    urls = _each_host(url)
    if len(urls) == 1:
        return await asyncpg.connect(url, **options)
    if _ATTRIBUTE not in url:
        options[_ATTRIBUTE] = "primary"
    attempts: list[Callable[[], Any]] = [partial(asyncpg.connect, one, **options) for one in urls]
    connection, _, errors = await staggered_race(attempts, _DELAY_SECONDS)
    if connection is None:
        raise _most_telling([error for error in errors if error is not None])
    return connection  # type: ignore[no-any-return]


def _each_host(url: str) -> list[str]:
    """Returns the URL with each of its hosts alone."""
    scheme, _, rest = url.partition("://")
    end = min((index for mark in "/?" if (index := rest.find(mark)) >= 0), default=len(rest))
    user, at, hosts = rest[:end].rpartition("@")
    return [f"{scheme}://{user}{at}{host}{rest[end:]}" for host in hosts.split(",")]


def _most_telling(errors: list[BaseException]) -> BaseException:
    """Returns the last error other than that a server is no primary, if there is one."""
    others = [error for error in errors if not isinstance(error, asyncpg.TargetServerAttributeNotMatched)]
    return (others or errors)[-1]
