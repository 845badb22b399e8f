"""`make nodes`: three service nodes, two Envoys and PostgreSQL with Patroni in network namespaces, under load.

Needs root, and Debian's packages patroni, etcd-server, postgresql and iproute2. Prints progress on stderr and a table
on stdout. The exit status is 1 if a guarantee was violated.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from tests.nodes.database import require_programs
from tests.nodes.drill import Drill, report, table
from tests.nodes.load import Load
from tests.nodes.network import Network


def main() -> int:
    """Runs the drill; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="the time under load; default: 600")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second; default: 200")
    parser.add_argument("--sessions", type=int, default=400, help="the number of sessions; default: 400")
    parser.add_argument("--keep", type=Path, help="the folder for logs, which is kept; default: a temporary one")
    options = parser.parse_args()
    require_programs()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="pd-", dir="/tmp") as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL's user needs its own folders there
        with Network() as network:
            return _run(Drill(network, folder), options)


def _run(drill: Drill, options: argparse.Namespace) -> int:
    drill.start()
    limited = [("concurrent", drill.key("concurrent"), 6), ("minute", drill.key("minute"), 2)]
    with (drill.folder / "failures.log").open("w", buffering=1) as log:
        load = Load([edge.url for edge in drill.edges], drill.key(), options.rate, options.sessions, log)
        report(f"{options.rate:.0f} calls a second, in {options.sessions} sessions")
        counts = asyncio.run(_drill(drill, load, options.seconds, limited))
    sys.stdout.write(f"{table(load.phases)}\n\n{json.dumps(counts)}\n")
    for violation in drill.violations:
        sys.stdout.write(f"violated: {violation[:2000]}\n")
    report("no guarantee was violated" if not drill.violations else f"{len(drill.violations)} violations")
    return 1 if drill.violations else 0


async def _drill(drill: Drill, load: Load, seconds: float, limited: list[tuple[str, str, int]]) -> dict[str, Any]:
    """Runs the phases, then compares. The kernel kills processes at the end of the thread that has started them."""
    took = await drill.run(load, seconds, limited)
    report("comparing the store with what was acknowledged")
    return {"seconds": round(took), **await drill.verify(load, took)}


def _interrupt(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
