"""What a load needs in cores, memory, connections and disk: `make sizing`. Arithmetic on measured figures.

Each figure has the command that measures it. docs/scaling.md shows the output.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields

DAY = 86_400
BUSY = 0.7  # the share of a core that is planned for; above it latency rises
# `make bench ARGS="--only paced --protocol rest"`: CPU seconds of an event; with `coalesce: 50ms` 0.55 of it
WORKER_EVENT, ENVOY_EVENT, COALESCED = 260e-6, 105e-6, 0.55
# tests/load/README.md: bytes of an open REST stream in a worker and in Envoy; those of a worker without load
WORKER_STREAM, ENVOY_STREAM, WORKER_BYTES = 35e3, 60e3, 65e6
ENVOY_STREAMS = 2_000  # carried by an Envoy with the default heap of 512 MiB
# `make bench ARGS="--only durable"`: CPU seconds of the server for a turn, with 64 clients and alone
TURN, TURN_ALONE = 146e-6, 1_833e-6
TURN_LOG = 2_437  # bytes of write-ahead log
# `renew_leases` of 200 turns: CPU seconds and bytes of log for each; leases are renewed every 3 seconds
LEASE, LEASE_LOG, RENEW_SECONDS = 20e-6, 410, 3.0
MESSAGE = 563  # `make scale`: bytes in all tables and indexes, of which 150 are the message
POOL = 11  # connections of a worker, with the one that listens
SHARD_CORES = 16


@dataclass(frozen=True, slots=True)
class Load:
    """What is served.

    Attributes:
        sessions: New sessions a day.
        turns: The turns of a session.
        streams: The streams that are open at the same time.
        events: The events of a stream in a second.
        peak: The busiest second, as a multiple of the average of the day.
        days: The days for which sessions are kept.
    """

    sessions: int = 1_000_000
    turns: int = 10
    streams: int = 100_000
    events: int = 20
    peak: int = 5
    days: int = 30


def needs(load: Load) -> Iterator[tuple[str, str]]:
    """Yields what the load needs, with its name."""
    turns = load.sessions * load.turns / DAY * load.peak
    events = load.streams * load.events
    workers, coalesced = events * WORKER_EVENT / BUSY, events * WORKER_EVENT * COALESCED / BUSY
    yield "turns a second, at the peak", f"{turns:,.0f}"
    yield "workers, of a core each", f"{workers:,.0f}"
    yield "workers with `coalesce: 50ms`", f"{coalesced:,.0f}"
    yield "memory of the workers", f"{(workers * WORKER_BYTES + load.streams * WORKER_STREAM) / 1e9:,.0f} GB"
    yield "cores of Envoys", f"{events * ENVOY_EVENT / BUSY:,.0f}"
    yield "Envoys with the default heap", f"{load.streams / ENVOY_STREAMS:,.0f}"
    yield "memory of the open streams in Envoys", f"{load.streams * ENVOY_STREAM / 1e9:,.0f} GB"
    yield "connections to PostgreSQL, at most", f"{workers * POOL:,.0f}"
    yield from _database(load, turns)


def _database(load: Load, turns: float) -> Iterator[tuple[str, str]]:
    leases = load.streams / RENEW_SECONDS
    log = turns * TURN_LOG + leases * LEASE_LOG
    together, alone = turns * TURN + leases * LEASE, turns * TURN_ALONE + leases * TURN_ALONE / 2
    yield "leases renewed a second", f"{leases:,.0f}"
    yield "cores of PostgreSQL, turns that share statements", f"{together / BUSY:,.1f}"
    yield "cores of PostgreSQL, `distributed: true`, at most", f"{alone / BUSY:,.1f}"
    yield f"shards of {SHARD_CORES} cores for that", f"{alone / BUSY / SHARD_CORES:,.1f}"
    yield "write-ahead log a second, at the peak", f"{log / 1e6:,.1f} MB"
    space = load.sessions * load.turns * 2 * MESSAGE / 1e9
    yield "tables and indexes a day", f"{space:,.1f} GB"
    yield f"tables and indexes after {load.days} days", f"{space * load.days:,.0f} GB"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="make sizing", description=__doc__)
    for field in fields(Load):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    for name, value in needs(Load(**vars(parser.parse_args()))):
        sys.stdout.write(f"| {name} | {value} |\n")


if __name__ == "__main__":
    main()
