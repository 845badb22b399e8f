"""One caller who makes work, and what the others notice of it.

`python -m tests.faults.neighbour KIND HOST:PORT KEY` is that caller, in a process of its own: it prints a line once it
is at work, and goes on until it is stopped.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.clients import WrongError
from tests.load.client import RestCaller, Target
from tests.load.load import percentile
from tests.load.stack import model_id, parley, upstream

KINDS = ("giant", "huge", "flood")
"""A session of 8,000 messages that goes on; bodies of 4 MB; sixteen calls at a time without a pause."""

MOST = 3.0
"""How many times the others' p99 may be as long as without the neighbour."""

_MODEL = model_id("unary", "auto")
_CLIENTS = 4
_PAUSE_SECONDS = 0.02
_FLOOD = 16
_ROOT = Path(__file__).parents[2]


async def neighbour(kind: str, rounds: int = 5, seconds: float = 3.0) -> dict[str, Any]:
    """Measures others' latencies without and with the neighbour, in turns; both from the same run.

    Raises an error where a call of the others fails. That their p99 is at most `MOST` times as long is reported and not
    required: where the neighbour and the others share every core, it also measures the machine's scheduler.
    """
    quiet: list[list[float]] = []
    noisy: list[list[float]] = []
    with upstream() as target, parley(target.address) as stack:
        place = Target(stack.rest, "/v1/chat/completions", _MODEL, "unary", stack.key, session=True)
        await _measure(place, 1.0)  # connections, caches
        for _ in range(rounds):
            quiet.append(await _measure(place, seconds))
            with _noise(kind, stack.rest, stack.key):
                noisy.append(await _measure(place, seconds))
    return _figures(quiet, noisy)


def _figures(quiet: Sequence[Sequence[float]], noisy: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Compares all rounds together; `best` is the smallest ratio of one round."""
    together = [[time for times in rounds for time in times] for rounds in (quiet, noisy)]
    ends = [percentile(times, 0.99) for times in together]
    rounds = [percentile(one, 0.99) / percentile(other, 0.99) for one, other in zip(noisy, quiet, strict=True)]
    return {
        "calls": [len(times) for times in together],
        "p50_ms": [round(percentile(times, 0.5) * 1000, 1) for times in together],
        "p99_ms": [round(end * 1000, 1) for end in ends],
        "ratio": round(ends[1] / ends[0], 2),
        "best": round(min(rounds), 2),
        "within": ends[1] <= MOST * ends[0],
    }


async def _measure(place: Target, seconds: float) -> list[float]:
    """Returns how long each call of a few clients took, who pause between calls."""
    end = asyncio.get_running_loop().time() + seconds
    times: list[float] = []

    async def client() -> None:
        caller = RestCaller(place)
        try:
            while asyncio.get_running_loop().time() < end:
                times.append((await caller.call()).total)
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await caller.close()

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return times


@contextmanager
def _noise(kind: str, address: str, key: str) -> Iterator[None]:
    """Has the neighbour at work."""
    command = [sys.executable, "-m", "tests.faults.neighbour", kind, address, key]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            if not process.stdout.readline():
                raise WrongError(f"{kind}: the neighbour did not start")
            yield
        finally:
            process.kill()


def _main(kind: str, address: str, key: str) -> None:
    """Makes work until it is killed."""
    threads = [
        threading.Thread(target=_work, args=(kind, address, key)) for _ in range(_FLOOD if kind == "flood" else 1)
    ]
    for thread in threads:
        thread.start()


def _work(kind: str, address: str, key: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=60)
    session: dict[str, str] = {}
    if kind == "giant":
        session = {"chatSessionId": _call(connection, key, [_message("x" * 250)] * 8000)["chatSessionId"]}
    sys.stdout.write("at work\n")
    sys.stdout.flush()
    text = "x" * 4_000_000 if kind == "huge" else "hello"
    while True:
        _call(connection, key, [_message(text)], **session)


def _message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


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
