"""Floods a Parley of its own as strangers would, and measures good calls and memory meanwhile; then races for limits.

The Parley runs on free ports of the loopback interface, with a new database and a scripted upstream. Each flood has a
limited number of connections and streams, and a limited time. The last step, `limits`, sends calls of 32 clients
against each kind of limit. Progress is on stderr, a table of the floods on stdout; the exit status is 1 if a bound or a
limit does not hold.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from tests.edge.security.probe import limits, report
from tests.edge.security.probe.calls import GoodCallers, Phase
from tests.edge.security.probe.floods import FLOODS
from tests.edge.security.probe.memory import MIB, Memory
from tests.edge.security.probe.report import Result
from tests.load.stack import Stack, StackError, Upstream, parley, upstream

_ROOT = Path(__file__).parents[4]
_WARM_SECONDS = 2.0
_RELEASE_SECONDS = 5.0


def main() -> int:
    """Runs the floods; returns the exit status."""
    options = _parser().parse_args()
    names = options.only or [*FLOODS, limits.NAME]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with upstream() as source:
            results = [_run(name, source, options) for name in names if name in FLOODS]
        are_limits_kept = limits.NAME not in names or limits.are_kept()
    except StackError as error:
        _report(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    if results:
        sys.stdout.write(report.table(results) + "\n")
    broken = [f"{result.flood} ({', '.join(found)})" for result in results if (found := result.broken())]
    broken += [] if are_limits_kept else [limits.NAME]
    _report(f"Bounds that do not hold: {'; '.join(broken)}" if broken else "All bounds hold")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.edge.security.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="floods:\n" + "\n".join(f"  {name:20}{flood.__doc__}" for name, flood in FLOODS.items()),
    )
    steps = (*FLOODS, limits.NAME)
    help_text = "this flood only, or `limits`; repeatable"
    parser.add_argument("--only", action="append", choices=steps, metavar="FLOOD", help=help_text)
    parser.add_argument("--seconds", type=float, default=8.0, help="the time of a flood; default: 8")
    parser.add_argument("--quiet", type=float, default=5.0, help="the time before each flood; default: 5")
    parser.add_argument("--workers", type=int, help="how many workers; default: as `parley up` does")
    return parser


def _run(name: str, source: Upstream, options: argparse.Namespace) -> Result:
    """Runs a flood against a new Parley. Raises StackError."""
    with parley(source.address, options.workers) as stack:
        result = uvloop.run(_measure(name, stack, options))
    _report(" | ".join(result.cells()))
    return result


async def _measure(name: str, stack: Stack, options: argparse.Namespace) -> Result:
    """Measures good calls before and during a flood, and the memory of the processes until a worker releases it."""
    memory, callers = Memory.of(stack.pid), GoodCallers(stack)
    await callers.measure(_WARM_SECONDS)
    quiet = await callers.measure(options.quiet)
    _, before = memory.now()
    async with memory.watched():
        with _flood(name, stack):
            flooded = await callers.measure(options.seconds)
    await callers.close()
    for failure in sorted(set(flooded.failures))[:3]:
        _report(f"  {name}: {failure}")
    after = await _released(memory, before)
    return _result(name, quiet, flooded, memory, (before, after))


@contextmanager
def _flood(name: str, stack: Stack) -> Iterator[None]:
    """Runs the flood in a process of its own."""
    command = [sys.executable, "-m", "tests.edge.security.probe.floods", name, stack.rest, stack.grpc, stack.key]
    with subprocess.Popen(command, cwd=_ROOT) as process:
        try:
            yield
        finally:
            process.kill()


async def _released(memory: Memory, before: int) -> int:
    """Waits until the largest worker has released what the flood cost it, or for some seconds; returns its bytes."""
    end = time.monotonic() + _RELEASE_SECONDS
    while (now := memory.now()[1]) > before + 16 * MIB and time.monotonic() < end:
        await asyncio.sleep(0.2)
    return now


def _result(name: str, quiet: Phase, flooded: Phase, memory: Memory, worker: tuple[int, int]) -> Result:
    """Returns the result of a flood; `worker` is the memory of the largest worker before and after it."""
    before, after = worker
    mib = float(MIB)
    return Result(
        name,
        quiet.rate,
        flooded.rate,
        quiet.p99_ms,
        flooded.p99_ms,
        len(flooded.failures),
        memory.envoy / mib,
        memory.worker / mib,
        (memory.worker - before) / mib,
        (after - before) / mib,
    )


def _report(text: str) -> None:
    """Prints progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
