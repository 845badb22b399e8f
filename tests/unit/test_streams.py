"""The sequence of a stream's chunks."""

from parley.core.streams import StreamShaper, stamp
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Delta, Logprobs, TokenLogprob, Usage


def _chunk(*deltas: Delta, finish: str | None = None) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk()
    for index, delta in enumerate(deltas):
        choice = chunk.choices.add(index=index, delta=delta)
        if finish:
            choice.finish_reason = finish
    return chunk


def _shape(*chunks: ChatCompletionChunk) -> list[ChatCompletionChunk]:
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    shaper = StreamShaper(answer)
    return [shaped for chunk in chunks for shaped in shaper.shape(chunk)] + [shaper.end()]


def test_one_crammed_chunk_becomes_the_documented_sequence() -> None:
    """Role, text and finish in one chunk of the backend leave as role, text, finish, usage."""
    crammed = _chunk(Delta(role="assistant", content="Hi"), finish="stop")
    crammed.usage.CopyFrom(Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3))
    role, text, finish, usage = _shape(crammed)
    assert Delta(role="assistant", content="") == role.choices[0].delta
    assert Delta(content="Hi") == text.choices[0].delta
    assert not text.choices[0].HasField("finish_reason")
    assert Delta() == finish.choices[0].delta
    assert "stop" == finish.choices[0].finish_reason
    assert (0, 3) == (len(usage.choices), usage.usage.total_tokens)


def test_all_chunks_carry_the_same_stamp_and_count_up() -> None:
    """`id`, `created`, `model` and the session are the same; `sequence` counts from 0."""
    shaped = _shape(_chunk(Delta(role="assistant", content="")), _chunk(Delta(content="a")), _chunk(Delta(content="b")))
    assert [0, 1, 2, 3] == [chunk.sequence for chunk in shaped]
    assert 1 == len({(chunk.id, chunk.created, chunk.model, chunk.session_id, chunk.object) for chunk in shaped})
    assert ("m", "session", "chat.completion.chunk") == (shaped[0].model, shaped[0].session_id, shaped[0].object)


def test_the_role_is_sent_once_a_choice() -> None:
    """Backends that repeat the role in every delta are put right, for each choice by itself."""
    first, second = (Delta(role="assistant", content=text) for text in "ab")
    shaped = _shape(_chunk(first, second), _chunk(first, second))[:-1]
    roles = [(chunk.choices[0].index, chunk.choices[0].delta.role) for chunk in shaped]
    assert [(0, "assistant"), (0, ""), (1, "assistant"), (1, ""), (0, ""), (1, "")] == roles


def test_moderation_is_in_the_last_chunk() -> None:
    """Whatever a backend tells after it."""
    told = ChatCompletionChunk()
    told.moderation.update({"input": {"type": "moderation_results"}})
    *others, last = _shape(_chunk(Delta(content="a")), told, _chunk(Delta(content="b")))
    assert told.moderation == last.moderation
    assert not any(chunk.HasField("moderation") for chunk in others)


def test_logprobs_stay_with_their_delta() -> None:
    """Token probabilities leave in the chunk of the text that they belong to."""
    chunk = _chunk(Delta(content="a"))
    chunk.choices[0].logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token="a", logprob=-1.0)]))
    _, said, _ = _shape(chunk)
    assert "a" == said.choices[0].logprobs.content[0].token


def test_logprobs_without_text_are_not_lost() -> None:
    """A token that is only part of a character has no text yet, and the last one may come with the finish reason."""
    half, last = _chunk(Delta(content="")), _chunk(Delta(), finish="stop")
    for chunk, token in ((half, "a"), (last, "b")):
        chunk.choices[0].logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token=token, logprob=-1.0)]))
    _, first, second, finish, _ = _shape(half, last)
    assert ["a", "b"] == [chunk.choices[0].logprobs.content[0].token for chunk in (first, second)]
    assert ("stop", False) == (finish.choices[0].finish_reason, finish.choices[0].HasField("logprobs"))


def test_a_fingerprint_is_passed_on_from_where_it_appears() -> None:
    """What the backend says of itself reaches the caller."""
    chunk = _chunk(Delta(content="a"))
    chunk.system_fingerprint = "fp"
    assert ["fp", "fp", "fp"] == [shaped.system_fingerprint for shaped in _shape(chunk)]
