"""A worker process that only runs turns, for tests that kill it.

    python -m tests.contract.store_worker FILE NAME CONCURRENCY

Each session runs one turn after another. A line `session number` on stdout acknowledges a committed turn with the
messages `q number` and `a number`. It runs until it is killed, or its stdin is closed.
"""

import asyncio
import sys
from pathlib import Path

from parley.core.ports import TurnBegin, TurnEnd
from parley.stores.sqlite import SqliteStore
from parley.v1.message_pb2 import Message


def _message(role: str, text: str) -> Message:
    made = Message(role=role)
    made.content.string_value = text
    return made


async def _session(store: SqliteStore, session: str) -> None:
    number = 0
    while True:
        number += 1
        questions = [_message("user", f"q {number}")]
        turn = await store.begin_turn(TurnBegin("ada", "m", session, number == 1, questions), 10)
        await store.end_turn(turn, TurnEnd("completed", answer=[_message("assistant", f"a {number}")]))
        sys.stdout.write(f"{session} {number}\n")
        sys.stdout.flush()


async def _main(file: str, name: str, concurrency: int) -> None:
    store = SqliteStore(Path(file))
    sessions = [asyncio.create_task(_session(store, f"{name}-{index}")) for index in range(concurrency)]
    stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    done, _ = await asyncio.wait([stopped, *sessions], return_when=asyncio.FIRST_COMPLETED)
    for task in sessions:
        task.cancel()
    await asyncio.wait(sessions)
    await store.close()
    for finished in done:
        finished.result()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
