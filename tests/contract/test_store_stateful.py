"""Random interleavings of turns, retries, crashes, expiries, forks and deletions, on each store and on a model.

`INTERLEAVINGS` sets the number of runs, 25 by default.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from parley.core.ports import Claim, SessionFilter, Store, Turn, TurnBegin, TurnEnd
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import SessionMessage
from tests.contract.conversations import LEASE, Model, PlainMessage, outcome, to_message, to_plain
from tests.postgres import Server

DAY = 86400.0
TEXTS = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["k1", "k2", "k3"])
DIGESTS = st.sampled_from([b"1" * 32, b"2" * 32])
WORKERS = st.sampled_from([0, 1])
RECEIPTS = st.none() | st.sampled_from([0, 7])


async def _end(store: Store, turn: Turn, end: TurnEnd) -> None:
    await store.end_turn(turn, end)


class Machine(RuleBasedStateMachine):
    """The stores of two workers on one database, and the model."""

    sessions = Bundle("sessions")
    turns = Bundle("turns")
    claims = Bundle("claims")

    def prepare(self) -> None:
        """Creates an empty database."""

    async def open(self) -> Store:
        """Opens the store of another worker."""
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        """Opens the stores."""
        self.now = 1_700_000_000.0
        self.count = 0
        self.model = Model()
        self.fences: dict[tuple[str, int], int] = {}
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.prepare()
        self.stores = [self._run(self.open()), self._run(self.open())]

    def teardown(self) -> None:
        """Closes the stores."""
        if hasattr(self, "loop"):
            for store in self.stores:
                self.loop.run_until_complete(store.close())
            self.loop.close()
            self.folder.cleanup()

    @rule(target=turns, worker=WORKERS, question=TEXTS, system=st.booleans())
    def begin_new(self, worker: int, question: str, *, system: bool) -> Any:
        """Begins the first turn of a new session."""
        return self._begin(
            worker, self._new_id(), [*([("system", "s")] if system else []), ("user", question)], new=True
        )

    @rule(target=turns, worker=WORKERS, session=sessions, question=TEXTS, resent=st.booleans(), system=st.booleans())
    def begin(self, worker: int, session: str, question: str, *, resent: bool, system: bool) -> Any:
        """Begins a turn of a session, with the new messages or with the complete history."""
        sent = [*([("system", "s")] if system else []), ("user", question)]
        if resent and session in self.model.sessions:
            talks = self.model.sessions[session].completed()
            sent = [*(message for turn in talks for message in turn.messages), ("user", question)]
        return self._begin(worker, session, sent, new=False)

    @rule(target=sessions, turn=turns)
    def remember(self, turn: Turn) -> str:
        """Makes a session known to clients once its turn has begun."""
        return turn.session_id

    @rule(turn=turns, worker=WORKERS, answer=TEXTS, receipt=RECEIPTS)
    def complete(self, turn: Turn, worker: int, answer: str, receipt: int | None) -> None:
        """Ends a turn with an answer, in time or late."""
        self._end(worker, turn, "completed", [("assistant", answer)], receipt)

    @rule(turn=turns, worker=WORKERS, answer=st.none() | TEXTS, receipt=RECEIPTS)
    def abandon(self, turn: Turn, worker: int, answer: str | None, receipt: int | None) -> None:
        """Ends a turn as incomplete, with a partial answer or none."""
        self._end(worker, turn, "incomplete", [("assistant", answer)] if answer else [], receipt)

    @rule(turn=turns, claim=claims, worker=WORKERS, answer=TEXTS)
    def complete_claimed(self, turn: Turn, claim: Claim, worker: int, answer: str) -> None:
        """Ends a turn and its claim together."""
        model = self.model

        def expected() -> None:
            if model.running(turn.session_id, turn.number) is None or self._held(claim) is None:
                model.end("nowhere", 0, "", [], None)
            model.end(turn.session_id, turn.number, "completed", [("assistant", answer)], None)
            self._end_held(claim, answer.encode(), turn.session_id)

        end = TurnEnd("completed", answer=[to_message(("assistant", answer))], claim=claim, reply=answer.encode())
        self._both(expected, _end(self.stores[worker], turn, end))

    @rule(target=sessions, key=KEYS, worker=WORKERS, question=TEXTS, answer=TEXTS)
    def call(self, key: str, worker: int, question: str, answer: str) -> Any:
        """Runs a complete call with a key in a new session."""
        claim = self._claim(worker, key, b"1" * 32)
        if claim is None:
            return multiple()
        turn = self._begin(worker, self._new_id(), [("user", question)], new=True)
        self.complete_claimed(turn, claim, worker, answer)
        return turn.session_id

    @rule(turn=turns, worker=WORKERS)
    def renew(self, turn: Turn, worker: int) -> None:
        """Renews the leases of a worker."""
        self.model.renew(turn.session_id, turn.number, self.now)
        self._run(self.stores[worker].renew_leases([turn], [], LEASE))

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, 2 * DAY]))
    def wait(self, seconds: float) -> None:
        """Advances the clock, so that leases expire."""
        self.now += seconds

    @rule(worker=WORKERS, days=st.sampled_from([1, 30]))
    def reap(self, worker: int, days: int) -> None:
        """Runs the reaper."""
        self.model.reap(self.now, self.now - days * DAY, self.now - DAY)
        self._run(self.stores[worker].reap(session_age=days * DAY, claim_age=DAY, limit=100))

    @rule(target=sessions, session=sessions, worker=WORKERS, through=st.none() | st.integers(0, 4))
    def fork(self, session: str, worker: int, through: int | None) -> Any:
        """Forks a session."""
        new = self._new_id()
        reported, _ = self._both(
            lambda: self.model.fork(session, new, through, self.now),
            self.stores[worker].fork_session("ada", session, new, through),
        )
        return new if reported is None else multiple()

    @rule(session=sessions, worker=WORKERS)
    def delete(self, session: str, worker: int) -> None:
        """Deletes a session."""
        self._delete(session, worker)

    @rule(key=KEYS, worker=WORKERS)
    def delete_answered(self, key: str, worker: int) -> None:
        """Deletes a session with a stored reply."""
        lease = self.model.claims.get(key)
        if lease is not None and lease.session is not None:
            self._delete(lease.session, worker)

    @rule(target=claims, worker=WORKERS, key=KEYS, digest=DIGESTS)
    def claim(self, worker: int, key: str, digest: bytes) -> Any:
        """Claims a key."""
        return self._claim(worker, key, digest) or multiple()

    @rule(claim=consumes(claims), worker=WORKERS, reply=st.none() | TEXTS)
    def end_claim(self, claim: Claim, worker: int, reply: str | None) -> None:
        """Ends a claim without a session."""
        reported = reply.encode() if reply is not None else None
        self._both(lambda: self._end_held(claim, reported, None), self.stores[worker].end_claim(claim, reported))

    @invariant()
    def same(self) -> None:
        """Compares what both workers read with the model."""
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            found = self._run(store.list_sessions("ada", SessionFilter(), page_size=1000, page_token=None))[0]
            kept = {session.id: (session.turn_count, session.forked_from or None) for session in found}
            assert {name: (one.count, one.forked_from) for name, one in self.model.sessions.items()} == kept
        for name, one in self.model.sessions.items():
            expected = [
                (turn.number, turn.state, turn.reason, *message) for turn in one.turns for message in turn.shown()
            ]
            assert expected == self._kept(name)

    def _kept(self, session: str) -> list[tuple[int, str, str | None, PlainMessage, int | None]]:
        messages, _ = self._run(self.stores[1].list_messages("ada", session, page_size=1000, page_token=None))
        return [(one.turn, one.state, one.reason or None, to_plain(one.message), _receipt(one)) for one in messages]

    def _begin(self, worker: int, session: str, sent: list[PlainMessage], *, new: bool) -> Any:
        begin = TurnBegin("ada", "m", session, new, [to_message(message) for message in sent])
        failure, (expected, turn) = self._both(
            lambda: self.model.begin(session, sent, self.now, new=new), self.stores[worker].begin_turn(begin, LEASE)
        )
        if failure is not None:
            return multiple()
        number, stored, fresh = expected
        history = [message for message in stored if message[0] == "system"] + [
            message for message in stored if message[0] != "system"
        ]
        assert (number, history, fresh) == (
            turn.number,
            [to_plain(message) for message in turn.history],
            [to_plain(message) for message in turn.messages],
        )
        return turn

    def _end(self, worker: int, turn: Turn, state: str, answer: list[PlainMessage], receipt: int | None) -> None:
        reason = None if state == "completed" else "failed"
        kept = None if receipt is None else Receipt(duration_ms=receipt)
        end = TurnEnd(state, reason, [to_message(message) for message in answer], receipt=kept)
        self._both(
            lambda: self.model.end(turn.session_id, turn.number, state, answer, receipt),
            _end(self.stores[worker], turn, end),
        )

    def _claim(self, worker: int, key: str, digest: bytes) -> Claim | None:
        got: Claim | bytes
        failure, (expected, got) = self._both(
            lambda: self.model.claim(key, digest, self.now),
            self.stores[worker].claim("ada", "Create", key, digest, LEASE),
        )
        if failure is not None:
            return None
        if isinstance(got, bytes):
            assert expected == got
            return None
        assert isinstance(expected, int)
        self.fences[key, got.fence] = expected
        return got

    def _delete(self, session: str, worker: int) -> None:
        self._both(lambda: self.model.delete(session, self.now), self.stores[worker].delete_session("ada", session))

    def _held(self, claim: Claim) -> Any:
        return self.model.lease(claim.key, self.fences[claim.key, claim.fence])

    def _end_held(self, claim: Claim, reply: bytes | None, session: str | None) -> None:
        self.model.end_claim(claim.key, self.fences[claim.key, claim.fence], reply, session, self.now)

    def _both(self, expected: Callable[[], Any], actual: Coroutine[Any, Any, Any]) -> tuple[type | None, Any]:
        """Runs an operation on the model and on a store: both must succeed, or raise the same error."""
        wanted, failure = outcome(expected)
        got, refusal = outcome(lambda: self._run(actual))
        assert failure == refusal
        return failure, (wanted, got)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def _new_id(self) -> str:
        self.count += 1
        return f"session-{self.count}"


def _receipt(message: SessionMessage) -> int | None:
    return message.receipt.duration_ms if message.HasField("receipt") else None


SETTINGS = settings(
    max_examples=int(os.environ.get("INTERLEAVINGS", "25")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_sqlite() -> None:
    """SQLite and the model agree after any sequence of operations."""

    class SqliteMachine(Machine):
        async def open(self) -> Store:
            return SqliteStore(Path(self.folder.name) / "parley.db", lambda: self.now)

    run_state_machine_as_test(SqliteMachine, settings=SETTINGS)


def test_postgres(postgres_server: Server) -> None:
    """PostgreSQL and the model agree after any sequence of operations."""

    class PostgresMachine(Machine):
        def prepare(self) -> None:
            self.url = postgres_server.empty("stateful")

        async def open(self) -> Store:
            return await PostgresStore.open(self.url, 2, clock=lambda: self.now)

    run_state_machine_as_test(PostgresMachine, settings=SETTINGS)
