"""`python -m tests.load`: the benchmarks. Results are JSON lines on stdout; progress and a table are on stderr."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import uvloop

from tests.load import report, start, turns
from tests.load.accounting import VanishedError
from tests.load.profiles import profile
from tests.load.scenarios import PLANS, PROTOCOLS, Result, measure, quick, scenarios
from tests.load.stack import COALESCED, KINDS, SESSIONS, StackError, Stacks, running

_SLOWLY = (
    *("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"),
    *("-e", "inject=fdatasync,fsync:delay_exit=5000"),
)


def main() -> int:
    """Runs the benchmarks; returns the exit status, 1 if a call failed, or the stack did not start or ended."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = _calls(options)
        if "start" in (options.only or ("start",)):
            _print(uvloop.run(start.measure(quick=options.quick)))
        uvloop.run(_stores(options))
        _slow_disk(options)
    except (StackError, VanishedError) as error:
        _report(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    if results:
        _report("\n" + report.table(results))
    return 1 if any(result.errors for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, about two minutes")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*KINDS, COALESCED, "floor", "start", *turns.KINDS),
        help="this kind only; floor: no sessions and no stores; may be repeated",
    )
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS, help="this protocol only")
    parser.add_argument("--sessions", action="append", choices=SESSIONS, help="with this setting of sessions only")
    parser.add_argument("--store", choices=turns.STORES, help="this store only, on the disk as it is")
    parser.add_argument(
        "--workers", type=int, default=1, help="how many workers Parley has; default: one, as the floor"
    )
    parser.add_argument("--profile", metavar="PY_SPY", help="also watch a worker with this py-spy, in every scenario")
    parser.add_argument("--profile-dir", type=Path, default=Path(), help="where the stacks go; default: here")
    return parser


def _calls(options: argparse.Namespace) -> list[Result]:
    """Measures calls through Parley, which starts only if calls are selected."""
    only = options.only or KINDS
    all_kinds = (*KINDS, COALESCED)
    kinds = [kind for kind in only if kind in all_kinds] or (all_kinds if "floor" in only else ())
    if not kinds:
        return []
    if "floor" in only or COALESCED in kinds:
        options.sessions = ["off"]
    with running(options.workers) as stacks:
        return uvloop.run(_run(stacks, kinds, options))


async def _stores(options: argparse.Namespace) -> None:
    """Measures the stores alone, and prints a line for each."""
    for kind in turns.KINDS:
        for store in _only(options.store, turns.STORES) if kind in (options.only or turns.KINDS) else ():
            began = time.monotonic()
            result = await turns.measure(kind, store, quick=options.quick)
            _print(result)
            _report(f"{kind} {store}: {result} ({time.monotonic() - began:.1f} s)")


def _slow_disk(options: argparse.Namespace) -> None:
    """Measures group commit with 5 ms added to every sync, like a disk without a cache."""
    if options.store or "durable" not in (options.only or turns.KINDS):
        return
    if shutil.which("strace") is None:
        _report("strace is not installed: durable is not measured on a slow disk")
        return
    command = [*_SLOWLY, sys.executable, "-m", "tests.load", "--only", "durable", "--store", "sqlite"]
    subprocess.run([*command, *(["--quick"] if options.quick else [])], check=True)


def _only(chosen: str | None, all_of_them: Sequence[str]) -> Sequence[str]:
    return [chosen] if chosen else all_of_them


async def _run(stacks: Stacks, kinds: Sequence[str], options: argparse.Namespace) -> list[Result]:
    """Runs the selected measurements and prints a line for each."""
    results = []
    for scenario in scenarios(kinds, options.protocol or PROTOCOLS, options.sessions or SESSIONS):
        plan = PLANS[scenario.kind]
        began = time.monotonic()
        result = await measure(stacks, scenario, quick(plan) if options.quick else plan)
        results.append(result)
        _print(result)
        if options.profile:
            _report(await profile(stacks.parley, scenario, plan, options.profile, options.profile_dir))
        name = f"{scenario.kind} {scenario.protocol} sessions={scenario.sessions}"
        multiple = f", {result.times_floor} times the floor" if result.times_floor else ""
        seconds = time.monotonic() - began
        _report(f"{name}: {result.cpu_us} µs/{result.per}{multiple}, {result.errors} errors ({seconds:.1f} s)")
    return results


def _print(result: Result | start.Start | turns.Durable | turns.Depth) -> None:
    """Writes a line of JSON."""
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    sys.stdout.flush()


def _report(text: str) -> None:
    """Prints progress to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
