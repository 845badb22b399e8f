"""What of a second attempt is new to a caller who has got the beginning of the first."""

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
    said = Delta(content=text or None)
    for name, value in rest.items():
        setattr(said, name, value)
    logprobs = Logprobs(content=[TokenLogprob(token=token, logprob=-1) for token in tokens]) if tokens else None
    return ChatCompletionChunk(choices=[ChunkChoice(index=index, delta=said, finish_reason=finish, logprobs=logprobs)])


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
def test_skip_prefix_drops_what_was_delivered(pieces: list[str]) -> None:
    """Wherever the pieces of the second answer are cut."""
    skip_prefix = SkipPrefix(_delivered(_chunk("The cap"), _chunk("ital")))
    assert " is Paris." == _texts(skip_prefix, *map(_chunk, pieces))


@pytest.mark.parametrize("pieces", [["The city"], ["The", " capitol"], ["the capital"]])
def test_an_answer_that_begins_otherwise_is_a_prefix_mismatch(pieces: list[str]) -> None:
    """From the first character that differs."""
    skip_prefix = SkipPrefix(_delivered(_chunk("The capital")))
    with pytest.raises(PrefixMismatch):
        _texts(skip_prefix, *map(_chunk, pieces))


def test_an_answer_that_is_shorter_than_what_was_delivered_is_a_prefix_mismatch() -> None:
    """It ends, or calls a tool, before it has come to where the first one broke off."""
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("The capital"))), _chunk("The"), _chunk(finish="stop"))
    call = _chunk("The")
    call.choices[0].delta.tool_calls.add(index=0, id="call_1")
    with pytest.raises(PrefixMismatch):
        _texts(SkipPrefix(_delivered(_chunk("The capital"))), call)


def test_each_choice_skips_its_own_prefix() -> None:
    """One that was finished is not heard again."""
    skip_prefix = SkipPrefix(_delivered(_chunk("One"), _chunk("Two", 1), _chunk(index=1, finish="stop"), n=2))
    new = [
        *skip_prefix.add(_chunk("One more")),
        *skip_prefix.add(_chunk("Different", 1)),
        *skip_prefix.add(_chunk("", 1, "length")),
    ]
    said = [(choice.index, choice.delta.content, choice.finish_reason) for chunk in new for choice in chunk.choices]
    assert [(0, " more", ""), (1, "", ""), (1, "", "")] == said


def test_skipped_tokens_are_those_of_the_skipped_text() -> None:
    """Where a token goes beyond what was delivered, text and tokens cannot be made to agree."""
    skip_prefix = SkipPrefix(_delivered(_chunk("Hé", 0, None, "H", "é")))
    (new,) = skip_prefix.add(_chunk("Hé lo", 0, None, "H", "é", " lo"))
    assert (" lo", [" lo"]) == (new.choices[0].delta.content, [one.token for one in new.choices[0].logprobs.content])
    with pytest.raises(PrefixMismatch):
        SkipPrefix(_delivered(_chunk("He", 0, None, "He"))).add(_chunk("Hello", 0, None, "Hello"))


def test_reasoning_is_not_told_twice() -> None:
    """The second attempt's is left out, whether it goes on or begins anew."""
    for stitched in (SkipPrefix(_delivered(_chunk("Paris"))), Continue(_delivered(_chunk("Paris")), "Paris")):
        (new,) = stitched.add(_chunk(reasoning_content="Hm"))
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
def test_a_resumed_answer_goes_on_where_the_first_broke_off(delivered: str, pieces: list[str], expected: str) -> None:
    """The space between them is there once; words that repeat themselves are not taken for an echo."""
    before = _delivered(_chunk(delivered))
    request = CreateChatCompletionRequest()
    assert expected == _texts(Continue(before, prefill_text(request, before)), *map(_chunk, pieces))


@pytest.mark.parametrize("pieces", [["The capital of France is Paris."], list("The capital of France is Paris.")])
def test_a_target_that_repeats_its_prefill_skips_it(pieces: list[str]) -> None:
    """Some servers return the beginning together with the rest."""
    before = _delivered(_chunk("The capital of France "))
    resumed = Continue(before, prefill_text(CreateChatCompletionRequest(), before))
    assert "is Paris." == _texts(resumed, *map(_chunk, pieces))


