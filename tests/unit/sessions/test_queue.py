"""Tests of the queue of a session, which is replaced by a flag."""

import asyncio

import pytest

from parley.core.errors import DeadlineExceeded, SessionBusy, SessionNotFound
from parley.core.ports import Turn
from parley.core.sessions.queue import Queue


class Session:
    """A session that is busy until `free` is set, with the part of a store that a queue uses."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.waits: list[float] = []
        self.started: list[str] = []

    async def begin(self, name: str) -> Turn:
        """Begins a turn, which makes the session busy."""
        if not self.free.is_set():
            raise SessionBusy("s")
        self.free.clear()
        self.started.append(name)
        return Turn("s", len(self.started), len(self.started))

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Waits until the session is free or time is up."""
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
    async with asyncio.timeout(60):
        while queue.length("s") != length:
            await asyncio.sleep(0)


async def test_first_come_first_served(session: Session) -> None:
    """Calls begin in order of arrival, and only the first waiting call polls the store."""
    queue = Queue(session)  # type: ignore[arg-type] # the part that it needs
    tasks = [_enter(queue, session, name) for name in "abc"]
    await _until_length(queue, 3)
    await asyncio.sleep(0)
    assert 1 == len(session.waits)
    for count in (1, 2, 3):
        session.free.set()
        await asyncio.wait_for(tasks[count - 1], 60)
        assert list("abc"[:count]) == session.started
    assert 0 == queue.length("s")


async def test_a_cancelled_call_does_not_block_the_others(session: Session) -> None:
    """A cancelled call, in the middle or at the head of the queue, does not block the others."""
    queue = Queue(session)  # type: ignore[arg-type]
    first, second, third = (_enter(queue, session, name) for name in "abc")
    await _until_length(queue, 3)
    for task, left in ((second, 2), (first, 1)):
        task.cancel()
        await _until_length(queue, left)
    session.free.set()
    await asyncio.wait_for(third, 60)
    assert ["c"] == session.started


async def test_the_timeout_applies_in_the_whole_queue(session: Session) -> None:
    """Both the first and the second call raise SessionBusy after the timeout, and no wait exceeds it."""
    queue = Queue(session)  # type: ignore[arg-type]
    tasks = [_enter(queue, session, name, 0.02) for name in "ab"]
    for task in tasks:
        with pytest.raises(SessionBusy):
            await task
    assert max(session.waits) <= 0.02
    assert 0 == queue.length("s")


async def test_the_callers_deadline_comes_first(session: Session) -> None:
    """A call whose deadline precedes the timeout of the queue raises DeadlineExceeded."""
    queue = Queue(session)  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(DeadlineExceeded):
        await queue.wait("s", lambda: session.begin("a"), 60, deadline)


async def test_a_late_deadline_does_not_extend_the_timeout(session: Session) -> None:
    """A deadline after the timeout of the queue does not extend it."""
    queue = Queue(session)  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + 60
    with pytest.raises(SessionBusy):
        await queue.wait("s", lambda: session.begin("a"), 0.02, deadline)


async def test_other_errors_end_the_wait(session: Session) -> None:
    """An error other than SessionBusy, such as a deleted session, ends the wait."""
    queue = Queue(session)  # type: ignore[arg-type]

    async def gone() -> Turn:
        raise SessionNotFound("s")

    with pytest.raises(SessionNotFound):
        await queue.wait("s", gone, 60, None)
    assert 0 == queue.length("s")


async def test_a_missed_notification_delays_by_at_most_a_second(session: Session) -> None:
    """The store is polled after a second even if the notification of a release is lost."""
    queue = Queue(session)  # type: ignore[arg-type]
    task = _enter(queue, session, "a")
    async with asyncio.timeout(60):
        while not session.waits:
            await asyncio.sleep(0)
    assert [1.0] == session.waits
    session.free.set()
    await task
