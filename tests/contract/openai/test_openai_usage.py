"""Usage of OpenAI responses, streaming and not."""

from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from tests.contract.backends import (
    call,
    collect,
    completion_of,
)
from tests.contract.openai.answers import both, complete_answer, counted
from tests.upstream import DONE, USAGE, Events, ScriptedUpstream, chunk, chunks

COUNTS: list[tuple[Any, tuple[int | None, int | None]]] = [
    ({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 400}, (100, 300)),
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 400,
            "completion_tokens_details": {"reasoning_tokens": 250},
        },
        (100, 300),
    ),
    ({"prompt_tokens": 9, "completion_tokens": 60.0, "total_tokens": 69.0}, (9, 60)),
    ({"prompt_tokens": "9", "completion_tokens": "60"}, (9, 60)),
    ({"prompt_tokens": 9, "completion_tokens": -35, "total_tokens": 12}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": -35, "total_tokens": -26}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": 10**30}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": True}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 1}, (9, 3)),
    ({"completion_tokens": 3, "total_tokens": 12}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": 7}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": "many"}}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "cost": "a lot", "cost_details": [1]}, (9, 3)),
    ({"input_tokens": 9, "output_tokens": 3}, (9, 3)),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None)),
    ({}, (None, None)),
    (None, (None, None)),
    (7, (None, None)),
    ("many", (None, None)),
]


@pytest.mark.parametrize(("usage", "expected"), COUNTS)
async def test_malformed_usage(
    backend: OpenAI, upstream: ScriptedUpstream, usage: Any, expected: tuple[int | None, int | None]
) -> None:
    """A malformed count is repaired or dropped; the answer is delivered."""
    steps = [*chunks("Hi"), chunk(finish="stop"), chunk(choices=[], usage=usage), DONE]
    upstream.answer(complete_answer("stop") | {"usage": usage}, Events(steps))
    for answer in await both(backend):
        assert ("Hi", expected) == (answer.choices[0].message.content.string_value, counted(answer))
        if None not in expected:
            assert sum(filter(None, expected)) == answer.usage.total_tokens


def _in_choice() -> dict[str, Any]:
    event = chunk(finish="stop")
    event["choices"][0]["usage"] = USAGE
    return event


@pytest.mark.parametrize(
    "event",
    [
        chunk(finish="stop", usage=USAGE),
        chunk({"content": ""}, "stop", x_groq={"id": "req_1", "usage": USAGE}),
        _in_choice(),
    ],
    ids=["last chunk", "x_groq", "choice"],
)
async def test_usage_in_nonstandard_fields(backend: OpenAI, upstream: ScriptedUpstream, event: dict[str, Any]) -> None:
    """Usage in `x_groq` (Groq) or in the last choice (Moonshot) is found."""
    body = complete_answer("stop")
    body.pop("usage")
    if "usage" in event["choices"][0]:
        body["choices"][0]["usage"] = USAGE
    upstream.answer(body | {name: event[name] for name in ("usage", "x_groq") if name in event})
    upstream.answer(Events([*chunks("Hi"), event, DONE]))
    assert [(9, 3)] * 2 == [counted(answer) for answer in await both(backend)]


async def test_usage_of_several_choices(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """vLLM's usage is cumulative in each chunk, so it is not summed."""
    delivered = [chunk({"content": "a"}, "stop", index, usage=USAGE) for index in (0, 1)]
    upstream.answer(Events([*delivered, chunk(choices=[], usage=USAGE), DONE]))
    assert (9, 3) == counted(completion_of(await collect(backend, call(n=2))))


async def test_usage_of_several_choices_of_llama_cpp(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """llama.cpp counts one of several choices, so completion tokens are unknown."""
    body = complete_answer("stop") | {"timings": {"predicted_n": 7}}
    body["choices"] *= 2
    upstream.answer(body)
    assert (9, None) == counted(await backend.complete(call(n=2)))
