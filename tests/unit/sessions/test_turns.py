"""The start of a turn: its window and messages, the queue, leases, and idempotency keys."""

import asyncio
from dataclasses import replace

import pytest

from parley.core.errors import SessionBusy
from parley.core.ports import Turn, Window
from parley.core.sessions.call_lease import CallLease
from parley.core.sessions.idempotency import digest
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.unit.sessions.recording_store import (
    CALLER,
    KEY,
    RecordingStore,
    begin_turn,
    cancel_during_write,
    claim_key,
    model_config,
    new_turns,
)


async def test_leases_are_renewed_while_calls_run(store: RecordingStore) -> None:
    """Running turns and claims are renewed together, also after a failure of the store; ended ones are not."""
    turns = new_turns(store, renew_seconds=0.01)
    lease = await begin_turn(turns, "a", await claim_key(turns))
    await begin_turn(turns, "b")
    store.log.clear()
    store.renewed.clear()
    await asyncio.wait_for(store.renewed.wait(), 60)
    await turns.commit(lease, ChatCompletion())
    store.renewed.clear()
    await asyncio.wait_for(store.renewed.wait(), 60)
    await turns.close()
    assert ("renew", ["a", "b"], ["k"]) == store.log[0]
    assert ("renew", ["b"], []) == store.log[-1]


async def test_a_claim_is_renewed_before_its_turn_begins(store: RecordingStore) -> None:
    """The claim of a call that waits for its session is renewed."""
    turns = new_turns(store, renew_seconds=0.01)
    await claim_key(turns)
    await asyncio.wait_for(store.renewed.wait(), 60)
    assert ("renew", [], ["k"]) == store.log[-1]
    await turns.close()


async def test_a_call_cancelled_during_the_begin_leaves_no_lease(store: RecordingStore) -> None:
    """A turn that begins after the cancellation of its call is ended as incomplete."""
    turns = new_turns(store)
    store.gate.clear()
    await cancel_during_write(asyncio.create_task(begin_turn(turns, "a")))
    store.gate.set()
    while not store.log:
        await asyncio.sleep(0)
    assert [("incomplete", "a", "cancelled")] == store.log


async def test_a_call_cancelled_during_the_claim_leaves_no_claim(store: RecordingStore) -> None:
    """A claim that is acquired after the cancellation of its call is released."""
    turns = new_turns(store)
    store.gate.clear()
    await cancel_during_write(asyncio.create_task(claim_key(turns)))
    store.gate.set()
    while len(store.log) < 2:
        await asyncio.sleep(0)
    assert ("released", "k") == store.log[-1]


async def test_the_turn_has_the_window_of_the_model_and_the_messages_of_the_request(store: RecordingStore) -> None:
    """A turn has the messages and metadata of the request, and in an existing session the configured window."""
    turns = new_turns(store)
    request = CreateChatCompletionRequest(metadata={"team": "red"})
    request.messages.add(role="user").content.string_value = "Hi"
    lease = CallLease()
    model = model_config(", history: {max_messages: 3, max_tokens: 50}")
    await turns.begin(lease, request, CALLER, model)
    await begin_turn(turns, "a", model=model)
    started, later = store.started
    assert (Window(), Window(3, 50)) == (started.window, replace(later.window, load_messages=None, load_bytes=None))
    assert ({"team": "red"}, True) == (started.metadata, started.new)
    assert (started.session_id, list(request.messages)) == (lease.session_id, list(lease.conversation(request)))


async def test_the_conversation_is_the_history_and_what_is_new(store: RecordingStore) -> None:
    """The conversation is the history and the new messages in a session, otherwise the request's messages."""
    request = CreateChatCompletionRequest()
    for text in ("old", "new"):
        request.messages.add(role="user", name=text)
    old, new = request.messages
    messages = request.messages
    assert CallLease().conversation(request) is messages
    assert CallLease(Turn("a", 1, 1, messages=[old, new])).conversation(request) is messages, "no copy is sent"
    assert [old, old, new] == CallLease(Turn("a", 2, 2, [old, old], [new])).conversation(request)


async def test_a_busy_session_is_awaited_only_with_queue(store: RecordingStore) -> None:
    """A call waits for the release of a busy session with `queue`, and raises SessionBusy with `reject`."""
    turns = new_turns(store)
    store.errors["begin"] = [SessionBusy("a"), SessionBusy("a")]
    lease = await begin_turn(turns, "a", model=model_config(", concurrent_turns: queue"))
    assert "a" == lease.session_id
    assert [("wait", "a")] * 2 == store.log
    store.errors["begin"] = [SessionBusy("a")]
    with pytest.raises(SessionBusy):
        await begin_turn(turns, "a")


async def test_a_key_with_a_stored_reply_returns_it(store: RecordingStore) -> None:
    """A key with a stored reply returns it, and the call holds nothing."""
    answer = ChatCompletion(id="x")
    store.claimed = answer.SerializeToString()
    lease, reply = await new_turns(store).claim(KEY, CreateChatCompletionRequest(), CALLER)
    assert (answer, False) == (reply, lease.is_persisted)


async def test_a_key_is_claimed_for_the_account_the_method_and_the_request(store: RecordingStore) -> None:
    """The claim contains the account, the method, the key and the digest of the request."""
    request = CreateChatCompletionRequest(model="m")
    await new_turns(store).claim(KEY, request, CALLER)
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
