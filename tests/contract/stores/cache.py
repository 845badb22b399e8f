"""Contract of kept answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from parley.core.ports import CacheSize, KeptAnswer, Reaped, Store
from parley.core.ports.cache import MAX_AHEAD_SECONDS, ROW_BYTES
from tests.contract.stores.making import Clock, begin, complete, converse

TTL = 60.0


def kept(name: str = "a", *, account: str = "ada", model: str = "m", session: str | None = None) -> KeptAnswer:
    """Returns an answer to keep, whose digest and text are its name."""
    return KeptAnswer(name.encode() * 32, account, model, session, f"answer {name}".encode(), TTL)


async def found(store: Store, *names: str, max_age: float = TTL) -> list[str]:
    """Returns the names that the store has answers for."""
    answers = [await store.find_answer(name.encode() * 32, max_age) for name in names]
    return [name for name, answer in zip(names, answers, strict=True) if answer == f"answer {name}".encode()]


async def keep(store: Store, answers: Sequence[KeptAnswer], clock: Clock) -> None:
    """Keeps answers, a second apart."""
    for one in answers:
        assert await store.keep_answer(one)
        clock.advance(1)


class CacheContract:
    """Contract of kept answers."""

    async def test_kept_answers_are_found(self, store: Store, second: Store) -> None:
        """An answer is found by its digest, by every worker; an answer to the same request replaces it."""
        assert [] == await found(store, "a")
        assert await store.keep_answer(kept())
        assert ["a"] == await found(second, "a", "b")
        assert await second.keep_answer(replace(kept(account="bob"), answer=b"newer"))
        assert b"newer" == await store.find_answer(b"a" * 32, TTL)
        assert [CacheSize("bob", "m", 1, len(b"newer") + ROW_BYTES)] == await store.cache_sizes()

    async def test_answers_age(self, store: Store, clock: Clock) -> None:
        """An answer is found for its time, or for less if the caller wants a younger one; then it is reaped."""
        await store.keep_answer(kept())
        clock.advance(TTL - 1)
        assert (["a"], []) == (await found(store, "a", max_age=TTL), await found(store, "a", max_age=TTL - 2))
        assert Reaped() == await store.reap(session_age=None, claim_age=9e9, limit=9)
        clock.advance(1)
        assert [] == await found(store, "a", max_age=2 * TTL)
        for name in "bcd":
            await store.keep_answer(replace(kept(name), ttl=0.0))
        assert Reaped(answers=3) == await store.reap(session_age=None, claim_age=9e9, limit=3)
        assert Reaped(answers=1) == await store.reap(session_age=None, claim_age=9e9, limit=3)
        assert [] == await store.cache_sizes()

    async def test_a_clock_that_steps_back(self, store: Store, clock: Clock) -> None:
        """An answer from the future, whose age is unknown, is not found: its time could be over."""
        await store.keep_answer(kept())
        clock.advance(-MAX_AHEAD_SECONDS)
        assert ["a"] == await found(store, "a")
        clock.advance(-1)
        assert [] == await found(store, "a")
        assert await store.keep_answer(kept())
        assert ["a"] == await found(store, "a")

    async def test_answers_of_a_session_are_removed_with_it(self, store: Store, second: Store, clock: Clock) -> None:
        """A deleted or expired session leaves no answer behind, and none can be kept for it; others stay."""
        for session in ("s", "old", "t"):
            await converse(store, session, "q", "a", new=True)
        answers = [kept("a", session="s"), kept("b", session="s"), kept("c", session="old"), kept("d", session="t")]
        await keep(store, [*answers, kept("e")], clock)
        await second.delete_session("ada", "s")
        assert ["c", "d", "e"] == await found(store, *"abcde")
        assert not await store.keep_answer(kept("a", session="s"))
        await complete(store, await begin(store, "t", "q2"), "a2")
        assert 1 == (await second.reap(session_age=4.0, claim_age=9e9, limit=9)).sessions
        assert ["d", "e"] == await found(store, *"abcde")
        assert not await store.keep_answer(kept("c", session="old"))

    async def test_concurrent_answers_and_a_deletion(self, store: Store, second: Store) -> None:
        """Of answers that are kept while their session is deleted, none remains."""
        for number in range(5):
            session = f"s{number}"
            await converse(store, session, "q", "a", new=True)
            answers = [kept(name, session=session) for name in "abcdef"]
            await asyncio.gather(
                *[(store, second)[place % 2].keep_answer(one) for place, one in enumerate(answers)],
                second.delete_session("ada", session),
            )
            assert [] == await found(store, *"abcdef")

    async def test_the_oldest_answers_are_trimmed(self, store: Store, clock: Clock) -> None:
        """Answers of an account and a model beyond a size are removed, the oldest first, a few at a time."""
        await keep(store, [kept(name) for name in "abcdef"], clock)
        await keep(store, [kept("g", account="bob"), kept("h", model="n")], clock)
        size = kept().size
        assert 0 == await store.trim_answers("ada", "m", 6 * size, 9)
        assert 2 == await store.trim_answers("ada", "m", 3 * size, 2)
        assert [*"cdefgh"] == await found(store, *"abcdefgh")
        assert 1 == await store.trim_answers("ada", "m", 4 * size - 1, 2)
        assert [*"defgh"] == await found(store, *"abcdefgh")

    async def test_answers_are_cleared(self, store: Store) -> None:
        """Answers are cleared by account and by model, or all; a name is not a pattern."""
        owners = [("ada", "m"), ("ada", "n"), ("bob", "m"), ("bob", "n")]
        for name, (account, model) in zip("abcd", owners, strict=True):
            await store.keep_answer(kept(name, account=account, model=model))
        assert 0 == await store.clear_answers("ada' OR 1=1", None, 9)
        assert 1 == await store.clear_answers("ada", "m", 9)
        assert 1 == await store.clear_answers(None, "m", 9)
        assert ["b", "d"] == await found(store, *"abcd")
        assert [1, 1, 0] == [await store.clear_answers(None, None, 1) for _ in range(3)]

    async def test_sizes(self, store: Store) -> None:
        """The sizes are by account and model, the largest first."""
        for name in "abc":
            await store.keep_answer(kept(name))
        await store.keep_answer(kept("d", account="bob"))
        size = kept().size
        assert [CacheSize("ada", "m", 3, 3 * size), CacheSize("bob", "m", 1, size)] == await store.cache_sizes()
