"""`python -m tests.faults`: kills, races, sleepers. JSON lines on stdout, progress on stderr; `--seed` repeats one."""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# The database is started and stopped as its own user, which takes a fork. See tests/conftest.py.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tests.faults import neighbour, recorder, scenarios
from tests.faults.clients import WrongError
from tests.faults.scenarios import Database, report
from tests.faults.stores import STORES, database

SCENARIOS = ("recorder", "kills", "race", "stopped", "replicas", "neighbour")


def main() -> int:
    """Runs the scenarios; returns the exit status, 1 after a violation."""
    options = _parser().parse_args()
    report(f"seed {options.seed}: repeat this run with --seed {options.seed}")
    broken = 0
    for store in options.store or STORES:
        for scenario in options.only or SCENARIOS:
            if scenario == "neighbour" and store != "sqlite":
                continue  # starts its own `parley up` on SQLite
            broken += not asyncio.run(_run(store, scenario, options))
    report("no guarantee was violated" if not broken else f"{broken} scenarios failed")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--store", action="append", choices=STORES, help="this store only")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario only; may be repeated")
    parser.add_argument("--workers", type=int, default=200, help="how many workers are killed; default: 200")
    parser.add_argument("--databases", type=int, default=100, help="how often PostgreSQL is killed; default: 100")
    parser.add_argument("--reads", type=int, default=10_000, help="how often a turn is read at another worker")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the recorder runs; default: 300")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="repeats a run")
    return parser


async def _run(store: str, scenario: str, options: argparse.Namespace) -> bool:
    """Runs one scenario and prints its line; returns whether no guarantee was violated."""
    report(f"{scenario} on {store}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="parley-faults-") as name, database(store) as running:
        try:
            found = await _scenario(scenario, Path(name), running, options)
        except WrongError as error:
            found = {"broken": str(error)}
    line = {"scenario": scenario, "store": store, "seed": options.seed, **found}
    sys.stdout.write(json.dumps({**line, "seconds": round(time.monotonic() - started, 1)}) + "\n")
    sys.stdout.flush()
    return "broken" not in found


async def _scenario(scenario: str, folder: Path, store: Database | None, options: argparse.Namespace) -> dict[str, Any]:
    match scenario:
        case "kills":
            databases = options.databases if store else 0
            return await scenarios.kills(
                folder, options.seed, workers=options.workers, databases=databases, database=store
            )
        case "recorder":
            return await recorder.record(folder, options.seed, store, seconds=options.seconds)
        case "neighbour":
            return {kind: await neighbour.neighbour(kind) for kind in neighbour.KINDS}
        case "race":
            return await scenarios.race(folder, options.seed, store)
        case "stopped":
            return await scenarios.stopped(folder, options.seed, store)
        case _:
            return await scenarios.replicas(folder, options.seed, store, options.reads)


if __name__ == "__main__":
    sys.exit(main())
