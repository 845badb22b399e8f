"""One caller with a high load, and its effect on the latency of others.

`python -m tests.faults.neighbour KIND HOST:PORT KEY` is that caller, in a separate process: it prints a line when it is
ready, starts after a line `work` on stdin, and stops after a line `rest`, which it answers after its calls have ended.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.clients import WrongError
from tests.load.client import RestCaller, Target
from tests.load.load import percentile
from tests.load.stack import model_id, parley, upstream

ASSERTED = ("giant", "huge", "flood")
"""A continued session of 8,000 messages; bodies of 4 MB; sixteen concurrent calls."""

KINDS = (*ASSERTED, "many")
"""Those, and bodies of 5,000 messages, each of which begins a session: measured only, see the README."""

_EVERY = {"giant": 0.15, "huge": 0.25, "many": 0.25, "flood": 0.25}
"""Seconds from one of its calls to the next. It makes the machine work, and leaves it room: where one caller fills
every core, a measurement is one of the machine's scheduler."""

MOST = 3.0
"""How many times the others' p99 may be as long as without the neighbour."""

_MODEL = model_id("unary", "auto")
_CLIENTS = 4
_PAUSE_SECONDS = 0.02
_FLOOD = 16
_TURNS = 4
_ROOT = Path(__file__).parents[2]


async def neighbour(kind: str, rounds: int = 5, seconds: float = 3.0) -> dict[str, Any]:
    """Measures the latencies of others without and with the neighbour, alternately in the same run.

    Ends after a round in which their p99 is at most `MOST` times as long, or after `rounds` rounds. Raises an error if
    a call of the others fails.
    """
    quiet: list[list[float]] = []
    noisy: list[list[float]] = []
    with upstream() as model, parley(model.address) as stack:
        target = Target(stack.rest, "/v1/chat/completions", _MODEL, "unary", stack.key, session=True)
        await _measure(target, 1.0)  # connections, caches
        with _noise(kind, stack.rest, stack.key) as turn:
            while len(noisy) < rounds and not (noisy and _ratio(noisy[-1], quiet[-1]) <= MOST):
                one, other = await _round(target, seconds, turn)
                quiet.append(one)
                noisy.append(other)
    return _figures(quiet, noisy)


async def _round(target: Target, seconds: float, turn: Callable[[bool], None]) -> tuple[list[float], list[float]]:
    """Measures in short periods without and with the neighbour, so that both include the machine's other load."""
    quiet: list[float] = []
    noisy: list[float] = []
    for _ in range(_TURNS):
        quiet += await _measure(target, seconds / _TURNS)
        turn(True)
        noisy += await _measure(target, seconds / _TURNS)
        turn(False)
    return quiet, noisy


def _ratio(noisy: Sequence[float], quiet: Sequence[float]) -> float:
    return percentile(noisy, 0.99) / percentile(quiet, 0.99)


def _figures(quiet: Sequence[Sequence[float]], noisy: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Compares all rounds together; `best` is the smallest ratio of one round."""
    together = [[time for times in rounds for time in times] for rounds in (quiet, noisy)]
    best = min(map(_ratio, noisy, quiet))
    return {
        "calls": [len(times) for times in together],
        "p50_ms": [round(percentile(times, 0.5) * 1000, 1) for times in together],
        "p99_ms": [round(percentile(times, 0.99) * 1000, 1) for times in together],
        "ratio": round(_ratio(together[1], together[0]), 2),
        "best": round(best, 2),
        "within": best <= MOST,
    }


async def _measure(target: Target, seconds: float) -> list[float]:
    """Returns the latency of each call of a few clients, which pause between calls."""
    end = asyncio.get_running_loop().time() + seconds
    times: list[float] = []

    async def client() -> None:
        caller = RestCaller(target)
        try:
            while asyncio.get_running_loop().time() < end:
                times.append((await caller.call()).total)
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await caller.close()

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return times


@contextmanager
def _noise(kind: str, address: str, key: str) -> Iterator[Callable[[bool], None]]:
    """Starts the neighbour; yields a function that starts or stops its load."""
    command = [sys.executable, "-m", "tests.faults.neighbour", kind, address, key]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        try:
            assert process.stdin
            assert process.stdout
            wants, answers = process.stdin, process.stdout

            def turn(works: bool) -> None:
                wants.write("work\n" if works else "rest\n")
                wants.flush()
                if not (works or answers.readline()):
                    raise WrongError(f"{kind}: the neighbour has ended")

            if not answers.readline():
                raise WrongError(f"{kind}: the neighbour did not start")
            yield turn
        finally:
            process.kill()


def _main(kind: str, address: str, key: str) -> None:
    """Makes calls while requested, until it is killed."""
    works = threading.Event()
    calls = [threading.Lock() for _ in range(_FLOOD if kind == "flood" else 1)]
    ready = threading.Barrier(len(calls) + 1)
    for call in calls:
        threading.Thread(target=_work, args=(kind, (address, key), works, call, ready), daemon=True).start()
    ready.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if line == "work\n":
            works.set()
            continue
        works.clear()
        for call in calls:
            with call:
                pass
        sys.stdout.write("resting\n")
        sys.stdout.flush()


def _work(
    kind: str, access: tuple[str, str], works: threading.Event, call: threading.Lock, ready: threading.Barrier
) -> None:
    address, key = access
    connection = http.client.HTTPConnection(address, timeout=60)
    session: dict[str, str] = {}
    if kind == "giant":
        session = {"chatSessionId": _call(connection, key, [_message("x" * 250)] * 8000)["chatSessionId"]}
    messages = _MESSAGES.get(kind, [_message("hello")])
    ready.wait()
    while works.wait():
        started = time.monotonic()
        with call:
            _call(connection, key, messages, **session)
        time.sleep(max(0.0, started + _EVERY[kind] - time.monotonic()))


def _message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


_MESSAGES = {"huge": [_message("x" * 4_000_000)], "many": [_message("hello")] * 5_000}


def _call(connection: http.client.HTTPConnection, key: str, messages: list[dict[str, str]], **more: str) -> Any:
    body = json.dumps({"model": _MODEL, "messages": messages, **more})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != http.client.OK:
        raise WrongError(f"{response.status}: {answer}")
    return answer


if __name__ == "__main__":
    _main(*sys.argv[1:])
