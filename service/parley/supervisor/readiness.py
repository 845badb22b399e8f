"""What is ready and what is not, by check: `/readyz?verbose` of the listener of metrics."""

import asyncio
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TypeVar

from parley.supervisor import envoy_admin

T = TypeVar("T")

_SECONDS = 2.0
_NO_ANSWER = "it does not answer"


async def readiness(workers: Mapping[str, Path | None], envoy: Path | None) -> tuple[bool, str]:
    """Returns whether calls are served, and a line for each check, as Kubernetes' components print it.

    A worker that passes all its checks, and Envoy, are enough.

    Args:
        workers: The socket of each worker; None for one that does not run.
        envoy: The socket of Envoy's admin interface; None without Envoy.
    """
    answers = await asyncio.gather(*map(_worker, workers.values()))
    lines, is_ready = [], False
    for name, checks in zip(workers, answers, strict=True):
        is_ready = is_ready or not any(checks.values())
        lines += [_line(f"worker {name}: {check}", problem) for check, problem in checks.items()]
    if envoy is not None:
        serves = await _within(envoy_admin.ready(envoy), default=False)
        is_ready = is_ready and serves
        lines.append(_line("envoy", "" if serves else "it does not serve, or has no healthy worker"))
    return is_ready, "".join(f"{line}\n" for line in [*lines, "ready" if is_ready else "not ready"])


async def _worker(socket: Path | None) -> Mapping[str, str]:
    """Returns the problem of each check of a worker, which is empty for one that passes."""
    if socket is None:
        return {"process": "it does not run"}
    response = await _within(envoy_admin.exchange(socket, "GET /readyz HTTP/1.1\r\n\r\n"), default=b"")
    _, found, body = response.decode(errors="replace").partition("\r\n\r\n")
    if not found:
        return {"process": _NO_ANSWER}
    checks = (line.partition(" ") for line in body.splitlines())
    return {"process": ""} | {name: problem for name, _, problem in checks}


async def _within(work: Awaitable[T], *, default: T) -> T:
    try:
        async with asyncio.timeout(_SECONDS):
            return await work
    except (OSError, TimeoutError):
        return default


def _line(name: str, problem: str) -> str:
    return f"[-] {name}: {problem}" if problem else f"[+] {name}"