def test_what_only_began_like_an_echo_is_delivered_after_all() -> None:
    """In whole, also where the answer ends before that was clear."""
    before = _delivered(_chunk("The capital of France "))
    assert "The capital is nice." == _texts(
        Continue(before, "The capital of France"), _chunk("The capital"), _chunk(" is nice.")
    )
    assert "The capital" == _texts(Continue(before, "The capital of France"), _chunk("The capital"))


def test_what_is_no_text_is_not_held_back() -> None:
    """However long a target reasons before it repeats what it was given, nothing of that is kept."""
    before = _delivered(_chunk("The capital of France "))
    resumed = Continue(before, "The capital of France")
    for _ in range(3):
        thought = _chunk(reasoning_content="Hm")
        thought.usage.completion_tokens = 1
        (new,) = resumed.add(thought)
        assert (1, []) == (new.usage.completion_tokens, new.choices[0].delta.ListFields())
    assert "is Paris." == _texts(
        resumed, _chunk("The capital"), _chunk(reasoning_content="Hm"), _chunk(" of France is Paris.")
    )


def test_probabilities_are_held_back_with_their_text() -> None:
    """They come with it where it was no repetition, and are left out with it where it was one."""
    lease = [_chunk("The", 0, None, "The"), _chunk(" capital", 0, None, " capital")]

    def tokens(*chunks: ChatCompletionChunk) -> list[tuple[str, list[str]]]:
        resumed = Continue(_delivered(_chunk("The capital of France")), "The capital of France")
        new = [choice for chunk in chunks for one in resumed.add(chunk) for choice in one.choices]
        found = [(choice.delta.content, [token.token for token in choice.logprobs.content]) for choice in new]
        return [one for one in found if any(one)]

    later = _chunk(" is", 0, "stop", " is")
    assert [("The capital", ["The", " capital"]), (" is", [" is"])] == tokens(*lease, later)
    lease = [_chunk("The", 0, None, "The"), _chunk(" capital", 0, None, " capital")]
    echoed = _chunk(" of France is", 0, None, " of", " France", " is")
    assert [(" is", [" is"])] == tokens(*lease, echoed)


def test_what_is_asked_next() -> None:
    """An assistant's message last, without the space at its end, and as many tokens less as were spent."""
    request = CreateChatCompletionRequest(max_tokens=20, messages=[Message(role="user")])
    append_prefill(request, _delivered(_chunk("The capital is ")))
    assert ("assistant", "The capital is", 17) == (
        request.messages[1].role,
        request.messages[1].content.string_value,
        request.max_tokens,
    )


def test_tokens_that_came_are_counted_where_they_came_one_by_one() -> None:
    """And the text stays as the tokens have it, with the space."""
    request = CreateChatCompletionRequest(max_completion_tokens=20, logprobs=True)
    append_prefill(request, _delivered(_chunk("The ", 0, None, "The", " ")))
    assert ("The ", 18) == (request.messages[0].content.string_value, request.max_completion_tokens)


def test_at_least_one_token_is_asked_for() -> None:
    """Estimates may say that all were spent."""
    request = CreateChatCompletionRequest(max_tokens=2)
    append_prefill(request, _delivered(_chunk("A very long beginning of an answer")))
    assert 1 == request.max_tokens


def test_the_callers_own_beginning_is_gone_on_with() -> None:
    """Where the caller had an answer continued, there is still one assistant's message at the end."""
    request = CreateChatCompletionRequest(continue_final_message=True)
    request.messages.add(role="assistant").content.string_value = "The "
    append_prefill(request, _delivered(_chunk("capital")))
    assert ["The capital"] == [message.content.string_value for message in request.messages]


def test_what_can_be_joined() -> None:
    """Text and reasoning; never tool calls, functions, refusals or sound."""
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


def test_when_a_target_may_be_asked_to_go_on() -> None:
    """With one answer of free text that has begun; a grammar would begin anew."""
    request = CreateChatCompletionRequest()
    assert _delivered(_chunk("Hi")).can_prefill(request)
    assert not _delivered(_chunk(" \n")).can_prefill(request)
    assert not _delivered(_chunk("Hi"), n=2).can_prefill(request)
    request.response_format.type = "text"
    assert _delivered(_chunk("Hi")).can_prefill(request)
    request.response_format.type = "json_object"
    assert not _delivered(_chunk("Hi")).can_prefill(request)
