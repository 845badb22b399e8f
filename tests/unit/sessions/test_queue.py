"""Who waits for a session, and for how long; the session is a flag, and begins are functions."""

import asyncio

import pytest

from parley.core.errors import DeadlineExceeded, SessionBusy, SessionNotFound
from parley.core.ports import Turn
from parley.core.sessions.queue import Queue


class Session:
    """A session that is busy until `free` is set; the part of a store that a queue needs."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.waits: list[float] = []
        self.started: list[str] = []

    async def begin(self, name: str) -> Turn:
        """Begins a turn, and so makes the session busy again."""
        if not self.free.is_set():
            raise SessionBusy("s")
        self.free.clear()
        self.started.append(name)
        return Turn("s", len(self.started), len(self.started))

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Waits."""
        self.waits.append(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self.free.wait()
        except TimeoutError:
            pass


@pytest.fixture
def session() -> Session:
    """The session."""
    return Session()


def _enter(queue: Queue, session: Session, name: str, seconds: float = 60.0) -> asyncio.Task[Turn]:
    return asyncio.create_task(queue.wait("s", lambda: session.begin(name), seconds, None))


async def _until_length(queue: Queue, length: int) -> None:
    async with asyncio.timeout(10):
        while queue.length("s") != length:
            await asyncio.sleep(0)


async def test_first_come_first_served(session: Session) -> None:
    """Each gets its turn in the order of arrival, and only the first one asks the store."""
    queue = Queue(session)  # type: ignore[arg-type] # the part that it needs
    tasks = [_enter(queue, session, name) for name in "abc"]
    await _until_length(queue, 3)
    await asyncio.sleep(0)
    assert 1 == len(session.waits)
    for count in (1, 2, 3):
        session.free.set()
        await asyncio.wait_for(tasks[count - 1], 10)
        assert list("abc"[:count]) == session.started
    assert 0 == queue.length("s")


async def test_who_leaves_does_not_hold_up_the_others(session: Session) -> None:
    """From the middle of the line and from its head."""
    queue = Queue(session)  # type: ignore[arg-type]
    first, second, third = (_enter(queue, session, name) for name in "abc")
    await _until_length(queue, 3)
    for task, left in ((second, 2), (first, 1)):
        task.cancel()
        await _until_length(queue, left)
    session.free.set()
    await asyncio.wait_for(third, 10)
    assert ["c"] == session.started


async def test_patience_ends_at_the_head_and_in_the_line(session: Session) -> None:
    """Both find the session busy, and no wait is longer than the patience."""
    queue = Queue(session)  # type: ignore[arg-type]
    tasks = [_enter(queue, session, name, 0.02) for name in "ab"]
    for task in tasks:
        with pytest.raises(SessionBusy):
            await task
    assert max(session.waits) <= 0.02
    assert 0 == queue.length("s")


async def test_the_callers_deadline_comes_first(session: Session) -> None:
    """Who has less time than the queue is told that it is over."""
    queue = Queue(session)  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(DeadlineExceeded):
        await queue.wait("s", lambda: session.begin("a"), 60, deadline)


async def test_a_late_deadline_does_not_lengthen_the_patience(session: Session) -> None:
    """The model's `queue_timeout` still holds."""
    queue = Queue(session)  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + 60
    with pytest.raises(SessionBusy):
        await queue.wait("s", lambda: session.begin("a"), 0.02, deadline)


async def test_other_failures_end_the_wait(session: Session) -> None:
    """A session that is deleted meanwhile is not waited for."""
    queue = Queue(session)  # type: ignore[arg-type]

    async def gone() -> Turn:
        raise SessionNotFound("s")

    with pytest.raises(SessionNotFound):
        await queue.wait("s", gone, 60, None)
    assert 0 == queue.length("s")


async def test_a_notice_that_was_missed_costs_a_second_at_most(session: Session) -> None:
    """The store is asked again whatever became of its notice."""
    queue = Queue(session)  # type: ignore[arg-type]
    task = _enter(queue, session, "a")
    async with asyncio.timeout(10):
        while not session.waits:
            await asyncio.sleep(0)
    assert [1.0] == session.waits
    session.free.set()
    await task
