"""Tests of the leases of calls, against a store that records its calls."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from parley.config import Model, parse
from parley.core.errors import SessionBusy, StoreUnavailable, TurnLost
from parley.core.ports import Caller, Charge, Claim, Turn, TurnBegin, TurnEnd
from parley.core.sessions.idempotency import Key, digest
from parley.core.sessions.turns import CallLease, Turns
from parley.core.usage.limits import Admission
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Usage

CALLER = Caller("default", "key_1")
KEY = Key("CreateChatCompletion", "k")


def _model(more: str = "") -> Model:
    backends = 'backends: {a: {kind: openai, base_url: "http://127.0.0.1:1"}}'
    return parse(f"{backends}\nmodels: [{{id: m, targets: [{{backend: a}}]{more}}}]", "test").models[0]


class RecordingStore:
    """The part of a store that turns use; writes block until `gate` is set, and `errors` are raised by operation."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.started: list[TurnBegin] = []
        self.ends: list[TurnEnd] = []
        self.claimed: Claim | bytes = Claim("default", KEY.method, KEY.text, 1)
        self.errors: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewed = asyncio.Event()

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        await self.gate.wait()
        self._fail("begin")
        self.started.append(begin)
        return Turn(begin.session_id, len(self.started), 1, messages=list(begin.messages))

    async def end_turn(self, turn: Turn, end: TurnEnd) -> None:
        await self.gate.wait()
        self._fail("end")
        self.log.append((end.state, turn.session_id, end.reason))
        self.ends.append(end)

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        await self.gate.wait()
        self.log.append(("claim", account, method, key, digest))
        return self.claimed

    async def settle(self, charges: Sequence[Charge]) -> None:
        self.log.append(("settled", [charge.amount for charge in charges]))

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        await self.gate.wait()
        self._fail("end_claim")
        self.log.append(("freed" if reply is None else "kept", claim.key))

    async def renew_leases(self, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        self.log.append(("renew", sorted(turn.session_id for turn in turns), [claim.key for claim in claims]))
        self.renewed.set()
        if self.log.count(self.log[-1]) == 1:
            raise StoreUnavailable("away for a moment")

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        self.log.append(("wait", session_id))

    def _fail(self, what: str) -> None:
        if self.errors.get(what):
            raise self.errors[what].pop(0)


@pytest.fixture
def store() -> RecordingStore:
    """The store."""
    return RecordingStore()


def _turns(store: RecordingStore, **options: float) -> Turns:
    return Turns(store, **options)  # type: ignore[arg-type] # the part that turns need


async def _begin(turns: Turns, session: str, lease: CallLease | None = None, model: Model | None = None) -> CallLease:
    lease = lease or CallLease()
    await turns.begin(lease, CreateChatCompletionRequest(session_id=session), CALLER, model or _model())
    return lease


async def _claimed(turns: Turns) -> CallLease:
    lease, _ = await turns.claim(KEY, CreateChatCompletionRequest(), CALLER)
    return lease


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancels a task during its first write."""
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leases_are_renewed_while_calls_run(store: RecordingStore) -> None:
    """Running turns and claims are renewed together, also after a failure of the store; ended ones are not."""
    turns = _turns(store, renew_seconds=0.01)
    lease = await _begin(turns, "a", await _claimed(turns))
    await _begin(turns, "b")
    store.log.clear()
    store.renewed.clear()
    await asyncio.wait_for(store.renewed.wait(), 10)
    await turns.commit(lease, ChatCompletion())
    store.renewed.clear()
    await asyncio.wait_for(store.renewed.wait(), 10)
    await turns.close()
    assert ("renew", ["a", "b"], ["k"]) == store.log[0]
    assert ("renew", ["b"], []) == store.log[-1]


async def test_a_claim_is_renewed_before_its_turn_begins(store: RecordingStore) -> None:
    """The claim of a call that waits for its session is renewed."""
    turns = _turns(store, renew_seconds=0.01)
    await _claimed(turns)
    await asyncio.wait_for(store.renewed.wait(), 10)
    assert ("renew", [], ["k"]) == store.log[-1]
    await turns.close()


async def test_a_call_cancelled_during_the_begin_leaves_no_lease(store: RecordingStore) -> None:
    """A turn that begins after the cancellation of its call is ended as incomplete."""
    turns = _turns(store)
    store.gate.clear()
    await _cancelled(asyncio.create_task(_begin(turns, "a")))
    store.gate.set()
    while not store.log:
        await asyncio.sleep(0)
    assert [("incomplete", "a", "cancelled")] == store.log


async def test_a_call_cancelled_during_the_claim_leaves_no_claim(store: RecordingStore) -> None:
    """A claim that is acquired after the cancellation of its call is released."""
    turns = _turns(store)
    store.gate.clear()
    await _cancelled(asyncio.create_task(_claimed(turns)))
    store.gate.set()
    while len(store.log) < 2:
        await asyncio.sleep(0)
    assert ("freed", "k") == store.log[-1]


async def test_a_commit_continues_after_cancellation(store: RecordingStore) -> None:
    """A commit continues after the cancellation of its call, and `close` waits for it."""
    turns = _turns(store)
    lease = await _begin(turns, "a")
    store.gate.clear()
    await _cancelled(asyncio.create_task(turns.commit(lease, ChatCompletion())))
    store.gate.set()
    await turns.close()
    assert [("completed", "a", None)] == store.log


async def test_turn_and_key_end_together(store: RecordingStore) -> None:
    """The message, the usage and the reply of the key are stored in one write."""
    turns = _turns(store)
    lease = await _begin(turns, "a", await _claimed(turns))
    answer = ChatCompletion(id="x", usage=Usage(total_tokens=5))
    answer.choices.add().message.content.string_value = "Hello"
    answer.choices[0].message.role = "assistant"
    await turns.commit(lease, answer)
    (end,) = store.ends
    assert ([answer.choices[0].message], answer.usage) == (end.answer, end.usage)
    assert (lease.claim, answer) == (end.claim, ChatCompletion.FromString(end.reply))


async def test_without_a_key_no_reply_is_stored(store: RecordingStore) -> None:
    """A call without an idempotency key stores no reply."""
    turns = _turns(store)
    await turns.commit(await _begin(turns, "a"), ChatCompletion(id="x"))
    assert (None, b"") == (store.ends[0].claim, store.ends[0].reply)


@pytest.mark.parametrize(("is_complete", "expected"), [(True, "kept"), (False, "freed")])
async def test_a_key_ends_without_a_turn(store: RecordingStore, is_complete: bool, expected: str) -> None:
    """Without a session, the reply of a complete call is stored, and the key of an incomplete call is released."""
    turns = _turns(store)
    lease = await _claimed(turns)
    if is_complete:
        await turns.commit(lease, ChatCompletion())
    else:
        turns.abandon(lease, "failed", None)
    await turns.close()
    assert (expected, "k") == store.log[-1]


async def test_a_call_without_turn_and_key_writes_nothing(store: RecordingStore) -> None:
    """A call without a turn and a key writes nothing."""
    turns = _turns(store)
    await turns.commit(CallLease(), ChatCompletion())
    turns.abandon(CallLease(), "failed", None)
    await turns.close()
    assert [] == store.log


async def test_a_lost_turn_releases_its_key(store: RecordingStore) -> None:
    """A lost turn raises TurnLost and releases the key, so that the call can be repeated with it."""
    turns = _turns(store)
    for end in ("commit", "abandon"):
        store.log.clear()
        store.errors["end"] = [TurnLost()]
        lease = await _begin(turns, "a", await _claimed(turns))
        if end == "commit":
            with pytest.raises(TurnLost):
                await turns.commit(lease, ChatCompletion())
        else:
            turns.abandon(lease, "failed", None)
        await turns.close()
        assert ("freed", "k") == store.log[-1]


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_a_failed_call_waits_for_the_release(store: RecordingStore, is_awaited: bool) -> None:
    """With `wait`, `fail` returns after the session and the key are released; without it, it returns at once."""
    turns = _turns(store)
    lease = await _begin(turns, "a", await _claimed(turns))
    store.gate.clear()
    failing = asyncio.create_task(turns.fail(lease, "failed", None, wait=is_awaited))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (not is_awaited, []) == (failing.done(), store.ends)
    store.gate.set()
    await failing
    assert is_awaited == (("incomplete", "a", "failed") in store.log)
    await turns.close()


async def test_a_hanging_store_does_not_block_the_caller(store: RecordingStore) -> None:
    """`fail` returns within its timeout while the store hangs, and the turn is ended later."""
    turns = _turns(store)
    lease = await _begin(turns, "a")
    store.gate.clear()
    await turns.fail(lease, "failed", None, wait=True)
    assert [] == store.ends
    store.gate.set()
    await turns.close()
    assert 1 == len(store.ends)


def _admitted(settled: list[list[int]]) -> Admission:
    """Returns an admission with ten reserved and three used tokens."""
    admission = Admission(
        [Charge("key:1", "tokens", 100, 10)], 0, lambda charges: settled.append([charge.amount for charge in charges])
    )
    admission.record_answer(ChatCompletion(usage=Usage(total_tokens=3)))
    return admission


@pytest.mark.parametrize("is_complete", [True, False])
async def test_the_limits_are_settled_with_the_turn(store: RecordingStore, is_complete: bool) -> None:
    """The limits are settled only in the write that ends the turn, completed or incomplete."""
    turns, settled = _turns(store), list[list[int]]()
    lease = await _begin(turns, "a", CallLease(admission=_admitted(settled)))
    with lease.admission:
        if is_complete:
            await turns.commit(lease, ChatCompletion())
        else:
            turns.abandon(lease, "failed", None)
            await turns.close()
    assert ([-7], []) == ([charge.amount for charge in store.ends[0].charges], settled)


async def test_without_a_turn_the_admission_settles_the_limits(store: RecordingStore) -> None:
    """Without a turn, the admission settles the limits itself."""
    turns, settled = _turns(store), list[list[int]]()
    lease = await _claimed(turns)
    lease.admission = _admitted(settled)
    with lease.admission:
        await turns.commit(lease, ChatCompletion())
    assert [[-7]] == settled


async def test_a_lost_turn_still_settles_the_limits(store: RecordingStore) -> None:
    """A lost turn charges the full use, because the store refunds the reservation with the turn."""
    turns = _turns(store)
    store.errors["end"] = [TurnLost()]
    with pytest.raises(TurnLost):
        await turns.commit(await _begin(turns, "a", CallLease(admission=_admitted([]))), ChatCompletion())
    assert [("settled", [3])] == store.log


async def test_an_unavailable_store_at_the_end_affects_no_other_call(store: RecordingStore) -> None:
    """If the store is unavailable at the end, the error is logged and the leases expire."""
    turns = _turns(store)
    store.errors = {"end": [StoreUnavailable("away")], "end_claim": [StoreUnavailable("away")]}
    turns.abandon(await _begin(turns, "a", await _claimed(turns)), "failed", None)
    await turns.close()
    assert [] == store.ends


async def test_the_turn_has_the_window_of_the_model_and_the_messages_of_the_request(store: RecordingStore) -> None:
    """The turn has the window of the configuration, and the metadata and messages of the request."""
    turns = _turns(store)
    request = CreateChatCompletionRequest(metadata={"team": "red"})
    request.messages.add(role="user").content.string_value = "Hi"
    lease = CallLease()
    await turns.begin(lease, request, CALLER, _model(", history: {max_messages: 3, max_tokens: 50}"))
    (started,) = store.started
    assert (3, 50) == (started.window.max_messages, started.window.max_tokens)
    assert ({"team": "red"}, True) == (started.metadata, started.new)
    assert (started.session_id, list(request.messages)) == (lease.session_id, lease.conversation(request))


async def test_the_conversation_is_the_history_and_what_is_new(store: RecordingStore) -> None:
    """The conversation is the history and the new messages in a session, otherwise the request's messages."""
    request = CreateChatCompletionRequest()
    for text in ("old", "new"):
        request.messages.add(role="user", name=text)
    old, new = request.messages
    assert [old, new] == list(CallLease().conversation(request))
    assert [old, old, new] == CallLease(Turn("a", 2, 2, [old, old], [new])).conversation(request)


async def test_a_busy_session_is_awaited_only_with_queue(store: RecordingStore) -> None:
    """A call waits for the release of a busy session with `queue`, and raises SessionBusy with `reject`."""
    turns = _turns(store)
    store.errors["begin"] = [SessionBusy("a"), SessionBusy("a")]
    lease = await _begin(turns, "a", model=_model(", concurrent_turns: queue"))
    assert "a" == lease.session_id
    assert [("wait", "a")] * 2 == store.log
    store.errors["begin"] = [SessionBusy("a")]
    with pytest.raises(SessionBusy):
        await _begin(turns, "a")


async def test_a_key_with_a_stored_reply_returns_it(store: RecordingStore) -> None:
    """A key with a stored reply returns it, and the call holds nothing."""
    answer = ChatCompletion(id="x")
    store.claimed = answer.SerializeToString()
    lease, reply = await _turns(store).claim(KEY, CreateChatCompletionRequest(), CALLER)
    assert (answer, False) == (reply, lease.is_persisted)


async def test_a_key_is_claimed_for_the_account_the_method_and_the_request(store: RecordingStore) -> None:
    """The claim contains the account, the method, the key and the digest of the request."""
    request = CreateChatCompletionRequest(model="m")
    await _turns(store).claim(KEY, request, CALLER)
    assert [("claim", "default", "CreateChatCompletion", "k", digest(request))] == store.log


def test_equal_requests_have_equal_digests() -> None:
    """The digest has 32 bytes, and depends on the values but not on the insertion order of maps."""
    one, other = CreateChatCompletionRequest(), CreateChatCompletionRequest()
    pairs = [(str(number), str(number)) for number in range(16)]
    for request, ordered in ((one, pairs), (other, pairs[::-1])):
        for name, value in ordered:
            request.metadata[name] = value
    assert (32, digest(one)) == (len(digest(other)), digest(other))
    other.temperature = 0
    assert digest(one) != digest(other)


def test_the_form_of_the_answer_and_spaces_in_json_make_no_other_digest() -> None:
    """The digest ignores the form of the answer and the whitespace of JSON texts."""
    one, other = CreateChatCompletionRequest(model="m"), CreateChatCompletionRequest(model="m", stream=True)
    other.stream_options.include_usage = True
    one.tools.add().function.parameters_json = '{"type": "object", "id": 18446744073709551615}'
    other.tools.add().function.parameters_json = '{"type":"object","id":18446744073709551615}'
    assert digest(one) == digest(other)
    assert other.stream
    other.tools[0].function.parameters_json = '{"type": "object", "id": 18446744073709551614}'
    assert digest(one) != digest(other)
    other.tools[0].function.parameters_json = "not JSON"
    assert digest(one) != digest(other)
