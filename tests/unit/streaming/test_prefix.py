"""Continuation of a broken stream: the delivered text, and the new part of the next answer."""

import pytest

from parley.core.streaming.prefix import (
    Continue,
    DeliveredText,
    PrefixMismatch,
    SkipPrefix,
    append_prefill,
    prefill_text,
)
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import ChunkChoice, Delta, Logprobs, Message, TokenLogprob


def _chunk(text: str = "", index: int = 0, finish: str | None = None, *tokens: str, **rest: str) -> ChatCompletionChunk:
    delta = Delta(content=text or None)
    for name, value in rest.items():
        setattr(delta, name, value)
    logprobs = Logprobs(content=[TokenLogprob(token=token, logprob=-1) for token in tokens]) if tokens else None
    return ChatCompletionChunk(choices=[ChunkChoice(index=index, delta=delta, finish_reason=finish, logprobs=logprobs)])


def _delivered(*chunks: ChatCompletionChunk, n: int = 1) -> DeliveredText:
    delivered = DeliveredText(n)
    for chunk in chunks:
        delivered.add(chunk)
    return delivered


def _texts(joining: SkipPrefix | Continue, *chunks: ChatCompletionChunk, index: int = 0) -> str:
    new = [one for chunk in chunks for one in joining.add(chunk)]
    new += joining.flush()
    return "".join(choice.delta.content for chunk in new for choice in chunk.choices if choice.index == index)


@pytest.mark.parametrize(
    "pieces", [["The capital is Paris."], ["The ca", "pital", " is Paris."], list("The capital is Paris.")]
)
def test_skip_prefix_removes_the_delivered_text(pieces: list[str]) -> None:
    """The delivered text is removed however the second answer is split into chunks."""
    skip_prefix = SkipPrefix(_delivered(_chunk("The cap"), _chunk("ital")))
    assert " is Paris." == _texts(skip_prefix, *map(_chunk, pieces))


@pytest.mark.parametrize("pieces", [["The city"], ["The", " capitol"], ["the capital"]])
def test_an_answer_with_another_beginning_is_a_prefix_mismatch(pieces: list[str]) -> None:
    """The first character that differs raises PrefixMismatch."""
    skip_prefix = SkipPrefix(_delivered(_chunk("The capital")))
    with pytest.raises(PrefixMismatch):
        _texts(skip_prefix, *map(_chunk, pieces))


def test_an_answer_shorter_than_the_delivered_text_is_a_prefix_mismatch() -> None:
    """An answer that ends or calls a tool within the delivered text raises PrefixMismatch."""
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("The capital"))), _chunk("The"), _chunk(finish="stop"))
    call = _chunk("The")
    call.choices[0].delta.tool_calls.add(index=0, id="call_1")
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("The capital"))), call)


def test_an_answer_that_ends_without_a_finish_reason_is_shorter_than_the_delivered_text() -> None:
    """The end of the stream raises PrefixMismatch for each choice whose delivered text has not been repeated."""
    skip_prefix = SkipPrefix(_delivered(_chunk("One"), _chunk("Two", 1), n=2))
    with pytest.raises(PrefixMismatch):
        _texts(skip_prefix, _chunk("One"), _chunk("Tw", 1))
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("One"), _chunk("Two", 1), n=2)), _chunk("One"))
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("One"))))
    done = SkipPrefix(_delivered(_chunk("One"), _chunk("Two", 1), _chunk(index=1, finish="stop"), n=2))
    assert " more" == _texts(done, _chunk("One more"))
    before = _delivered(_chunk("The capital of France\n\nParis"))
    continued = Continue(before, "The capital of France")
    with pytest.raises(PrefixMismatch):
        _texts(continued, _chunk("The capital of France"))


