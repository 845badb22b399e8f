"""Breakers and holds of targets, shared by machines through PostgreSQL. Each machine has a folder and a clock."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from parley.backends.breaker_state import leadership, shared_states
from parley.config.loader import parse
from parley.core.errors import StoreUnavailable, UpstreamRateLimited
from parley.core.ports.targets import TargetState
from parley.core.routing.breaker import CONSECUTIVE_FAILURES, Breaker
from parley.core.routing.probe_schedule import ProbeSchedule
from parley.core.routing.replicated_targets import ReplicatedTargets, common_name
from parley.stores.postgres import PostgresStore
from tests.postgres import Server
from tests.unit.routing.routes import Clock

_NAME = "up/m"


class Machine:
    """A machine with one worker: its breaker of a target, and its exchange with the other machines."""

    def __init__(self, folder: Path, store: PostgresStore, now: float) -> None:
        folder.mkdir()
        self.folder = folder
        self.clock = Clock()
        self.clock.now = now
        states = shared_states(folder)
        self.breaker = Breaker(self.clock, ProbeSchedule(states(_NAME)))
        self.store = store
        self.targets = ReplicatedTargets(store, {_NAME: states(_NAME)}, leadership(folder), self.clock)

    async def exchange(self) -> None:
        """Exchanges the states, after which calls see what was found."""
        await self.targets.exchange()
        self.clock.now += 0.1

    def open(self) -> None:
        """Opens the breaker."""
        for _ in range(CONSECUTIVE_FAILURES):
            self.call(fails=True)
        assert not self.breaker.is_closed

    def call(self, *, fails: bool) -> bool:
        """Makes a call that ends immediately; returns whether it was admitted."""
        permit = self.breaker.try_acquire_permit()
        if permit is None:
            return False
        (self.breaker.record_failure if fails else self.breaker.record_success)(permit)
        return True


@pytest.fixture
async def machines(tmp_path: Path, postgres_url: str) -> AsyncIterator[tuple[Machine, Machine]]:
    """Two machines whose clocks differ."""
    store = await PostgresStore.open(postgres_url, 2)
    yield Machine(tmp_path / "one", store, 1000.0), Machine(tmp_path / "other", store, 5_000_000.0)
    await store.close()


class _Away:
    """A store that cannot be reached."""

    async def exchange_targets(self, machine: str, changed: Sequence[TargetState]) -> list[TargetState]:
        """Fails."""
        del machine
        raise StoreUnavailable(f"{len(changed)} states cannot be stored")


async def _exchange(*machines: Machine) -> None:
    for machine in machines:
        await machine.exchange()


async def test_an_open_breaker_of_another_machine_is_a_warning(machines: tuple[Machine, Machine]) -> None:
    """The other machine stops its calls after one failure instead of five, and waits for the same probe."""
    one, other = machines
    one.open()
    await _exchange(one, other)
    assert [True, False, False] == [other.call(fails=True) for _ in range(3)]
    assert 9 < other.breaker.remaining_delay() < 14


async def test_a_fault_of_one_machine_leaves_the_others_alone(machines: tuple[Machine, Machine]) -> None:
    """A machine whose network is broken opens its own breaker, again and again; others answer and admit every call."""
    one, other = machines
    one.open()
    for _ in range(9):
        await _exchange(one, other)
        assert other.call(fails=False)
        assert other.call(fails=True)
        one.clock.now += 15
        other.clock.now += 15
        assert one.call(fails=True)
    assert (False, True) == (one.breaker.is_closed, other.breaker.is_closed)


async def test_one_machine_makes_the_probe(machines: tuple[Machine, Machine]) -> None:
    """The one that has opened its breaker first probes for both, whatever the result."""
    one, other = await _both_open(machines)
    for _ in range(3):
        pause = one.breaker.remaining_delay()
        for machine in machines:
            machine.clock.now += pause
        assert (True, False) == (one.breaker.admits(), other.breaker.admits())
        assert one.call(fails=True)
        await _exchange(one, other, one, other)
    assert 15 < other.breaker.remaining_delay() < 18 + 1


async def test_another_machine_probes_if_the_first_has_no_calls(machines: tuple[Machine, Machine]) -> None:
    """Its probe is at most 3 seconds later, and then the probes are its own."""
    one, other = await _both_open(machines)
    for machine in machines:
        machine.clock.now += 14
    assert other.call(fails=True)
    await _exchange(other, one)
    assert 14 < other.breaker.remaining_delay() <= 15
    assert 15 < one.breaker.remaining_delay() < 18 + 1


async def _both_open(machines: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    one, other = machines
    one.open()
    await _exchange(one, other)
    assert other.call(fails=True)
    await _exchange(other, one, other)
    return one, other


async def test_a_recovery_closes_the_breaker_of_the_other_machine(machines: tuple[Machine, Machine]) -> None:
    """A successful probe of one machine closes the breakers of all, and nothing opens them again."""
    one, other = await _both_open(machines)
    for machine in machines:
        machine.clock.now += 11
    assert one.call(fails=False)
    await _exchange(one, other, one, other)
    assert (True, True) == (one.breaker.is_closed, other.breaker.is_closed)
    assert [True] * 4 == [other.call(fails=True) for _ in range(4)]
    assert other.breaker.is_closed


async def test_a_hold_applies_to_the_other_machine(machines: tuple[Machine, Machine]) -> None:
    """`Retry-After` holds the calls of all machines for the rest of its time, with the same reason."""
    one, other = machines
    one.breaker.hold(60, UpstreamRateLimited)
    await _exchange(one, other)
    assert not other.breaker.admits()
    assert 50 < other.breaker.remaining_delay() <= 60
    assert other.breaker.cause() is UpstreamRateLimited
    other.clock.now += 61
    await _exchange(other)
    assert not one.breaker.admits()


async def test_a_breaker_that_an_administrator_closes(machines: tuple[Machine, Machine]) -> None:
    """The store does not bring back the hold that was ended."""
    one, other = machines
    one.breaker.hold(60, UpstreamRateLimited)
    await _exchange(one, other)
    one.breaker.reset()
    await _exchange(one, other, one)
    assert one.breaker.admits()


async def test_changes_of_both_machines_at_a_time_stay(machines: tuple[Machine, Machine]) -> None:
    """One machine opens the breaker while the other holds the target: both see both."""
    one, other = machines
    one.open()
    other.breaker.hold(5, UpstreamRateLimited)
    await _exchange(one, other, one, other)
    assert UpstreamRateLimited is one.breaker.cause()
    other.clock.now += 5
    assert [True, False] == [other.call(fails=True) for _ in range(2)]


async def test_a_machine_that_starts_later_finds_the_hold(tmp_path: Path, machines: tuple[Machine, Machine]) -> None:
    """A replica that is added rejects the calls that a target has requested others not to make."""
    one, _ = machines
    one.breaker.hold(60, UpstreamRateLimited)
    await one.exchange()
    third = Machine(tmp_path / "third", one.store, 7.0)
    await third.exchange()
    assert not third.breaker.admits()


async def test_a_quiet_exchange_stores_nothing(machines: tuple[Machine, Machine], postgres_server: Server) -> None:
    """What a machine has found is not stored again, so machines do not answer each other for ever."""
    one, other = machines
    one.open()
    one.breaker.hold(60, UpstreamRateLimited)
    await _exchange(one, other)
    stored = postgres_server.sql("SELECT changed FROM parley.targets", "parley")
    await _exchange(other, one, other, one)
    assert stored == postgres_server.sql("SELECT changed FROM parley.targets", "parley")


async def test_a_store_that_is_away(machines: tuple[Machine, Machine]) -> None:
    """Without the store each machine uses its own state; what it has changed is shared when the store is back."""
    one, other = machines
    one.targets._store = other.targets._store = _Away()  # noqa: SLF001
    one.open()
    await _exchange(one, other)
    assert (False, True) == (one.breaker.admits(), other.call(fails=True))
    one.targets._store = other.targets._store = one.store  # noqa: SLF001
    await _exchange(one, other)
    assert [True, False] == [other.call(fails=True) for _ in range(2)]


async def test_a_target_that_no_machine_names_any_more(
    machines: tuple[Machine, Machine], postgres_server: Server
) -> None:
    """Its row is ignored, and removed a day after its last change, when another one is stored."""
    one, other = machines
    one.open()
    await one.exchange()
    postgres_server.sql("UPDATE parley.targets SET name = 'gone'", "parley")
    await other.exchange()
    assert [True] * 5 == [other.call(fails=True) for _ in range(5)]
    postgres_server.sql("UPDATE parley.targets SET changed = changed - 86401", "parley")
    await other.exchange()
    assert _NAME == postgres_server.sql("SELECT name FROM parley.targets", "parley")


def test_names_for_all_machines() -> None:
    """Targets are the same ones if the server is; the model server of each machine is its own."""
    config = parse(
        "backends:\n"
        "  a: {kind: openai, base_url: 'http://one/v1', api_key: x}\n"
        "  b: {kind: openai, base_url: 'http://one/v1', api_key: y}\n"
        "  c: {kind: openai, base_url: 'http://other/v1'}\n"
        "  d: {kind: llama_cpp}\n"
        "models: [{id: m, targets: [{backend: a}]}]\n",
        "parley.yaml",
    )
    names = [common_name("up/m", config.backends[backend]) for backend in "abcd"]
    assert names[0] == names[1] != names[2]
    assert (names[0] or "").startswith("up/m ")
    assert names[3] is None


def test_one_worker_of_a_machine_exchanges(tmp_path: Path) -> None:
    """The first worker is the leader until it ends; then another one is."""
    first, second = leadership(tmp_path), leadership(tmp_path)
    assert (True, False, True) == (first(), second(), first())
    del first
    assert second()
