"""A model with `coalesce` whose first target dies in mid-stream, through the full stack."""

from collections.abc import Callable, Iterator, Sequence

import grpc
import openai
import pytest

from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.processes import Parley, started
from tests.rpc.calling import chat_request
from tests.upstream import Cut, Delay, Events, Json, Script, ScriptedUpstream, chunks, stream

CONFIG = """\
backends:
  first: {{kind: openai, base_url: "{url}"}}
  second: {{kind: openai, base_url: "{url}"}}
models:
  - id: coalesced
    targets: [{{backend: first}}, {{backend: second}}]
    sessions: "off"
    coalesce: 1s
"""
Read = Callable[[Parley], tuple[str, list[str]]]
QUESTION = "Tell me a story."
DELIVERED = "Once upon a time"
_ROLE, *_PIECES = chunks("Once", " upon", " a", " time")
DEATH = Events([_ROLE, *(step for piece in _PIECES for step in (piece, Delay(0.02))), Cut(reset=True)])
REJECTED = Json({"error": {"message": "the last message must be of a user", "type": "invalid_request_error"}}, 400)
# What the second target answers, and the last message of each request.
ENDINGS: dict[str, tuple[Sequence[Script], list[str]]] = {
    "continued": ([stream(", the", " end.")], [QUESTION, DELIVERED]),
    "from the beginning": (
        [REJECTED, stream("Once", " upon a ti", "me, the", " end.")],
        [QUESTION, DELIVERED, QUESTION],
    ),
}


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with the model, whose targets are both the scripted upstream."""
    file = tmp_path_factory.mktemp("coalesce") / "parley.yaml"
    file.write_text(CONFIG.format(url=the_upstream.url))
    with started("--config", str(file), "--workers", "1") as running:
        yield running


def _rest(parley: Parley) -> tuple[str, list[str]]:
    """Returns the text and the finish reasons of a stream over REST, which must end as a complete one."""
    with openai.OpenAI(base_url=f"{parley.http}/v1", api_key=parley.key, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="coalesced", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        choices = [choice for chunk in answer for choice in chunk.choices]
    reasons: list[str] = [choice.finish_reason for choice in choices if choice.finish_reason]
    return "".join(choice.delta.content or "" for choice in choices), reasons


def _grpc(parley: Parley) -> tuple[str, list[str]]:
    """Returns the text and the finish reasons of a stream over gRPC, which must end with the status OK."""
    request = chat_request(QUESTION, model="coalesced")
    metadata = (("authorization", f"Bearer {parley.key}"),)
    with grpc.insecure_channel(parley.grpc) as channel:
        answer = ChatCompletionsStub(channel).StreamChatCompletion(request, metadata=metadata)
        choices = [choice for chunk in answer for choice in chunk.choices]
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return "".join(choice.delta.content for choice in choices), reasons


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("read", [_rest, _grpc])
def test_another_target_continues_exactly(parley: Parley, upstream: ScriptedUpstream, read: Read, ending: str) -> None:
    """The tokens that waited when the first target died are delivered once, and the next target goes on after them."""
    answers, asked = ENDINGS[ending]
    upstream.answer(DEATH, *answers)
    assert (f"{DELIVERED}, the end.", ["stop"]) == read(parley)
    requests = [upstream.received(index).json for index in range(len(asked))]
    assert asked == [request["messages"][-1]["content"] for request in requests]
