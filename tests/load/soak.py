"""`make soak`: a steady mix of calls for an hour, and what the processes and the database hold each minute.

A process that leaks shows a slope after the first minutes, in which caches and pools fill. Sessions are deleted after
some minutes, so that the database stops growing too.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any
from urllib.request import urlopen

import aiohttp
import uvloop

from parley_client import AsyncClient
from tests.load import accounting, canned
from tests.load.client import Caller, RestCaller, Target, Timing
from tests.load.grpc_client import grpc_callers
from tests.load.load import Outcome, percentile
from tests.load.stack import Stack, model_id, parley, upstream
from tests.postgres import serving

CALLS_OF_A_CONNECTION = 50
"""After which a REST client connects again."""
_REST_PATH = "/v1/chat/completions"
_QUESTION = {"messages": [{"role": "user", "content": canned.QUESTION}]}
_TURNS = 3


@dataclass
class Pool:
    """Idle clients of one kind. A call uses an idle client, or a new one."""

    create: Callable[[], Caller]
    calls: int = CALLS_OF_A_CONNECTION
    _idle: deque[tuple[Caller, int]] = field(default_factory=deque)

    async def call(self) -> Timing:
        """Makes a call. Raises the errors of the client."""
        caller, left = self._idle.popleft() if self._idle else (self.create(), self.calls)
        try:
            timing = await caller.call()
        except BaseException:
            await caller.close()
            raise
        if left > 1:
            self._idle.append((caller, left - 1))
        else:
            await caller.close()
        return timing

    async def close(self) -> None:
        """Closes the idle clients."""
        for caller, _ in self._idle:
            await caller.close()


class Odd:
    """Calls that do not end as most do: conversations, abandoned streams, refused calls."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession, client: AsyncClient) -> None:
        self._url = f"http://{stack.rest}{_REST_PATH}"
        self._headers = {"authorization": f"Bearer {stack.key}"}
        self._http = http
        self._client = client

    async def conversation(self) -> Timing:
        """Makes a session of some turns, reads its messages and deletes it."""
        began = time.monotonic()
        session = self._client.sessions.open(model=model_id("unary", "auto"))
        for _ in range(_TURNS):
            canned.check_text("unary", (answer := await session.create(canned.QUESTION)).text, answer.finish_reason)
        assert session.id
        assert 2 * _TURNS == len([one async for one in self._client.sessions.messages(session.id)])
        await self._client.sessions.delete(session.id)
        return _timing(began)

    async def abandoned(self) -> Timing:
        """Closes the connection of a stream after its first bytes."""
        began = time.monotonic()
        body = {**_QUESTION, "model": model_id("paced", "auto"), "stream": True}
        async with self._http.post(self._url, json=body, headers=self._headers) as response:
            response.raise_for_status()
            await response.content.readany()
            response.close()
        return _timing(began)

    async def refused(self) -> Timing:
        """Sends a wrong key, of which an address may send one a second, an unknown model and an invalid body."""
        began = time.monotonic()
        wrong = {"authorization": f"Bearer sk-{time.monotonic_ns():043d}"}
        for statuses, headers, body in (
            ((401, 429), wrong, {**_QUESTION, "model": model_id("unary", "off")}),
            ((404,), self._headers, {**_QUESTION, "model": "unknown"}),
            ((400,), self._headers, {**_QUESTION, "model": model_id("unary", "off"), "temperature": "hot"}),
        ):
            async with self._http.post(self._url, json=body, headers=headers) as response:
                await response.read()
                assert response.status in statuses, response.status
        return _timing(began)


def _timing(began: float) -> Timing:
    seconds = time.monotonic() - began
    return Timing(seconds, seconds)


def pools(stack: Stack) -> Iterator[Pool]:
    """Yields a pool for each kind of complete answer, over REST and gRPC, without sessions and with a new one."""
    for kind, sessions in (("unary", "off"), ("burst", "off"), ("paced", "off"), ("unary", "auto"), ("burst", "auto")):
        name, has_session = model_id(kind, sessions), sessions == "auto"
        rest = Target(stack.rest, _REST_PATH, name, kind, stack.key, has_session)
        grpc = Target(stack.grpc, "", name, kind, stack.key, has_session)
        yield Pool(lambda rest=rest: RestCaller(rest))  # type: ignore[misc]
        yield Pool(lambda grpc=grpc: grpc_callers(grpc, 1)[0])  # type: ignore[misc]


