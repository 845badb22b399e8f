"""The phases of the drill, and what must hold at its end."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.nodes.database import Member, PostgresCluster, write_yaml
from tests.nodes.load import Load, Seen
from tests.nodes.network import Network
from tests.nodes.services import Edge, Worker
from tests.processes import run, until

CONCURRENT, MINUTE = 3, 60
_UPSTREAM_PORTS = (9001, 9002)
_CUT_SHARE = 0.4  # of the phase in which a machine is cut off


def report(text: str) -> None:
    """Prints progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@dataclass
class Phase:
    """A phase of the drill.

    Attributes:
        name: Its name in the table.
        share: Its share of the time of the drill.
        work: What is done to the machines, in a thread; the phase lasts at least until it is done.
        loses_calls: Whether calls in flight may fail.
    """

    name: str
    share: float
    work: Callable[[float], None]
    loses_calls: bool = True


class Drill:
    """Three machines with a worker and a PostgreSQL each, two with an Envoy, and upstreams, on one network."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.folder = folder
        self._network = network
        self._members = [Member(network.add(f"n{number}"), self._made(f"n{number}")) for number in (1, 2, 3)]
        self.database = PostgresCluster(self._members, folder / "patronictl.log")
        self.workers = [Worker(member.machine, member.folder) for member in self._members]
        self.edges = [Edge(network.add(f"e{number}"), self._made(f"e{number}"), self.workers) for number in (1, 2)]
        self._upstream = network.add("up")
        self._services: list[Worker | Edge] = [*self.workers, *self.edges]
        self.violations: list[str] = []

    def start(self) -> None:
        """Starts everything."""
        report("starting PostgreSQL with Patroni and etcd on three machines")
        self.database.start()
        for port in _UPSTREAM_PORTS:
            command = [sys.executable, "-m", "tests.nodes.upstream", self._upstream.address, str(port), "0.1"]
            root = str(Path(__file__).parents[2])
            self._upstream.start(command, self.folder / "upstream.log", PYTHONPATH=root)
        report("starting three workers and two Envoys")
        for worker in self.workers:
            write_yaml(worker.config, self._configuration(["echo", "limited"]))
        upgraded = run("db", "upgrade", "--config", str(self.workers[0].config))
        assert upgraded.returncode == 0, upgraded.stderr
        for service in self._services:
            service.start()

    def key(self, plan: str = "") -> str:
        """Creates an account of a plan, and returns its key."""
        account = ["--account", plan, "--plan", plan] if plan else []
        config = ["--config", str(self.workers[0].config), "--state-dir", str(self.folder / "state")]
        made = run("keys", "create", "--name", f"drill-{plan}", *account, *config)
        assert made.returncode == 0, made.stderr
        return next(word for word in made.stdout.split() if word.startswith("sk-"))

    def phases(self) -> list[Phase]:
        """Returns the phases."""
        return [
            Phase("steady", 0.10, lambda _: None, loses_calls=False),
            Phase("rolling restart", 0.20, self._restart, loses_calls=False),
            Phase("rolling configuration", 0.20, self._configure, loses_calls=False),
            Phase("PostgreSQL: switchover", 0.10, self._switch_over),
            Phase("PostgreSQL: primary killed", 0.12, self._kill_primary),
            Phase(
                "node cut off, with a standby", 0.14, lambda seconds: self._cut_off(self.database.standby(), seconds)
            ),
            Phase("node cut off, with the primary", 0.14, self._cut_off_primary),
        ]

    async def run(self, load: Load, seconds: float, limited: Sequence[tuple[str, str, int]]) -> float:
        """Runs all phases under load; returns the seconds that they took."""
        ended, began = asyncio.Event(), time.monotonic()
        phases = self.phases()
        load.phase = phases[0].name
        running = asyncio.create_task(load.run(ended, limited))
        try:
            for phase in phases:
                await self._run_phase(load, phase, seconds * phase.share)
        finally:
            ended.set()
            await running
        return time.monotonic() - began

    async def verify(self, load: Load, seconds: float) -> dict[str, Any]:
        """Compares what was acknowledged with the store, and the limits with what was answered. Returns the counts."""
        await self._verify_models(load)
        turns = 0
        for conversation in load.conversations:
            if not conversation.id:
                continue
            stored = await load.read(conversation)
            completed = [(question, answer) for state, question, answer in stored if state == "completed"]
            turns += len(conversation.turns)
            if completed[: len(conversation.turns)] != conversation.turns:
                self.violations.append(
                    f"session {conversation.id}: {conversation.turns} were acknowledged, not {stored}"
                )
            if any(state == "in_progress" for state, _, _ in stored):
                self.violations.append(f"session {conversation.id} has a turn in progress")
        self._verify_limits(load, seconds)
        return {"acknowledged turns": turns, "limited": dict(load.limited), "most at a time": self._most("concurrent")}

    def _verify_limits(self, load: Load, seconds: float) -> None:
        if (most := self._most("concurrent")) > CONCURRENT:
            self.violations.append(f"{most} calls at a time, of {CONCURRENT} allowed")
        answered, allowed = load.limited["minute answered"], MINUTE * (1 + seconds / 60)
        if answered > allowed + 1:
            self.violations.append(f"{answered} calls in {seconds:.0f} s, of {allowed:.0f} allowed")

    async def _verify_models(self, load: Load) -> None:
        for edge in self.edges:
            for _ in self.workers:
                if "new" not in (models := await load.models(edge.url)):
                    self.violations.append(f"the new configuration is not in use: {models}")

    async def _run_phase(self, load: Load, phase: Phase, seconds: float) -> None:
        report(f"{phase.name}, for {seconds:.0f} s")
        load.phase = phase.name
        try:
            await asyncio.gather(asyncio.to_thread(phase.work, seconds), asyncio.sleep(seconds))
            await asyncio.to_thread(self.database.wait_complete)
        except Exception as error:  # noqa: BLE001 - the others may succeed
            self.violations.append(f"{phase.name}: {error!r}")
        seen = load.seen
        if not phase.loses_calls and seen.failed:
            self.violations.append(f"{phase.name}: {seen.failed} calls failed: {dict(seen.reasons)}")
        if seen.given_up:
            self.violations.append(f"{phase.name}: {seen.given_up} calls were never acknowledged")
        report(f"{phase.name}: {summary(seen)}")

    def _restart(self, _: float) -> None:
        for service in self._services:
            service.replace()

    def _configure(self, _: float) -> None:
        for worker in self.workers:
            write_yaml(worker.config, self._configuration(["echo", "limited", "new"]))
            worker.replace()
        for edge in self.edges:
            edge.options = ("--max-body", "4MiB")
            edge.replace()

    def _switch_over(self, _: float) -> None:
        self.database.switch_over()

    def _kill_primary(self, _: float) -> None:
        primary = self.database.primary()
        assert primary is not None
        primary.kill()
        until(lambda: self.database.primary() not in {None, primary}, "another server is the primary")

    def _cut_off_primary(self, seconds: float) -> None:
        primary = self.database.primary()
        assert primary is not None
        self._cut_off(primary, seconds)

    @staticmethod
    def _cut_off(member: Member, seconds: float) -> None:
        member.machine.cut_off()
        try:
            time.sleep(seconds * _CUT_SHARE)
        finally:
            member.machine.connect()
            report("the node is connected again")

    def _most(self, kind: str) -> int:
        """Returns the largest number of calls at a time of a kind."""
        inside = f"http://{self._upstream.address}:{_UPSTREAM_PORTS[0]}/seen"
        with urlopen(inside, timeout=10) as response:
            return int(json.load(response)["most"].get(kind, 0))

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path

    def _configuration(self, models: Sequence[str]) -> dict[str, Any]:
        urls = [f"http://{self._upstream.address}:{port}/v1" for port in _UPSTREAM_PORTS]
        both, first = [{"backend": "one"}, {"backend": "other"}], [{"backend": "one"}]
        return {
            "backends": {
                name: {"kind": "openai", "base_url": url} for name, url in zip(("one", "other"), urls, strict=True)
            },
            "models": [
                {"id": model, "targets": first if model == "limited" else both, "history": {"max_messages": 20}}
                for model in models
            ],
            "plans": {
                "unlimited": {},  # the first plan is that of accounts without one
                "concurrent": {"limits": {"concurrent": CONCURRENT}},
                "minute": {"limits": {"requests_per_minute": MINUTE}},
            },
            # Longer than Patroni takes to replace a primary whose machine is cut off.
            "store": {"kind": "postgres", "url": self.database.url, "wait": "30s"},
        }


def summary(seen: Seen) -> str:
    """Returns one line about a phase."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in seen.reasons.most_common(4))
    times = f"median {statistics.median(seen.seconds):.2f} s, slowest {seen.slowest:.1f} s" if seen.seconds else ""
    return f"{seen.calls} calls, {seen.failed} failed once ({reasons or 'none'}); {times}; {seen.skipped} skipped"


def table(phases: dict[str, Seen]) -> str:
    """Returns the table of the drill, as Markdown."""
    lines = [
        "| phase | calls | failed at first | refused | broken | never acknowledged | median | slowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, seen in phases.items():
        median = statistics.median(seen.seconds) if seen.seconds else 0.0
        cells = (
            seen.calls,
            seen.failed,
            seen.refused,
            seen.broken,
            seen.given_up,
            f"{median:.2f} s",
            f"{seen.slowest:.1f} s",
        )
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
