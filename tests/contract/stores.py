"""What every store must do, whichever database it is. A store is done when these classes pass on it.

A test module gives the fixtures: `clock`, a `Clock`; `store`, an empty store that reads it; `second`, another store on
the same database, as another worker process has it.
"""

import asyncio
from collections.abc import Sequence

import pytest

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound, TurnLost
from parley.core.ports import ApiKey, Charge, Store, Turn, TurnBegin
from parley.v1.message_pb2 import Message

LEASE = 10.0


class Clock:
    """Unix seconds that move only when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        """Tells the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds


def message(role: str, text: str) -> Message:
    """Makes a plain message."""
    made = Message(role=role)
    made.content.string_value = text
    return made


def texts(messages: Sequence[Message]) -> list[str]:
    """Reads the texts of messages."""
    return [one.content.string_value for one in messages]


async def begin(
    store: Store, session: str, *asked: str, new: bool = False, account: str = "ada", model: str = "m"
) -> Turn:
    """Begins a turn with user messages."""
    messages = [message("user", text) for text in asked]
    return await store.begin_turn(TurnBegin(account, model, session, new, messages), LEASE)


async def converse(store: Store, session: str, asked: str, answered: str, *, new: bool = False) -> None:
    """Makes one whole turn."""
    turn = await begin(store, session, asked, new=new)
    await store.commit_turn(turn, [message("assistant", answered)])


async def all_messages(store: Store, session: str, account: str = "ada") -> list[tuple[str, int, str, str | None]]:
    """Reads text, turn, state and reason of every message."""
    found, _ = await store.list_messages(account, session, page_size=1000, page_token=None)
    return [
        (one.message.content.string_value, one.turn, one.state, one.reason if one.HasField("reason") else None)
        for one in found
    ]


