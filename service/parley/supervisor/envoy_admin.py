"""Envoy's admin interface, on a Unix socket."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

_TIMEOUT_SECONDS = 2
_HEADERS = "Host: envoy\r\nContent-Length: 0\r\nConnection: close\r\n"
_STATISTICS = "^(server|http|cluster|listener|overload)[.]"
_WORKERS = "workers"  # the cluster whose health decides whether a worker gets calls


async def bound_ports(admin: Path) -> dict[str, int]:
    """Returns the bound ports: `{"http": 43211, "grpc": 43212}`. Raises OSError if Envoy does not answer."""
    body = json.loads(await _ask(admin, "/listeners?format=json"))
    sockets = {status["name"]: status["local_address"].get("socket_address") for status in body["listener_statuses"]}
    return {name: socket["port_value"] for name, socket in sockets.items() if socket}


async def workers(admin: Path) -> dict[Path, bool]:
    """Returns for each worker's socket whether it is healthy in Envoy. Raises OSError if Envoy does not answer."""
    body = json.loads(await _ask(admin, "/clusters?format=json"))
    return {
        Path(host["address"]["pipe"]["path"]): _is_healthy(host["health_status"])
        for cluster in body["cluster_statuses"]
        if cluster["name"] == _WORKERS
        for host in cluster.get("host_statuses", [])
        if "pipe" in host["address"]
    }


async def ready(admin: Path) -> bool:
    """Reports whether Envoy serves and, if it has endpoints, one of them is healthy. Does not raise."""
    try:
        if not (await _ask(admin, "/ready")).startswith("LIVE"):
            return False
        known = await workers(admin)
    except OSError:
        return False
    return not known or any(known.values())


async def is_draining(admin: Path) -> bool:
    """Reports whether Envoy sends its callers away. Does not raise."""
    with suppress(OSError):
        return (await _ask(admin, "/ready")).startswith("DRAINING")
    return False


async def traffic(admin: Path) -> tuple[int, int]:
    """Returns the open connections of callers, and the number of their requests so far. Raises OSError."""
    values = await _values(admin, "^http[.](http|grpc)[.]downstream_(cx_active|rq_total)$")
    connections, requests = (
        sum(value for name, value in values.items() if name.endswith(kind)) for kind in ("cx_active", "rq_total")
    )
    return connections, requests


async def running_calls(admin: Path) -> int:
    """Returns the number of running calls of callers. Raises OSError."""
    return sum((await _values(admin, "^http[.](http|grpc)[.]downstream_rq_active$")).values())


async def fail_readiness(admin: Path) -> None:
    """Has `/readyz` and `/healthz` return 503, and each response end its connection. Raises OSError."""
    await _ask(admin, "/healthcheck/fail", "POST")


async def statistics(admin: Path) -> str:
    """Returns the statistics that have changed since the start, in Prometheus' text format. Raises OSError."""
    return await _ask(admin, f"/stats/prometheus?usedonly&filter={quote(_STATISTICS)}")


async def closed_connections(admin: Path) -> int:
    """Returns the number of connections so far that were closed because there were too many. Raises OSError."""
    filters = "^listener[.].*[.]downstream_(cx_overflow|global_cx_overflow|cx_overload_reject)$"
    return sum((await _values(admin, filters)).values())


async def drain_listeners(admin: Path) -> None:
    """Has responses end their connection: more and more of them during the drain time, then all. Raises OSError."""
    await _ask(admin, "/drain_listeners?graceful&inboundonly", "POST")


async def close_listeners(admin: Path) -> None:
    """Accepts no more connections, and has each response end its connection. Raises OSError."""
    await fail_readiness(admin)
    await _ask(admin, "/drain_listeners?inboundonly", "POST")


def _is_healthy(status: dict[str, Any]) -> bool:
    """Reports whether a health status is `HEALTHY` without any `failed_…` flag."""
    return status.get("eds_health_status") == "HEALTHY" and not any(
        value for key, value in status.items() if key.startswith("failed_")
    )


async def _values(admin: Path, filters: str) -> dict[str, int]:
    """Returns the counters and gauges whose names match a regular expression. Raises OSError."""
    body = json.loads(await _ask(admin, f"/stats?format=json&filter={quote(filters)}"))
    return {stat["name"]: stat["value"] for stat in body["stats"] if "name" in stat}


async def _ask(admin: Path, path: str, method: str = "GET") -> str:
    """Returns a page of the admin interface. Raises OSError for every failure."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return _body(await exchange(admin, f"{method} {path} HTTP/1.1\r\n{_HEADERS}\r\n")).decode()
    except (ValueError, OSError) as error:
        raise OSError(f"Envoy's admin socket does not answer: {error}") from error


async def exchange(socket: Path, request: str) -> bytes:
    """Sends a request; returns all that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request.encode())
        return await reader.read()
    finally:
        writer.close()


def _body(response: bytes) -> bytes:
    """Returns the body of a response in chunks (RFC 9112, 7.1). Raises ValueError if it is incomplete."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        raise ValueError("no chunked response")
    chunks: list[bytes] = []
    while True:
        size, found, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not found or len(rest) < length + 2:
            raise ValueError("the response is incomplete")
        if not length:
            return b"".join(chunks)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
