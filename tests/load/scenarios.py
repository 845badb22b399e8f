"""The scenarios and their measurement: a warm-up, one client compared with direct calls, then rounds under load."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median

from tests.load import accounting, canned
from tests.load.client import Caller, RestCaller, Target
from tests.load.grpc_client import grpc_callers
from tests.load.load import Outcome, compare, drive, percentile
from tests.load.stack import Stack, Upstream, model_id

PROTOCOLS = ("rest", "grpc")
UNITS = {"unary": 1, "burst": canned.EVENTS, "paced": canned.EVENTS}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: unary, burst or paced; rest or grpc; sessions off or auto."""

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
    "unary": Plan(clients=32, calls=2000, rounds=3, pairs=600, seconds=4.0, warm_up=500),
    "burst": Plan(clients=8, calls=160, rounds=3, pairs=100, seconds=4.0, warm_up=64),
    "paced": Plan(clients=20, calls=20, rounds=3, pairs=3, seconds=4.0, warm_up=20),
}


def quick(plan: Plan) -> Plan:
    """Returns a smaller plan, for a quick result that should not be quoted."""
    calls, pairs = max(plan.clients, plan.calls // 4), max(1, plan.pairs // 6)
    return replace(plan, rounds=1, seconds=1.0, calls=calls, pairs=pairs, warm_up=plan.warm_up // 5)


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


async def measure(stack: Stack, source: Upstream, scenario: Scenario, plan: Plan) -> Result:
    """Measures one scenario on a running stack."""
    through = target(stack, scenario)
    direct = RestCaller(replace(through, address=source.address, model=scenario.kind, session=False))
    callers = callers_of(scenario.protocol, through, plan.clients)
    try:
        warm = await drive(callers, plan.warm_up, plan.seconds)
        alone, pairs = await _one_client(stack.pid, scenario.kind, callers[0], direct, plan)
        rounds = [await _round((stack.pid, source.pid), scenario.kind, callers, plan) for _ in range(plan.rounds)]
    finally:
        for caller in (*callers, direct):
            await caller.close()
    return _result(scenario, plan, (warm, *pairs), alone, rounds)


def target(stack: Stack, scenario: Scenario) -> Target:
    """Returns the address and the expected answers of a scenario."""
    return Target(
        address=stack.rest if scenario.protocol == "rest" else stack.grpc,
        path="/v1/chat/completions",
        model=model_id(scenario.kind, scenario.sessions),
        kind=scenario.kind,
        key=stack.key,
        session=scenario.sessions != "off",
    )


def callers_of(protocol: str, target: Target, clients: int) -> Sequence[Caller]:
    """Creates the load clients."""
    if protocol == "rest":
        return [RestCaller(target) for _ in range(clients)]
    return grpc_callers(target, clients)


async def _one_client(
    pid: int, kind: str, through: Caller, direct: Caller, plan: Plan
) -> tuple[float, tuple[Outcome, Outcome]]:
    """Returns the CPU microseconds per unit at one client, and the timings through Parley and direct."""
    before = accounting.snapshot(pid)
    pairs = await compare(through, direct, plan.pairs, 2 * plan.seconds, at_once=kind == "paced")
    used = accounting.spent(before, accounting.snapshot(pid))
    return sum(used.values()) / 1e3 / max(1, len(pairs[0].timings) * UNITS[kind]), pairs


async def _round(pids: tuple[int, int], kind: str, callers: Sequence[Caller], plan: Plan) -> Round:
    """Runs the load once; returns the CPU time of the stack per request or event.

    `pids` are those of the supervisor and of the upstream.
    """
    yard = accounting.yardstick()
    stagger = canned.GAP_SECONDS if kind == "paced" else 0.0
    before, source, own = accounting.snapshot(pids[0]), accounting.cpu_ns(pids[1]), time.process_time()
    outcome = await drive(callers, plan.calls, plan.seconds, stagger)
    used = accounting.spent(before, accounting.snapshot(pids[0]))
    source, own = accounting.cpu_ns(pids[1]) - source, time.process_time() - own
    units = max(1, (len(outcome.timings) + len(outcome.failures)) * UNITS[kind])
    by_role = {role: spent / 1e3 / units for role, spent in used.items()}
    return Round(outcome, by_role, source / 1e3 / units, own / outcome.seconds, yard)


def _result(
    scenario: Scenario, plan: Plan, others: tuple[Outcome, Outcome, Outcome], alone: float, rounds: list[Round]
) -> Result:
    """Combines the figures; `others` are the warm-up, the calls through Parley at one client, and the direct ones."""
    middle = sorted(rounds, key=lambda item: item.cpu_us)[(len(rounds) - 1) // 2]
    through, direct = _milliseconds(scenario.kind, others[1]), _milliseconds(scenario.kind, others[2])
    failures = [text for outcome in (*others, *(item.outcome for item in rounds)) for text in outcome.failures]
    return Result(
        scenario=scenario.kind,
        protocol=scenario.protocol,
        sessions=scenario.sessions,
        per="request" if UNITS[scenario.kind] == 1 else "event",
        cpu_us=round(middle.cpu_us, 1),
        cpu_us_rounds=[round(item.cpu_us, 1) for item in rounds],
        cpu_us_by_role={role: round(value, 1) for role, value in sorted(middle.by_role.items())},
        cpu_us_one_client=round(alone, 1),
        upstream_cpu_us=round(middle.upstream_us, 1),
        added_ms_p50=_added(through, direct, 0.5),
        added_ms_p99=_added(through, direct, 0.99),
        calls_per_second=round(median(len(item.outcome.timings) / item.outcome.seconds for item in rounds), 1),
        clients=plan.clients,
        calls=sum(len(item.outcome.timings) for item in rounds),
        errors=len(failures),
        first_errors=failures[:3],
        client_cpu_share=round(max(item.client_share for item in rounds), 2),
        yardstick_us=round(median(item.yardstick_us for item in rounds)),
    )


def _milliseconds(kind: str, outcome: Outcome) -> list[float]:
    """Returns the duration of each call, or for paced streams the latency of each event."""
    if kind == "paced":
        return [lag * 1e3 for timing in outcome.timings for lag in timing.lags]
    return [timing.total * 1e3 for timing in outcome.timings]


def _added(through: list[float], direct: list[float], share: float) -> float | None:
    """Returns the increase of the percentile through Parley; None without any result."""
    if not through or not direct:
        return None
    return round(percentile(through, share) - percentile(direct, share), 3)