def test_each_choice_skips_its_own_prefix() -> None:
    """Each choice has its own prefix, and a finished choice delivers nothing more."""
    skip_prefix = SkipPrefix(_delivered(_chunk("One"), _chunk("Two", 1), _chunk(index=1, finish="stop"), n=2))
    new = [
        *skip_prefix.add(_chunk("One more")),
        *skip_prefix.add(_chunk("Different", 1)),
        *skip_prefix.add(_chunk("", 1, "length")),
    ]
    delta = [(choice.index, choice.delta.content, choice.finish_reason) for chunk in new for choice in chunk.choices]
    assert [(0, " more", ""), (1, "", ""), (1, "", "")] == delta


def test_skipped_tokens_are_those_of_the_skipped_text() -> None:
    """The probabilities of removed text are removed; a token that extends beyond it raises PrefixMismatch."""
    skip_prefix = SkipPrefix(_delivered(_chunk("Hé", 0, None, "H", "é")))
    (new,) = skip_prefix.add(_chunk("Hé lo", 0, None, "H", "é", " lo"))
    assert (" lo", [" lo"]) == (new.choices[0].delta.content, [one.token for one in new.choices[0].logprobs.content])
    with pytest.raises(PrefixMismatch):
        SkipPrefix(_delivered(_chunk("He", 0, None, "He"))).add(_chunk("Hello", 0, None, "Hello"))


def test_reasoning_is_not_delivered_twice() -> None:
    """The reasoning of a second attempt is removed, whether it continues or starts again."""
    for joining in (SkipPrefix(_delivered(_chunk("Paris"))), Continue(_delivered(_chunk("Paris")), "Paris")):
        (new,) = joining.add(_chunk(reasoning_content="Hm"))
        assert not new.choices[0].delta.HasField("reasoning_content")


@pytest.mark.parametrize(
    ("delivered", "pieces", "expected"),
    [
        ("The capital is", [" Paris", "."], " Paris."),
        ("The capital is ", [" Paris."], "Paris."),
        ("The capital is ", ["Paris."], "Paris."),
        ("The capital is\n\n", ["\n", "\nParis."], "Paris."),
        ("The capital is ", [".", " So"], ". So"),
        ("ha", ["ha", " ha"], "ha ha"),
        ("The capital is the", [" the", "atre"], " theatre"),
    ],
)
def test_a_continued_answer_follows_the_delivered_text(delivered: str, pieces: list[str], expected: str) -> None:
    """The space at the seam is delivered once, and a short repeated word is not removed."""
    before = _delivered(_chunk(delivered))
    request = CreateChatCompletionRequest()
    assert expected == _texts(Continue(before, prefill_text(request, before)), *map(_chunk, pieces))


@pytest.mark.parametrize("pieces", [["The capital of France is Paris."], list("The capital of France is Paris.")])
def test_a_repeated_prefill_is_removed(pieces: list[str]) -> None:
    """An answer that repeats the prefill before its continuation delivers the continuation only."""
    before = _delivered(_chunk("The capital of France "))
    continued = Continue(before, prefill_text(CreateChatCompletionRequest(), before))
    assert "is Paris." == _texts(continued, *map(_chunk, pieces))


def test_a_partial_repetition_is_delivered() -> None:
    """Buffered text that proves no repetition is delivered, also if the answer ends first."""
    before = _delivered(_chunk("The capital of France "))
    assert "The capital is nice." == _texts(
        Continue(before, "The capital of France"), _chunk("The capital"), _chunk(" is nice.")
    )
    assert "The capital" == _texts(Continue(before, "The capital of France"), _chunk("The capital"))


def test_only_text_is_buffered() -> None:
    """Usage is delivered immediately while text is buffered, and reasoning is removed."""
    before = _delivered(_chunk("The capital of France "))
    continued = Continue(before, "The capital of France")
    for _ in range(3):
        thought = _chunk(reasoning_content="Hm")
        thought.usage.completion_tokens = 1
        (new,) = continued.add(thought)
        assert (1, []) == (new.usage.completion_tokens, new.choices[0].delta.ListFields())
    assert "is Paris." == _texts(
        continued, _chunk("The capital"), _chunk(reasoning_content="Hm"), _chunk(" of France is Paris.")
    )


