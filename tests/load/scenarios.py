"""The scenarios and their measurement: a warm-up, one client compared with direct calls, then rounds under load.

Without sessions, the same is measured of the floor, alternately.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import median
from typing import Any

from tests.load import accounting, canned
from tests.load.client import Caller, RestCaller, Target
from tests.load.grpc_client import grpc_callers
from tests.load.load import Outcome, compare, drive, percentile
from tests.load.stack import COALESCED, Stack, Stacks, model_id

PROTOCOLS = ("rest", "grpc")
UNITS = {"unary": 1, "burst": canned.EVENTS, "paced": canned.EVENTS, COALESCED: canned.EVENTS}
_PACED = ("paced", COALESCED)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: unary, burst, paced or coalesced; rest or grpc; sessions off or auto."""

    kind: str
    protocol: str
    sessions: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a measurement: concurrent clients, calls per round, pairs at one client, and seconds per phase."""

    clients: int
    calls: int
    rounds: int
    pairs: int
    seconds: float
    warm_up: int


PLANS = {
    "unary": Plan(clients=32, calls=700, rounds=9, pairs=600, seconds=4.0, warm_up=500),
    "burst": Plan(clients=8, calls=160, rounds=9, pairs=100, seconds=4.0, warm_up=64),
    "paced": Plan(clients=20, calls=20, rounds=4, pairs=3, seconds=4.0, warm_up=20),
    COALESCED: Plan(clients=20, calls=20, rounds=4, pairs=3, seconds=4.0, warm_up=20),
}


def quick(plan: Plan) -> Plan:
    """Returns a smaller plan, for a quick result that should not be quoted."""
    calls, pairs = max(plan.clients, plan.calls // 3), max(1, plan.pairs // 6)
    return replace(plan, rounds=plan.rounds // 2, seconds=2.0, calls=calls, pairs=pairs, warm_up=plan.warm_up // 5)


def scenarios(kinds: Sequence[str], protocols: Sequence[str], sessions: Sequence[str]) -> list[Scenario]:
    """Returns every combination."""
    return [Scenario(*combination) for combination in product(kinds, protocols, sessions)]


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of a scenario, as described in README.md. `cpu_us` is per request, or per event."""

    scenario: str
    protocol: str
    sessions: str
    per: str
    cpu_us: float
    cpu_us_rounds: list[float]
    cpu_us_by_role: dict[str, float]
    cpu_us_one_client: float
    upstream_cpu_us: float
    added_ms_p50: float | None
    added_ms_p99: float | None
    calls_per_second: float
    clients: int
    calls: int
    errors: int
    first_errors: list[str]
    client_cpu_share: float
    yardstick_us: float
    times_floor: float | None
    floor: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Round:
    """One measured run: the results of the calls, and the CPU microseconds of each role per request or event."""

    outcome: Outcome
    by_role: dict[str, float]
    upstream_us: float
    client_share: float
    yardstick_us: float

    @property
    def cpu_us(self) -> float:
        """The CPU microseconds of all roles per request or event."""
        return sum(self.by_role.values())


