"""The guard of docs/guards.md, and the guard in the package, through the full stack."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.pages import ROOT, blocks
from tests.processes import until
from tests.upstream import Json, ScriptedUpstream, completion, stream

[EXAMPLE] = [text for language, text in blocks(ROOT / "docs" / "guards.md") if language == "python"]


@pytest.fixture(scope="module", autouse=True)
def example(stack_folder: Path) -> Iterator[None]:
    """The guard `names` of the stack is the example of the documentation."""
    program, socket = stack_folder / "code_names.py", stack_folder / "guard.sock"
    program.write_text(EXAMPLE)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "protos")}
    with subprocess.Popen([sys.executable, str(program), f"unix:{socket}"], cwd=stack_folder, env=environment) as guard:
        try:
            until(socket.exists, "the guard")
            yield
        finally:
            guard.kill()


def test_the_example_redacts_questions_and_streams(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The model gets the redacted question, and the caller a redacted stream, although the word spans its events."""
    upstream.answer(stream("Blue", "bird is", " the project ", "blueb", "ird."))
    answer = client.chat.completions.create(
        model="guarded", messages=[{"role": "user", "content": "What is Bluebird?"}], stream=True
    )
    text = "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
    assert "[project] is the project [project]." == text
    assert "What is [project]?" == upstream.received().json["messages"][0]["content"]


def test_whole_answers_are_redacted_and_complete(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """An answer without streaming keeps its id, model and usage, redacted or not."""
    for given, expected in (("A bluebird.", "A [project]."), ("A crow.", "A crow.")):
        upstream.answer(Json(completion(given)))
        answer = client.chat.completions.create(model="guarded", messages=[{"role": "user", "content": "What is it?"}])
        assert (expected, "stop") == (answer.choices[0].message.content, answer.choices[0].finish_reason)
        assert (True, "guarded") == (answer.id.startswith("chatcmpl-"), answer.model)
        assert answer.usage


def test_a_secret_is_refused_in_openais_form(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """A request with a key is 400 with the code `content_filter`; the error does not repeat the key."""
    secret = "ghp_" + "a" * 36
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="guarded", messages=[{"role": "user", "content": secret}])
    assert ("content_filter", False) == (caught.value.code, secret in json.dumps(caught.value.body))


def test_the_error_names_a_guard_that_cannot_be_reached(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """An answer that a dead guard should check is 503, before the first event of a stream too."""
    for is_stream in (False, True):
        upstream.answer(stream("Hello there"))
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(
                model="unguarded", messages=[{"role": "user", "content": "Hi"}], stream=is_stream
            )
        assert (503, "guard_unavailable", True) == (
            caught.value.status_code,
            caught.value.code,
            'The guard "gone"' in caught.value.message,
        )