def test_probabilities_are_buffered_with_their_text() -> None:
    """Probabilities are delivered with text that is no repetition, and removed with text that is one."""
    begin = [_chunk("The", 0, None, "The"), _chunk(" capital", 0, None, " capital")]

    def tokens(*chunks: ChatCompletionChunk) -> list[tuple[str, list[str]]]:
        continued = Continue(_delivered(_chunk("The capital of France")), "The capital of France")
        new = [choice for chunk in chunks for one in continued.add(chunk) for choice in one.choices]
        found = [(choice.delta.content, [token.token for token in choice.logprobs.content]) for choice in new]
        return [one for one in found if any(one)]

    later = _chunk(" is", 0, "stop", " is")
    assert [("The capital", ["The", " capital"]), (" is", [" is"])] == tokens(*begin, later)
    begin = [_chunk("The", 0, None, "The"), _chunk(" capital", 0, None, " capital")]
    repeated = _chunk(" of France is", 0, None, " of", " France", " is")
    assert [(" is", [" is"])] == tokens(*begin, repeated)


def test_the_next_request_has_a_prefill() -> None:
    """The delivered text is the last assistant message, without trailing space, and the token limit is lowered."""
    request = CreateChatCompletionRequest(max_tokens=20, messages=[Message(role="user")])
    append_prefill(request, _delivered(_chunk("The capital is ")))
    assert ("assistant", "The capital is", 17) == (
        request.messages[1].role,
        request.messages[1].content.string_value,
        request.max_tokens,
    )


def test_the_limit_is_lowered_by_the_delivered_tokens() -> None:
    """With probabilities the delivered tokens are counted, and the prefill keeps its trailing space."""
    request = CreateChatCompletionRequest(max_completion_tokens=20, logprobs=True)
    append_prefill(request, _delivered(_chunk("The ", 0, None, "The", " ")))
    assert ("The ", 18) == (request.messages[0].content.string_value, request.max_completion_tokens)


def test_at_least_one_token_is_requested() -> None:
    """The lowered token limit is at least 1, however long the delivered text is."""
    request = CreateChatCompletionRequest(max_tokens=2)
    append_prefill(request, _delivered(_chunk("A very long beginning of an answer")))
    assert 1 == request.max_tokens


def test_a_prefill_of_the_caller_is_extended() -> None:
    """With `continue_final_message` the delivered text extends the last message."""
    request = CreateChatCompletionRequest(continue_final_message=True)
    request.messages.add(role="assistant").content.string_value = "The "
    append_prefill(request, _delivered(_chunk("capital")))
    assert ["The capital"] == [message.content.string_value for message in request.messages]


def test_continuable_answers() -> None:
    """Text and reasoning can be continued; tool calls, functions, refusals, audio and more than 1 MiB cannot."""
    assert _delivered(_chunk("Hi", reasoning_content="Hm")).is_continuable
    assert not _delivered(_chunk(refusal="No")).is_continuable
    call = _chunk("Hi")
    call.choices[0].delta.tool_calls.add(index=0)
    assert not _delivered(call).is_continuable
    sound = _chunk()
    sound.choices[0].delta.audio.data = "AAAA"
    assert not _delivered(sound).is_continuable
    too_long = _delivered(_chunk("x" * 1024 * 1024), _chunk("yyyy"))
    assert (False, 1024 * 1024) == (too_long.is_continuable, len(too_long.text(0)))


def test_answers_that_allow_a_prefill() -> None:
    """A prefill takes one choice of free text that has begun, as a JSON grammar would start again."""
    request = CreateChatCompletionRequest()
    assert _delivered(_chunk("Hi")).usable_as_prefill(request)
    assert not _delivered(_chunk(" \n")).usable_as_prefill(request)
    assert not _delivered(_chunk("Hi"), n=2).usable_as_prefill(request)
    request.response_format.type = "text"
    assert _delivered(_chunk("Hi")).usable_as_prefill(request)
    request.response_format.type = "json_object"
    assert not _delivered(_chunk("Hi")).usable_as_prefill(request)