@dataclass(slots=True)
class Side:
    """Parley or the floor: its first process, its clients, and what was measured."""

    pid: int
    callers: Sequence[Caller]
    outcomes: list[Outcome] = field(default_factory=list)
    alone: Outcome = field(default_factory=Outcome)
    alone_us: float = 0.0
    rounds: list[Round] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Returns a line for each failed call."""
        outcomes = [*self.outcomes, self.alone, *(one.outcome for one in self.rounds)]
        return [text for outcome in outcomes for text in outcome.failures]

    @property
    def middle(self) -> Round:
        """Returns the round with the median of the CPU time."""
        return sorted(self.rounds, key=lambda item: item.cpu_us)[(len(self.rounds) - 1) // 2]


async def measure(stacks: Stacks, scenario: Scenario, plan: Plan) -> Result:
    """Measures one scenario on running stacks; Parley and the floor alternate."""
    through = target(stacks.parley, scenario)
    direct = RestCaller(replace(through, address=stacks.upstream.address, model=scenario.kind, session=False))
    stages = [stacks.parley] if scenario.sessions != "off" else [stacks.parley, stacks.floor]
    sides = [Side(one.pid, callers_of(scenario.protocol, target(one, scenario), plan.clients)) for one in stages]
    try:
        for side in sides:
            side.outcomes.append(await drive(side.callers, plan.warm_up, plan.seconds))
        straight = await _one_client(sides, scenario.kind, direct, plan)
        for number in range(plan.rounds):
            for side in sides[:: -1 if number % 2 else 1]:
                side.rounds.append(await _round(side, stacks.upstream.pid, scenario.kind, plan))
    finally:
        for caller in (direct, *(caller for side in sides for caller in side.callers)):
            await caller.close()
    return _result(scenario, plan, sides, straight)


def target(stack: Stack, scenario: Scenario) -> Target:
    """Returns the address and the expected answers of a scenario."""
    return Target(
        address=stack.rest if scenario.protocol == "rest" else stack.grpc,
        path="/v1/chat/completions",
        model=model_id(scenario.kind, scenario.sessions),
        kind="paced" if scenario.kind == COALESCED else scenario.kind,
        key=stack.key,
        session=scenario.sessions != "off",
    )


def callers_of(protocol: str, target: Target, clients: int) -> Sequence[Caller]:
    """Creates the load clients."""
    if protocol == "rest":
        return [RestCaller(target) for _ in range(clients)]
    return grpc_callers(target, clients)


async def _one_client(sides: Sequence[Side], kind: str, direct: Caller, plan: Plan) -> Outcome:
    """Measures every side at one client; returns the outcome of the direct calls."""
    before = [accounting.snapshot(side.pid) for side in sides]
    callers = [*(side.callers[0] for side in sides), direct]
    *outcomes, straight = await compare(callers, plan.pairs, 2 * plan.seconds, at_once=kind in _PACED)
    for side, outcome, start in zip(sides, outcomes, before, strict=True):
        used = accounting.spent(start, accounting.snapshot(side.pid))
        side.alone = outcome
        side.alone_us = sum(used.values()) / 1e3 / max(1, len(outcome.timings) * UNITS[kind])
    return straight


async def _round(side: Side, source_pid: int, kind: str, plan: Plan) -> Round:
    """Runs the load once; returns the CPU time of the stack per request or event."""
    yard = accounting.yardstick()
    stagger = canned.GAP_SECONDS if kind in _PACED else 0.0
    before, source, own = accounting.snapshot(side.pid), accounting.cpu_ns(source_pid), time.process_time()
    outcome = await drive(side.callers, plan.calls, plan.seconds, stagger)
    used = accounting.spent(before, accounting.snapshot(side.pid))
    source, own = accounting.cpu_ns(source_pid) - source, time.process_time() - own
    units = max(1, (len(outcome.timings) + len(outcome.failures)) * UNITS[kind])
    by_role = {role: spent / 1e3 / units for role, spent in used.items()}
    return Round(outcome, by_role, source / 1e3 / units, own / outcome.seconds, yard)


def _result(scenario: Scenario, plan: Plan, sides: Sequence[Side], straight: Outcome) -> Result:
    """Combines the figures; `straight` are the direct calls at one client."""
    own, rounds, middle = sides[0], sides[0].rounds, sides[0].middle
    failures = [*straight.failures, *(text for side in sides for text in side.failures)]
    return Result(
        scenario=scenario.kind,
        protocol=scenario.protocol,
        sessions=scenario.sessions,
        per="request" if UNITS[scenario.kind] == 1 else "event",
        **_costs(scenario.kind, own, straight),
        cpu_us_one_client=round(own.alone_us, 1),
        upstream_cpu_us=round(middle.upstream_us, 1),
        calls_per_second=round(median(len(item.outcome.timings) / item.outcome.seconds for item in rounds), 1),
        clients=plan.clients,
        calls=sum(len(item.outcome.timings) for item in rounds),
        errors=len(failures),
        first_errors=failures[:3],
        client_cpu_share=round(max(item.client_share for item in rounds), 2),
        yardstick_us=round(median(item.yardstick_us for item in rounds)),
        times_floor=times_floor(*sides) if len(sides) > 1 else None,
        floor=_costs(scenario.kind, sides[1], straight) if len(sides) > 1 else None,
    )


def _costs(kind: str, side: Side, straight: Outcome) -> dict[str, Any]:
    """Returns the figures that are reported of Parley and of the floor."""
    through, direct = _milliseconds(kind, side.alone), _milliseconds(kind, straight)
    return {
        "cpu_us": round(side.middle.cpu_us, 1),
        "cpu_us_rounds": [round(item.cpu_us, 1) for item in side.rounds],
        "cpu_us_by_role": {role: round(value, 1) for role, value in sorted(side.middle.by_role.items())},
        "added_ms_p50": _added(through, direct, 0.5),
        "added_ms_p99": _added(through, direct, 0.99),
    }


def times_floor(own: Side, bare: Side) -> float:
    """Returns Parley's CPU time as a multiple of the floor's: the median of the pairs of rounds."""
    pairs = zip(own.rounds, bare.rounds, strict=True)
    return round(median(first.cpu_us / max(1e-9, second.cpu_us) for first, second in pairs), 2)


def _milliseconds(kind: str, outcome: Outcome) -> list[float]:
    """Returns the duration of each call, or for paced streams the latency of each event."""
    if kind in _PACED:
        return [lag * 1e3 for timing in outcome.timings for lag in timing.lags]
    return [timing.total * 1e3 for timing in outcome.timings]


def _added(through: list[float], direct: list[float], share: float) -> float | None:
    """Returns the increase of the percentile through Parley; None without any result."""
    if not through or not direct:
        return None
    return round(percentile(through, share) - percentile(direct, share), 3)
