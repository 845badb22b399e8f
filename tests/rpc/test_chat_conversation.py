"""What a conversation of `parley chat` sends, with the real client and server."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from parley.cli.chat.access import Access
from parley.cli.chat.conversation import Conversation
from parley.cli.shared.interrupts import Interrupts
from tests.processes import until
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks


class Talk:
    """A conversation whose model answers each question with it in brackets."""

    def __init__(self, worker: Worker, conversation: Conversation) -> None:
        self.worker, self.conversation = worker, conversation

    def send(self, text: str) -> list[str]:
        """Sends a question; returns what the model received."""
        self.worker.backend.answer = lambda call: chunks(f"({call.request.messages[-1].content.string_value})")
        list(self.conversation.send({"role": "user", "content": text}))
        return [message.content.string_value for message in self.worker.backend.calls[-1].request.messages]

    def stop(self, text: str) -> None:
        """Sends a question, and cancels the answer after its first part; waits until its session is free."""
        self.worker.backend.answer = lambda _: [chunks("partly")[0], asyncio.Event()]
        with closing(self.conversation.send({"role": "user", "content": text})) as parts:
            next(part for part in parts if part.HasField("session_id"))
        session = self.conversation.session or ""
        turn = self.conversation.side.sessions.messages
        until(lambda: all(one.state == "incomplete" for one in turn(session)), "the end of the turn")


@pytest.fixture
def talk(worker: Worker) -> Iterator[Talk]:
    """A conversation with a system prompt."""
    access = Access(worker.address, worker.keys["ada"], None)
    with access.client() as client, access.side_client() as side:
        yield Talk(worker, Conversation(client, side, Interrupts(), "once", system="S"))


def test_a_stopped_first_turn_loses_nothing(talk: Talk) -> None:
    """The service leaves incomplete turns out, so that the system prompt is sent again with the next question."""
    talk.stop("one")
    session = talk.conversation.session
    assert ["S", "two"] == talk.send("two")
    assert ["S", "two", "(two)", "three"] == talk.send("three")
    assert session == talk.conversation.session


def test_another_model_gets_the_conversation(talk: Talk) -> None:
    """A session belongs to one model: another one begins with all messages, also those of an attached session."""
    talk.send("one")
    first = talk.conversation.session
    talk.conversation.move(model="kept")
    assert ["S", "one", "(one)", "two"] == talk.send("two")
    assert first != talk.conversation.session
    assert first is not None
    assert 1 == talk.conversation.attach(first).turn_count
    talk.conversation.move(model="stateless")
    assert ["S", "one", "(one)", "three"] == talk.send("three")
    assert ["S", "one", "(one)", "three", "(three)", "four"] == talk.send("four")


def test_another_system_prompt_replaces_the_first(talk: Talk) -> None:
    """The rest of the conversation stays; an empty prompt removes it."""
    talk.send("one")
    talk.conversation.move(system="T")
    assert ["T", "one", "(one)", "two"] == talk.send("two")
    talk.conversation.move(system="")
    assert ["one", "(one)", "two", "(two)", "three"] == talk.send("three")


@pytest.mark.parametrize("model", ["once", "stateless"])
def test_an_answer_is_undone(talk: Talk, model: str) -> None:
    """The context ends before the last answer, in a copy of the session if there is one; the original stays."""
    talk.conversation.model = model
    talk.send("one")
    talk.send("two")
    first = talk.conversation.session
    talk.conversation.undo()
    assert ["S", "one", "(one)", "three"] == talk.send("three")
    talk.conversation.undo()
    talk.conversation.undo()  # there is no answer to undo
    assert ["S", "one", "(one)", "four"] == talk.send("four")
    if first is not None:
        assert 2 == talk.conversation.attach(first).turn_count


def test_the_only_answer_is_undone(talk: Talk) -> None:
    """Without an earlier turn, a new session begins, with the system prompt."""
    talk.send("one")
    talk.conversation.undo()
    assert ["S", "two"] == talk.send("two")


def test_a_session_of_an_earlier_run(talk: Talk) -> None:
    """The last question of an attached session is known, and its model is used."""
    talk.send("one")
    talk.send("two")
    session = talk.conversation.session
    assert session is not None
    talk.conversation.begin()
    talk.conversation.model = None
    assert 2 == talk.conversation.attach(session).turn_count
    assert "two" == talk.conversation.last_question().content.string_value
    assert "once" == talk.conversation.model
    assert ["S", "one", "(one)", "two", "(two)", "three"] == talk.send("three")


def test_a_fork_of_the_first_turns(talk: Talk) -> None:
    """A fork goes on behind the turn that it names; the original stays as it is."""
    talk.send("one")
    talk.send("two")
    first = talk.conversation.session
    assert first != talk.conversation.fork(1)
    assert ["S", "one", "(one)", "three"] == talk.send("three")