async def load(stack: Stack, rate: float, seconds: float, outcome: Outcome) -> None:
    """Starts calls at a steady rate, whether or not earlier ones have ended; each kind in turn."""
    began = time.monotonic()
    async with (
        aiohttp.ClientSession() as http,
        AsyncClient(stack.grpc, key=stack.key, tls=False) as client,
    ):
        odd, callers = Odd(stack, http, client), list(pools(stack))
        kinds: list[Callable[[], Awaitable[Timing]]] = [pool.call for pool in callers]
        kinds += [odd.conversation, odd.abandoned, odd.refused]
        async with asyncio.TaskGroup() as group:
            number = 0
            while (now := time.monotonic()) < began + seconds:
                group.create_task(outcome.record(kinds[number % len(kinds)]()))
                number += 1
                await asyncio.sleep(max(0.0, began + number / rate - now))
        for pool in callers:
            await pool.close()


def memory(pid: int) -> dict[str, float]:
    """Returns the resident set (MB of 2²⁰ bytes), descriptors and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "rss": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def sample(root: int) -> dict[str, float]:
    """Returns the sums of all processes by role: `worker.rss`, `envoy.descriptors` and so on."""
    total: dict[str, float] = {}
    for pid in accounting.tree(root):
        for name, value in memory(pid).items():
            key = f"{accounting.role(pid, root)}.{name}"
            total[key] = round(total.get(key, 0.0) + value, 1)
    return total


async def watch(stack: Stack, size: Callable[[], float], outcome: Outcome, interval: float) -> None:
    """Prints a line of figures each `interval` seconds until it is cancelled. A scrape precedes each."""
    began, seen = time.monotonic(), 0
    samples: list[dict[str, float]] = []
    processes = accounting.tree(stack.pid)
    try:
        while True:
            await asyncio.sleep(max(0.0, began + (len(samples) + 1) * interval - time.monotonic()))
            await asyncio.to_thread(_scrape, stack.metrics)
            figures = {**sample(stack.pid), "database": round(await asyncio.to_thread(size), 2)}
            latencies = [timing.total for timing in outcome.timings[seen:]]
            seen += len(latencies)
            figures |= {"calls": len(outcome.timings), "failed": len(outcome.failures)}
            if latencies:
                figures |= {"p50_ms": _ms(percentile(latencies, 0.5)), "p99_ms": _ms(percentile(latencies, 0.99))}
            samples.append({"minute": round((time.monotonic() - began) / 60, 2), **figures})
            _print(samples[-1])
    finally:
        same = processes == accounting.tree(stack.pid)
        _print({"slopes_an_hour": slopes(samples), "processes_unchanged": same, "failures": outcome.failures[:5]})


def slopes(samples: list[dict[str, float]]) -> dict[str, float]:
    """Returns the linear growth of each figure in an hour, over the second half of the samples."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:  # two points make a line
        return {}
    minutes = [one["minute"] for one in half]
    names = [name for name in half[0] if "." in name or name == "database"]
    return {name: round(linear_regression(minutes, [one[name] for one in half]).slope * 60, 2) for name in names}


def _scrape(address: str) -> None:
    with urlopen(f"{address}/metrics") as response:
        response.read()


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)


def _print(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


@contextmanager
def running(store: str, ttl: str, workers: int) -> Iterator[tuple[Stack, Callable[[], float]]]:
    """Runs everything; yields the Parley, and a function that returns the size of its database in MB."""
    with ExitStack() as exits:
        more: dict[str, Any] = {"sessions": {"ttl": ttl}}
        if store == "postgres":
            server = exits.enter_context(serving())
            more["store"] = {"kind": "postgres", "url": server.empty()}
        source = exits.enter_context(upstream())
        stack = exits.enter_context(parley(source.address, workers, more))

        def size() -> float:
            if store == "postgres":
                return int(server.sql("SELECT pg_database_size('parley')")) / 2**20
            return sum(file.stat().st_size for file in stack.state.glob("parley.db*")) / 2**20

        yield stack, size


async def soak(options: argparse.Namespace) -> Outcome:
    """Runs the load and prints the figures. Returns the results of the calls."""
    outcome = Outcome()
    with running(options.store, options.ttl, options.workers) as (stack, size):
        watching = asyncio.create_task(watch(stack, size, outcome, options.interval))
        try:
            await load(stack, options.rate, options.minutes * 60, outcome)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    return outcome


def main() -> int:
    """Runs the soak; returns the exit status, 1 if a call failed."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=50.0, help="calls a second")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--ttl", default="5m", help="the age at which sessions are deleted")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two lines")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return 1 if uvloop.run(soak(parser.parse_args())).failures else 0


if __name__ == "__main__":
    sys.exit(main())
