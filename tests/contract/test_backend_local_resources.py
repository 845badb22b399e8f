"""Failures of this machine: no descriptors, memory or ports. They are no failures of a backend."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from parley.backends.errors import local_resources
from parley.backends.openai.backend import OpenAI
from parley.config import HttpHealthCheck
from parley.core.errors import LocalPortsExhausted, LocalResourcesExhausted, UpstreamUnavailable
from tests.contract.backends import call, failure
from tests.upstream import Events, ScriptedUpstream, chunks, ending


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Lowers the limit of open files to those that are open; it is the highest number that counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9/v1", "http://no-such-name.test:9/v1"])
async def test_no_descriptors(base_url: str, stream: bool) -> None:
    """The error says what to raise, for an address and for a name that cannot be resolved without a socket."""
    backend = OpenAI(base_url)
    with no_descriptors():
        failed = await failure(backend, call(), stream=stream)
    await backend.close()
    assert LocalResourcesExhausted is type(failed)
    assert "LimitNOFILE" in (failed.cause or "")
    assert 1 == failed.retry_after


async def test_no_descriptors_for_a_health_check() -> None:
    """The check says nothing about the backend."""
    backend = OpenAI("http://127.0.0.1:9/v1", health=HttpHealthCheck())
    with no_descriptors(), pytest.raises(LocalResourcesExhausted):
        await backend.check()
    with pytest.raises(UpstreamUnavailable):
        await backend.check()
    await backend.close()


async def test_a_unix_socket_without_descriptors(tmp_path: Path) -> None:
    """The built-in model's server is not charged either."""
    backend = OpenAI("http://local/v1", unix_socket=tmp_path / "socket")
    with no_descriptors():
        failed = await failure(backend, call(), stream=False)
    await backend.close()
    assert LocalResourcesExhausted is type(failed)


async def test_a_refused_connection_is_the_backend_s_failure() -> None:
    """It counts for all calls, since no request can cause it; a status does not."""
    backend = OpenAI("http://127.0.0.1:9/v1")
    failed = await failure(backend, call(), stream=False)
    await backend.close()
    assert (UpstreamUnavailable, True) == (type(failed), getattr(failed, "is_unreachable", None))


def _error(number: int, text: str = "") -> OSError:
    return OSError(number, text or os.strerror(number))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_error(errno.EMFILE), LocalResourcesExhausted),
        (_error(errno.ENFILE), LocalResourcesExhausted),
        (_error(errno.ENOMEM), LocalResourcesExhausted),
        (_error(errno.ENOBUFS), LocalResourcesExhausted),
        (_error(errno.ENOSPC), LocalResourcesExhausted),
        (_error(errno.EADDRNOTAVAIL, "Connect call failed ('10.0.0.5', 8000)"), LocalPortsExhausted),
        (_error(errno.EADDRNOTAVAIL, "Connect call failed ('::1', 8000, 0, 0)"), None),  # a machine without IPv6
        (_error(errno.ECONNREFUSED), None),
        (_error(errno.EHOSTUNREACH), None),
        (ExceptionGroup("two", [OSError(errno.EMFILE, ""), OSError(errno.EMFILE, "")]), LocalResourcesExhausted),
        (ExceptionGroup("two", [OSError(errno.EMFILE, ""), OSError(errno.ECONNREFUSED, "")]), None),
        (MemoryError(), LocalResourcesExhausted),
    ],
    ids=repr,
)
def test_errors(error: Exception, expected: type[Exception] | None) -> None:
    """Only missing resources are local; of several addresses all must fail for that reason."""
    found = local_resources.find(error)
    assert expected == (found and type(found))


async def test_a_call_has_the_number_of_parleys() -> None:
    """The header counts this Parley; health checks have none."""
    with ScriptedUpstream() as upstream:
        upstream.answer(Events([*chunks("Hi"), *ending()]))
        backend = OpenAI(upstream.url)
        assert [one async for one in backend.stream(call())]
        await backend.close()
        assert "1" == upstream.requests[0].headers["x-parley-hops"]
