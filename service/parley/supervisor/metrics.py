"""The listener of metrics, where one scrape has those of all workers and of Envoy, and of readiness."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from parley.supervisor import envoy_admin
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from parley.supervisor.plan import DEFAULT_METRICS
from parley.supervisor.process import log_lines_lost, print_notice

_SECONDS = 8.0  # for a scrape of everything; Prometheus waits 10 by default
_WORKER_SECONDS = 5.0
_OWN = b"""\
# HELP parley_log_lines_lost_total Log lines that could not be written.
# TYPE parley_log_lines_lost_total counter
parley_log_lines_lost_total %d
"""
_TYPE = "Content-Type: text/plain; version=0.0.4; charset=utf-8"


class Listener:
    """Answers requests. Metrics are collected once at a time; requests that arrive meanwhile share the next collection.

    Attributes:
        address: The bound address; None without metrics.
        collect: Returns the metrics in Prometheus' text format.
        check: Returns whether calls are served, and a line for each check.
    """

    def __init__(self) -> None:
        self.address: Address | None = None
        self.collect: Callable[[], Awaitable[bytes]] = _nothing
        self.check: Callable[[], Awaitable[tuple[bool, str]]] = _starting
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the one request of a connection."""
        with suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(_SECONDS):
                method, path, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                writer.write(await self._response(method, *path.partition(b"?")[::2]))
                await writer.drain()
        writer.close()

    async def _response(self, method: bytes, path: bytes, query: bytes) -> bytes:
        if path not in {b"/metrics", b"/readyz"}:
            return _response("404 Not Found", b"The metrics are at /metrics, readiness at /readyz?verbose\n")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", b"")
        if path == b"/readyz":
            is_ready, lines = await self.check()
            body = (lines if query == b"verbose" else lines.splitlines(keepends=True)[-1]).encode()
            return _response("200 OK" if is_ready else "503 Service Unavailable", body, has_body=method == b"GET")
        return _response("200 OK", await self.scrape(), has_body=method == b"GET")

    async def scrape(self) -> bytes:
        """Returns metrics that are collected after this call, which calls that wait share."""
        if self._next is None:
            self._next = asyncio.create_task(self._collect_next())
        return await asyncio.shield(self._next)

    async def _collect_next(self) -> bytes:
        async with self._lock:
            self._next = None  # a request from now on needs a later collection
            return await self.collect()


async def _nothing() -> bytes:
    return b""


async def _starting() -> tuple[bool, str]:
    return False, "not ready\n"


@asynccontextmanager
async def listening(address: Address | None) -> AsyncIterator[Listener]:
    """Serves `/metrics` and `/readyz` with HTTP.

    Args:
        address: Where to listen; None for the default address. If that is in use, there are no metrics, because several
            Parleys may run on a machine.

    Raises:
        CommandError: The address cannot be bound.
    """
    listener, wanted = Listener(), address or DEFAULT_METRICS
    try:
        server = await asyncio.start_server(listener.answer, wanted.host, wanted.port)
    except OSError as error:
        if address is not None:
            raise CommandError(f"--metrics: {wanted} cannot be bound ({_cause(error)}); choose another") from error
        cause = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({_cause(error)})"
        print_notice(f"there are no metrics, because {wanted} {cause}; choose another address with --metrics")
        yield listener
        return
    try:
        listener.address = wanted._replace(port=server.sockets[0].getsockname()[1])
        yield listener
    finally:
        server.close()


def _cause(error: OSError) -> str:
    """Returns the system's text: asyncio's own repeats the address."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _response(status: str, body: bytes, *, has_body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if has_body else b"")


async def collect(workers: Mapping[str, Path], envoy: Path | None) -> bytes:
    """Returns the metrics of workers, of this process and of Envoy in one text. What does not answer is left out.

    Args:
        workers: The socket of each worker, by the value of the label `worker`.
        envoy: The socket of Envoy's admin interface; None without Envoy.
    """
    texts = await asyncio.gather(*map(_read, workers.values()))
    own = merged([*zip(workers, texts, strict=True), ("supervisor", _OWN % log_lines_lost())])
    if envoy is not None:
        with suppress(OSError):
            return own + (await envoy_admin.statistics(envoy)).encode()
    return own


async def _read(socket: Path) -> bytes:
    """Returns the metrics that a worker serves on its socket; nothing if it does not answer."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_WORKER_SECONDS):
            response = await envoy_admin.exchange(socket, "GET /metrics HTTP/1.1\r\n\r\n")
            return response.partition(b"\r\n\r\n")[2]
    return b""


def merged(texts: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns one text with the families of all workers, each once, and each sample with the label `worker`.

    Args:
        texts: The name of each worker, and its metrics in Prometheus' text format.
    """
    families: dict[bytes, list[bytes]] = {}
    for worker, text in texts:
        label = f'worker="{worker}"'.encode()
        family: list[bytes] = []
        is_new = False
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                name = line.split(b" ", 3)[2]
                is_new = name not in families
                family = families.setdefault(name, [])
            if not line.startswith(b"#"):
                family.append(_labelled(line, label))
            elif is_new:
                family.append(line)
    return b"".join(line + b"\n" for lines in families.values() for line in lines)


def _labelled(sample: bytes, label: bytes) -> bytes:
    name, brace, rest = sample.partition(b"{")
    if brace:
        return name + b"{" + label + b"," + rest
    name, _, value = sample.partition(b" ")
    return name + b"{" + label + b"} " + value
