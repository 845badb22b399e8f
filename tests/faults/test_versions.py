"""Two versions of Parley on one PostgreSQL: the schema is upgraded and workers are replaced under load.

The newer version is a copy of this one with a further migration.
"""

import asyncio
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import parley
from parley.stores.migrations import migrations
from tests import processes
from tests.faults.clients import Acknowledged, Wire, check_session
from tests.faults.cluster import Cluster, Slot, cluster
from tests.faults.scenarios import EchoUpstream
from tests.faults.stores import database
from tests.upstream import ScriptedUpstream

NOW = len(migrations("parley.stores.postgres"))
MIGRATION = f"""\
-- oldest-worker: {NOW}
CREATE TABLE parley.titles (session_id text PRIMARY KEY, title text NOT NULL);
ALTER TABLE parley.sessions ADD COLUMN colour text;
ALTER TABLE parley.turns ADD COLUMN colour text;
ALTER TABLE parley.messages ADD COLUMN colour text;
"""
CLIENTS = 3
CALLS_A_STAGE = 9
PAUSE = 0.1  # of a client between two turns, in seconds


@dataclass
class Rotation:
    """The workers that get new calls, and what became of the calls."""

    cluster: Cluster
    wires: dict[str, Wire] = field(default_factory=dict)
    acknowledged: dict[str, list[tuple[str, Acknowledged]]] = field(default_factory=dict)
    calls: int = 0
    stopped: bool = False

    async def start(self, version: dict[str, str]) -> str:
        """Starts a worker, and sends calls to it; returns its address. `version` is the environment that selects it."""
        first, address = self.cluster.slots[0], f"127.0.0.1:{processes.reserved_port()}"
        command = [address if word == first.address else word for word in first.command]
        slot = Slot(address, command, first.log.with_name(f"worker-{address}.log"), first.scratch, version)
        self.cluster.slots.append(slot)
        await slot.start()
        self.add(slot)
        return address

    def add(self, slot: Slot) -> None:
        """Sends calls to a running worker."""
        self.wires[slot.address] = Wire(Cluster(self.cluster.key, [slot]))

    async def stop(self, address: str) -> None:
        """Sends no further call to a worker, and stops it gracefully."""
        wire = self.wires.pop(address)
        (slot,) = (slot for slot in self.cluster.slots if slot.address == address)
        await slot.stop()
        await wire.close()

    async def converse(self, name: str) -> None:
        """Makes one turn after another in a session, each at any of the workers, until the end; no call may fail."""
        session, number = None, 0
        while not self.stopped:
            number += 1
            text, key, stream = f"{name} says {number}", f"{name}-{number}", number % 2 == 0
            answer = await self._send(text, session, key, is_stream=stream)
            assert answer == await self._send(
                text, session, key, is_stream=stream
            )  # the stored reply of another worker
            assert f"echo of {text}" == answer.text
            session = answer.session
            self.acknowledged.setdefault(session, []).append((text, answer))
            self.calls += 1
            await asyncio.sleep(PAUSE)

    async def _send(self, text: str, session: str | None, key: str, *, is_stream: bool) -> Acknowledged:
        wire = random.choice(list(self.wires.values()))
        return await wire.send_turn(0, text, session, key, is_stream=is_stream)

    async def progress(self, clients: list[asyncio.Task[None]]) -> None:
        """Waits for some more turns. Raises the error of a failed call."""
        wanted = self.calls + CALLS_A_STAGE
        async with asyncio.timeout(processes.PATIENCE):
            while self.calls < wanted:
                for client in clients:
                    if client.done():
                        client.result()
                await asyncio.sleep(0.02)


def _newer(folder: Path) -> dict[str, str]:
    """Makes a newer version; returns the environment that selects it."""
    package = Path(parley.__file__).parent
    shutil.copytree(package, folder / "parley")  # with the bytecode files, which match the copies
    (folder / f"parley/stores/postgres/migrations/{NOW + 1:04d}_titles.sql").write_text(MIGRATION)
    return {"PYTHONPATH": str(folder)}


async def test_versions_side_by_side(tmp_path: Path) -> None:
    """No call fails while the schema is upgraded, newer and older workers start on it, and either of them stops."""
    newer = _newer(tmp_path / "newer")
    with database("postgres") as store, ScriptedUpstream() as upstream:
        assert store is not None
        upstream.default = EchoUpstream(1)
        async with cluster(tmp_path, upstream.url, store.url, 1) as running:
            rotation, older = Rotation(running), running.slots[0]
            rotation.add(older)
            clients = [asyncio.create_task(rotation.converse(f"client {number}")) for number in range(CLIENTS)]
            await rotation.progress(clients)
            options = ("--config", str(tmp_path / "parley.yaml"), "--state-dir", str(tmp_path / "state"))
            upgraded = await asyncio.to_thread(lambda: processes.run("db", "upgrade", *options, **newer))
            expected = f"Upgraded the schema from version {NOW} to {NOW + 1}.\nWorkers of version {NOW} and later"
            assert upgraded.stdout.startswith(expected), upgraded
            await rotation.progress(clients)
            new, _ = await asyncio.gather(rotation.start(newer), rotation.start({}))
            await rotation.progress(clients)
            await rotation.stop(older.address)
            await rotation.progress(clients)
            await rotation.stop(new)
            await rotation.progress(clients)
            rotation.stopped = True
            await asyncio.gather(*clients)
            (last,) = rotation.wires.values()
            assert CLIENTS == len(rotation.acknowledged)
            for session, turns in rotation.acknowledged.items():
                check_session(session, turns, await last.messages(0, session))
            await last.close()