class TurnContract:
    """Turns: leases, history, fencing."""

    async def test_first_turn_has_no_history(self, store: Store) -> None:
        """A new session begins with turn 1 and nothing before it."""
        turn = await begin(store, "s", "hi", new=True)
        assert ("s", 1, []) == (turn.session_id, turn.number, turn.history)

    async def test_history_is_completed_turns(self, store: Store) -> None:
        """A turn gets the messages of the completed turns before it, the oldest first, without its own."""
        await converse(store, "s", "my name is Ada", "hello Ada", new=True)
        await converse(store, "s", "I am 36", "noted")
        turn = await begin(store, "s", "who am I?")
        assert ["my name is Ada", "hello Ada", "I am 36", "noted"] == texts(turn.history)
        assert ["user", "assistant", "user", "assistant"] == [one.role for one in turn.history]
        assert 3 == turn.number

    async def test_another_worker_continues(self, store: Store, second: Store) -> None:
        """What one worker was told is complete, the next call at another one builds on."""
        for number in range(1, 21):
            here, there = (store, second) if number % 2 else (second, store)
            await converse(here, "s", f"q{number}", f"a{number}", new=number == 1)
            found, _ = await there.list_messages("ada", "s", page_size=1000, page_token=None)
            assert (2 * number, f"a{number}") == (len(found), found[-1].message.content.string_value)

    async def test_messages_come_back_whole(self, store: Store) -> None:
        """Every field of a message survives, and so do fields that this version does not know."""
        rich = message("assistant", "π \0 é")
        rich.tool_calls.add(id="call_1", type="function").function.name = "look"
        rich.content.list_value.values.add().struct_value["type"] = "text"
        strange = Message.FromString(rich.SerializeToString() + b"\xfa\x3e\x03new")
        turn = await begin(store, "s", "look", new=True)
        await store.commit_turn(turn, [strange])
        assert strange == (await begin(store, "s", "and?")).history[1]

    async def test_no_messages_at_all(self, store: Store) -> None:
        """A turn may have no messages and no answer."""
        turn = await begin(store, "s", new=True)
        await store.commit_turn(turn, [])
        assert [] == (await begin(store, "s", "hi")).history

    async def test_second_turn_is_refused(self, store: Store, second: Store) -> None:
        """While a turn is in progress no other begins, at this worker or another, and the refusal changes nothing."""
        turn = await begin(store, "s", "one", new=True)
        for other in (store, second):
            with pytest.raises(SessionBusy):
                await begin(other, "s", "two")
        await store.commit_turn(turn, [message("assistant", "done")])
        assert [("one", 1, "completed", None), ("done", 1, "completed", None)] == await all_messages(store, "s")
        assert 2 == (await begin(second, "s", "two")).number

    async def test_racing_turns(self, store: Store, second: Store) -> None:
        """Of many turns that race for a session exactly one begins."""
        await converse(store, "s", "hi", "ho", new=True)
        stores = [store, second] * 25
        results = await asyncio.gather(*[begin(one, "s", "me!") for one in stores], return_exceptions=True)
        assert [2] == [turn.number for turn in results if isinstance(turn, Turn)]
        assert 49 == sum(isinstance(result, SessionBusy) for result in results)

    async def test_unknown_session(self, store: Store) -> None:
        """A session that never existed cannot be continued, and the attempt does not make it."""
        with pytest.raises(SessionNotFound):
            await begin(store, "s", "hi")
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")

    async def test_foreign_session_is_unknown(self, store: Store) -> None:
        """Another account's session is refused as one that does not exist, whether it is busy or not."""
        turn = await begin(store, "s", "secret", new=True)
        with pytest.raises(SessionNotFound):
            await begin(store, "s", "hi", account="bob")
        await store.commit_turn(turn, [])
        with pytest.raises(SessionNotFound) as refused:
            await begin(store, "s", "hi", account="bob")
        with pytest.raises(SessionNotFound) as missing:
            await begin(store, "t", "hi", account="bob")
        assert str(missing.value).replace('"t"', '"s"') == str(refused.value)

    async def test_session_of_another_model(self, store: Store) -> None:
        """A session belongs to the model that it was made with; another one is told which."""
        turn = await begin(store, "s", "hi", new=True)
        await store.commit_turn(turn, [])
        with pytest.raises(InvalidRequest, match=r'belongs to the model "m"; name that model') as refused:
            await begin(store, "s", "hi", model="other")
        assert "model" == refused.value.param
        assert 1 == (await store.get_session("ada", "s")).turn_count

    async def test_abandoned_turn(self, store: Store) -> None:
        """A turn that was given up stays readable with its reason, and out of the history."""
        turn = await begin(store, "s", "one", new=True)
        await store.abandon_turn(turn, "cancelled", [message("assistant", "half an")])
        expected = [("one", 1, "incomplete", "cancelled"), ("half an", 1, "incomplete", "cancelled")]
        assert expected == await all_messages(store, "s")
        following = await begin(store, "s", "two")
        assert (2, []) == (following.number, following.history)

    async def test_in_progress_is_readable(self, store: Store, second: Store) -> None:
        """The messages of a turn are on disk as soon as it has begun."""
        await begin(store, "s", "one", "two", new=True)
        expected = [("one", 1, "in_progress", None), ("two", 1, "in_progress", None)]
        assert expected == await all_messages(second, "s")

    async def test_crashed_turn(self, store: Store, second: Store, clock: Clock) -> None:
        """The turn of a worker that died gives way when its lease has run out, and is marked so."""
        await converse(store, "s", "one", "first", new=True)
        await begin(store, "s", "two")
        clock.advance(LEASE - 0.01)
        with pytest.raises(SessionBusy):
            await begin(second, "s", "three")
        clock.advance(0.01)
        turn = await begin(second, "s", "three")
        assert (3, ["one", "first"]) == (turn.number, texts(turn.history))
        states = [(text, state, reason) for text, _, state, reason in await all_messages(store, "s")]
        assert ("two", "incomplete", "crashed") == states[2]
        assert ("three", "in_progress", None) == states[3]

    async def test_late_worker_cannot_write(self, store: Store, second: Store, clock: Clock) -> None:
        """A worker that slept past its lease can neither commit nor abandon once another one has taken over."""
        late = await begin(store, "s", "one", new=True)
        clock.advance(LEASE)
        turn = await begin(second, "s", "two")
        with pytest.raises(TurnLost):
            await store.commit_turn(late, [message("assistant", "too late")])
        with pytest.raises(TurnLost):
            await store.abandon_turn(late, "failed", [message("assistant", "too late")])
        await second.commit_turn(turn, [message("assistant", "in time")])
        with pytest.raises(TurnLost):
            await store.commit_turn(late, [message("assistant", "too late")])
        expected = [("one", "incomplete"), ("two", "completed"), ("in time", "completed")]
        assert expected == [(text, state) for text, _, state, _ in await all_messages(store, "s")]

    async def test_late_but_alone(self, store: Store, clock: Clock) -> None:
        """A worker that slept past its lease may still commit where nobody took the session over."""
        turn = await begin(store, "s", "one", new=True)
        clock.advance(10 * LEASE)
        await store.commit_turn(turn, [message("assistant", "done")])
        assert ["one", "done"] == texts((await begin(store, "s", "two")).history)

    async def test_turn_ends_once(self, store: Store) -> None:
        """A turn that has ended cannot end again."""
        turn = await begin(store, "s", "one", new=True)
        await store.commit_turn(turn, [message("assistant", "done")])
        with pytest.raises(TurnLost):
            await store.commit_turn(turn, [message("assistant", "again")])
        with pytest.raises(TurnLost):
            await store.abandon_turn(turn, "failed", [])
        assert 2 == len(await all_messages(store, "s"))

    async def test_renewed_lease(self, store: Store, second: Store, clock: Clock) -> None:
        """A renewed lease lasts from the renewal on."""
        turns = [await begin(store, session, "one", new=True) for session in ("s", "t")]
        clock.advance(LEASE - 1)
        await store.renew_leases(turns, LEASE)
        clock.advance(LEASE - 1)
        for session in ("s", "t"):
            with pytest.raises(SessionBusy):
                await begin(second, session, "two")
        clock.advance(1)
        assert 2 == (await begin(second, "s", "two")).number

    async def test_renewing_what_is_lost(self, store: Store, second: Store, clock: Clock) -> None:
        """Renewing leaves alone a lease that another worker has by now, and turns that have ended."""
        lost = await begin(store, "s", "one", new=True)
        ended = await begin(store, "t", "one", new=True)
        await store.commit_turn(ended, [])
        clock.advance(LEASE)
        await begin(second, "s", "two")
        await store.renew_leases([lost, ended], 100 * LEASE)
        await store.renew_leases([], LEASE)
        assert 2 == (await begin(store, "t", "two")).number
        clock.advance(LEASE)
        assert 3 == (await begin(store, "s", "three")).number

    async def test_cancelled_caller(self, store: Store) -> None:
        """A caller that goes away while its turn begins leaves no lease behind."""
        await converse(store, "s", "one", "first", new=True)
        for _ in range(20):
            task = asyncio.create_task(begin(store, "s", "gone"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # Whatever the cancelled caller left is in the store once a later write is.
            await store.renew_leases([Turn("other", 1, 1)], LEASE)
            await store.renew_leases([Turn("other", 1, 1)], LEASE)
        turn = await begin(store, "s", "two")
        assert ["one", "first"] == texts(turn.history)


# The token [9223372036854775808,1]: a number that no database can compare with.
_HUGE = "WzkyMjMzNzIwMzY4NTQ3NzU4MDgsMV0"


class SessionContract:
    """Sessions: reading, listing, deleting."""

    async def test_particulars(self, store: Store, clock: Clock) -> None:
        """A session tells its model, when it was made, when its latest turn began, and how many turns it has."""
        await converse(store, "s", "one", "first", new=True)
        clock.advance(60)
        turn = await begin(store, "s", "two")
        clock.advance(5)
        await store.abandon_turn(turn, "failed", [])
        session = await store.get_session("ada", "s")
        assert ("s", "chat.session", "m") == (session.id, session.object, session.model)
        assert (1_700_000_000, 1_700_000_060, 2) == (session.created, session.updated, session.turn_count)

    async def test_foreign_session_is_hidden(self, store: Store) -> None:
        """Another account can neither read, list nor delete a session."""
        await converse(store, "s", "one", "first", new=True)
        with pytest.raises(SessionNotFound):
            await store.get_session("bob", "s")
        with pytest.raises(SessionNotFound):
            await store.list_messages("bob", "s", page_size=10, page_token=None)
        with pytest.raises(SessionNotFound):
            await store.delete_session("bob", "s")
        assert ([], None) == await store.list_sessions("bob", model=None, page_size=10, page_token=None)
        assert 2 == len(await all_messages(store, "s"))

    async def test_list_pages(self, store: Store, clock: Clock) -> None:
        """Pages follow one another without gap or repetition, the latest turn first, equal times included."""
        for number in range(7):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(number % 2)
        assert ["s6", "s5", "s4", "s3", "s2", "s1", "s0"] == await self._listed(store, page_size=100)
        for size in (1, 2, 3, 7):
            assert ["s6", "s5", "s4", "s3", "s2", "s1", "s0"] == await self._listed(store, page_size=size)

    async def test_a_turn_moves_a_session_up(self, store: Store, clock: Clock) -> None:
        """A new turn puts its session first, and no page shows it a second time."""
        for number in range(4):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(1)
        page, token = await store.list_sessions("ada", model=None, page_size=2, page_token=None)
        await begin(store, "s3", "again")
        rest, end = await store.list_sessions("ada", model=None, page_size=2, page_token=token)
        assert (["s3", "s2"], ["s1", "s0"], None) == ([one.id for one in page], [one.id for one in rest], end)
        clock.advance(1)
        await begin(store, "s0", "again")
        assert "s0" == (await self._listed(store, page_size=1))[0]

    async def test_list_by_model(self, store: Store, clock: Clock) -> None:
        """The list can be narrowed to a model, over page boundaries."""
        for number in range(6):
            turn = await begin(store, f"s{number}", "q", new=True, model=f"m{number % 2}")
            await store.commit_turn(turn, [])
            clock.advance(1)
        assert ["s5", "s3", "s1"] == await self._listed(store, page_size=2, model="m1")
        assert [] == await self._listed(store, page_size=2, model="m2")

    async def test_message_pages(self, store: Store) -> None:
        """Pages of messages follow one another without gap or repetition, the oldest first."""
        for number in range(3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
        for size in (1, 2, 4, 6):
            found: list[str] = []
            token = None
            while True:
                page, token = await store.list_messages("ada", "s", page_size=size, page_token=token)
                assert len(page) <= size
                found += [one.message.content.string_value for one in page]
                if token is None:
                    break
            assert ["q0", "a0", "q1", "a1", "q2", "a2"] == found

    @pytest.mark.parametrize(
        "token",
        ["x", "!!", "WzFd", "bnVsbA", "WzEsImEiLDJd", "W251bGwsbnVsbF0", "WzFlOTk5LDFd", "A" * 9999, "é", _HUGE],
    )
    async def test_bad_page_token(self, store: Store, token: str) -> None:
        """A token that is not ours is the caller's mistake."""
        await converse(store, "s", "q", "a", new=True)
        with pytest.raises(InvalidRequest) as refused:
            await store.list_sessions("ada", model=None, page_size=2, page_token=token)
        assert "page_token" == refused.value.param
        with pytest.raises(InvalidRequest) as refused:
            await store.list_messages("ada", "s", page_size=2, page_token=token)
        assert "page_token" == refused.value.param

    async def test_tokens_do_not_cross(self, store: Store) -> None:
        """A token of one list is not good for the other."""
        for session in ("s", "t"):
            await converse(store, session, "q", "a", new=True)
        _, of_sessions = await store.list_sessions("ada", model=None, page_size=1, page_token=None)
        _, of_messages = await store.list_messages("ada", "s", page_size=1, page_token=None)
        with pytest.raises(InvalidRequest):
            await store.list_messages("ada", "s", page_size=1, page_token=of_sessions)
        with pytest.raises(InvalidRequest):
            await store.list_sessions("ada", model=None, page_size=1, page_token=of_messages)

    async def test_delete(self, store: Store, second: Store) -> None:
        """A deleted session is gone with all its messages, everywhere, and its id may be used anew."""
        await converse(store, "s", "one", "first", new=True)
        await converse(store, "t", "other", "kept", new=True)
        await store.delete_session("ada", "s")
        with pytest.raises(SessionNotFound):
            await second.get_session("ada", "s")
        with pytest.raises(SessionNotFound):
            await second.list_messages("ada", "s", page_size=10, page_token=None)
        with pytest.raises(SessionNotFound):
            await begin(second, "s", "two")
        with pytest.raises(SessionNotFound):
            await store.delete_session("ada", "s")
        await begin(store, "s", "fresh", new=True)
        assert [("fresh", 1, "in_progress", None)] == await all_messages(store, "s")
        assert 2 == len(await all_messages(store, "t"))

    async def test_delete_while_busy(self, store: Store, second: Store, clock: Clock) -> None:
        """A session is not deleted under a running turn; once that turn's lease has run out, it is."""
        turn = await begin(store, "s", "one", new=True)
        with pytest.raises(SessionBusy):
            await second.delete_session("ada", "s")
        clock.advance(LEASE)
        await second.delete_session("ada", "s")
        with pytest.raises(TurnLost):
            await store.commit_turn(turn, [message("assistant", "too late")])

    @staticmethod
    async def _listed(store: Store, *, page_size: int, model: str | None = None) -> list[str]:
        """Reads every page of the list."""
        found: list[str] = []
        token = None
        while True:
            page, token = await store.list_sessions("ada", model=model, page_size=page_size, page_token=token)
            assert len(page) <= page_size
            found += [one.id for one in page]
            if token is None:
                return found


def key(number: int, *, account: str = "ada", plan: str = "pro", expires: int | None = None) -> ApiKey:
    """Makes a key as the store gets it."""
    digest = bytes([number]) * 32
    return ApiKey(f"key_{number}", f"name {number}", account, plan, digest, ("m1", "m2"), 1_700_000_000, expires)


class KeyContract:
    """API keys and accounts."""

    async def test_key_comes_back_whole(self, store: Store, second: Store) -> None:
        """A key is found by its digest at every worker, with all that it was stored with."""
        await store.add_key(key(1, expires=1_800_000_000))
        assert key(1, expires=1_800_000_000) == await second.find_key(bytes([1]) * 32)
        assert None is await second.find_key(bytes([2]) * 32)

    async def test_keys_are_listed(self, store: Store) -> None:
        """Keys are listed the oldest first, those of one second in the order in which they were made."""
        made = [key(number) for number in (5, 3, 4)]
        for one in made:
            await store.add_key(one)
        assert made == await store.list_keys()

    async def test_plan_is_the_accounts(self, store: Store) -> None:
        """The plan belongs to the account: the latest key sets it for all keys of that account, and no other."""
        await store.add_key(key(1, plan="pro"))
        await store.add_key(key(2, plan="pro", account="bob"))
        await store.add_key(key(3, plan="free"))
        assert ["free", "pro", "free"] == [one.plan for one in await store.list_keys()]

    async def test_plan_is_kept(self, store: Store) -> None:
        """Where the plan is to be kept, an account that is there keeps its own, and a new one gets the key's."""
        added = [
            await store.add_key(key(1, plan="free")),
            await store.add_key(key(2, plan="pro"), keep_plan=True),
            await store.add_key(key(3, plan="pro", account="bob"), keep_plan=True),
        ]
        assert ["free", "free", "pro"] == [one.plan for one in added]
        assert added == await store.list_keys()

    async def test_revoked_once(self, store: Store, second: Store) -> None:
        """A revoked key stays, marked with the time of the first revocation."""
        await store.add_key(key(1))
        await store.add_key(key(2))
        revoked = await store.revoke_key("key_1", 1_700_000_100)
        again = await second.revoke_key("key_1", 1_700_000_200)
        assert revoked == again == await second.find_key(bytes([1]) * 32)
        assert [1_700_000_100, None] == [one.revoked for one in await store.list_keys()]

    async def test_unknown_key_is_not_revoked(self, store: Store) -> None:
        """Revoking a key that does not exist says so."""
        assert None is await store.revoke_key("key_9", 1)


def charge(amount: int, *, subject: str = "key:1", kind: str = "tokens", per_minute: int = 60) -> Charge:
    """Makes a charge on a bucket that fills by one a second."""
    return Charge(subject, kind, per_minute, amount)


class LimitContract:
    """Limits a minute."""

    async def test_a_bucket_is_full_at_first_and_empties(self, store: Store) -> None:
        """What is reserved is taken until nothing is left, and what does not fit is not."""
        first, second, third = [await store.reserve([charge(amount)]) for amount in (40, 21, 20)]
        assert (True, (20,)) == (first.granted, first.left)
        assert (False, (20,)) == (second.granted, second.left)
        assert (True, (0,)) == (third.granted, third.left)

    async def test_a_bucket_fills_evenly(self, store: Store, clock: Clock) -> None:
        """Each second gives back its share, until the bucket is full."""
        await store.reserve([charge(60)])
        clock.advance(10)
        assert pytest.approx((10,)) == (await store.reserve([charge(0)])).left
        clock.advance(0.5)
        assert pytest.approx((0.5,)) == (await store.reserve([charge(10)])).left
        clock.advance(600)
        assert (60,) == (await store.reserve([charge(0)])).left

    async def test_waiting_as_long_as_it_takes_is_enough(self, store: Store, clock: Clock) -> None:
        """Whoever comes back just when the next unit has come is let in, however often."""
        await store.reserve([charge(7, per_minute=7)])
        for _ in range(100):
            clock.advance(60 / 7)
            assert (await store.reserve([charge(1, per_minute=7)])).granted
        clock.advance(60 / 7 - 0.01)
        assert not (await store.reserve([charge(1, per_minute=7)])).granted

    async def test_all_or_nothing(self, store: Store) -> None:
        """Where one bucket lacks something, none is charged."""
        key, account = charge(10), charge(10, subject="account:a")
        await store.reserve([charge(55, subject="account:a")])
        refused = await store.reserve([key, account])
        assert (False, (60, 5)) == (refused.granted, refused.left)
        assert (60, 5) == (await store.reserve([charge(0), charge(0, subject="account:a")])).left

    async def test_buckets_are_apart(self, store: Store) -> None:
        """Neither another subject nor another kind shares a bucket."""
        await store.reserve([charge(60)])
        others = [charge(60, subject="key:2"), charge(60, kind="requests"), charge(60, subject="account:1")]
        assert (True, (0, 0, 0)) == ((made := await store.reserve(others)).granted, made.left)

    async def test_workers_share_a_bucket(self, store: Store, second: Store) -> None:
        """Of many calls at several workers exactly as many are let in as one bucket holds."""
        calls = [
            one.reserve([charge(1), charge(1, subject="account:a", per_minute=100)]) for one in [store, second] * 50
        ]
        made = await asyncio.gather(*calls)
        assert 60 == sum(one.granted for one in made)
        assert (0, 40) == (await second.reserve([charge(0), charge(0, subject="account:a", per_minute=100)])).left

    async def test_settling_gives_back_and_takes_more(self, store: Store, second: Store) -> None:
        """What was not used comes back; what was used beyond the reservation is owed, and waited for."""
        await store.reserve([charge(50)])
        await second.settle([charge(-40)])
        assert (50,) == (await store.reserve([charge(0)])).left
        await second.settle([charge(80)])
        owed = await store.reserve([charge(1)])
        assert (False, (-30,)) == (owed.granted, owed.left)

    async def test_a_debt_is_paid_by_time(self, store: Store, clock: Clock) -> None:
        """After a debt the bucket fills no faster and no slower."""
        await store.settle([charge(90)])
        clock.advance(31)
        assert pytest.approx((1,)) == (await store.reserve([charge(0)])).left

    async def test_settling_does_not_overflow(self, store: Store, clock: Clock) -> None:
        """What has drained while the call ran is not given back a second time."""
        await store.reserve([charge(50)])
        clock.advance(30)
        await store.settle([charge(-50)])
        assert (60,) == (await store.reserve([charge(0)])).left
        assert not (await store.reserve([charge(61)])).granted

    async def test_another_size(self, store: Store) -> None:
        """Where the limit is changed, what was used stays used."""
        await store.reserve([charge(50)])
        assert (950,) == (await store.reserve([charge(0, per_minute=1000)])).left
        assert (-10,) == (await store.reserve([charge(0, per_minute=40)])).left

    async def test_a_clock_that_was_set_back(self, store: Store, clock: Clock) -> None:
        """Nobody is locked out because the time was wrong for a while."""
        await store.reserve([charge(60)])
        clock.advance(-3600)
        assert (await store.reserve([charge(60)])).granted

    async def test_nothing_to_count(self, store: Store) -> None:
        """Without charges a call is let in."""
        assert (True, ()) == ((made := await store.reserve([])).granted, made.left)
        await store.settle([])


class LifeContract:
    """Opening and closing."""

    async def test_check(self, store: Store) -> None:
        """A healthy store says nothing."""
        await store.check()
