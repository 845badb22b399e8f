"""Profiles of a worker under load, which py-spy samples from outside.

py-spy is no dependency of the project: install it in any environment, and name it with `--profile`.
"""

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path

from tests.load import accounting
from tests.load.load import drive
from tests.load.scenarios import Plan, Scenario, callers_of, target
from tests.load.stack import Stack

SECONDS = 8
RATE = 500
_FRAME = re.compile(r"(?P<function>.+?) \((?P<location>[^()]*)\)$")


async def profile(stack: Stack, scenario: Scenario, plan: Plan, py_spy: str, folder: Path) -> str:
    """Samples one worker under a scenario's load; writes the stacks to the folder and returns their summary."""
    pid = next(pid for pid, sample in accounting.snapshot(stack.pid).items() if sample.role == "worker")
    output = folder / f"{scenario.kind}-{scenario.protocol}-{scenario.sessions}.txt"
    callers = callers_of(scenario.protocol, target(stack, scenario), plan.clients)
    load = asyncio.create_task(drive(callers, sys.maxsize, SECONDS + 1.0))
    try:
        await record(py_spy, pid, SECONDS, output)
        await load
    finally:
        load.cancel()
        for caller in callers:
            await caller.close()
    return f"{output}: {summary(output.read_text())}"


async def record(py_spy: str, pid: int, seconds: int, output: Path) -> None:
    """Samples a process for a time; writes a line per stack: `frame;frame count`. Raises OSError, RuntimeError."""
    options = ["--rate", str(RATE), "--duration", str(seconds), "--format", "raw", "--gil"]
    process = await asyncio.create_subprocess_exec(
        py_spy,
        "record",
        *options,
        "--output",
        str(output),
        "--pid",
        str(pid),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"py-spy failed: {printed.decode(errors='replace')[-500:]}")


def summary(raw: str, most: int = 30) -> str:
    """Returns a table of the functions with the most samples: top of the stack, and anywhere in it, in percent."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_name(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    total = max(1, own.total())
    for frame in [frame for frame, count in within.items() if count == total]:
        del within[frame]  # the entry point, the same for all
    parts = [f"{total} samples"]
    for title, counts in (("on top", own), ("anywhere", within)):
        parts.append(f"{title}:")
        parts += [f"  {100 * count / total:5.1f} %  {name}" for name, count in counts.most_common(most)]
    return "\n".join(parts)


def _name(frame: str) -> str:
    """Shortens a frame to its function and the last two parts of its file's path."""
    match = _FRAME.match(frame)
    if match is None:
        return frame
    location = match["location"].rpartition(":")[0] or match["location"]
    return f"{match['function']} ({'/'.join(location.split('/')[-2:])})"
