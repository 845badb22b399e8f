"""OpenAI's package for Node, unmodified. tests/e2e/node has the scripts; each prints one line of JSON."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import vendor
from tests.e2e.node_packages import HERE, installed
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import Cut, Events, Gate, Json, ScriptedUpstream

__all__ = ["installed"]
RunScript = Callable[..., Any]


@pytest.fixture(scope="session")
def process(stack: Parley, installed: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a script. Only the package's own variables name Parley."""
    variables = environment(OPENAI_BASE_URL=f"{stack.http}/v1", OPENAI_API_KEY=stack.key)

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        # As text: imports of a file are resolved beside it, those of a text in the working folder.
        command = ["node", "--input-type=module", "--eval", (HERE / script).read_text(), "--", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=installed, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture(scope="session")
def run(process: Callable[..., subprocess.Popen[str]]) -> RunScript:
    """Runs a script to its end; returns its output."""

    def run(script: str, *arguments: str) -> Any:
        with process(script, *arguments) as running:
            output, errors = running.communicate(timeout=PATIENCE)
        assert (0, "") == (running.returncode, errors)
        return json.loads(output)

    return run


def test_a_complete_answer(run: RunScript, upstream: ScriptedUpstream) -> None:
    """An answer has fields, ids and text of every Unicode plane; the models are listed."""
    answer = vendor.complete_answer(vendor.choice("Grüße \N{WAVING HAND SIGN}", annotations=[vendor.CITATION]))
    upstream.answer(answer)
    got = run("create.mjs")
    choice = got["answer"]["choices"][0]
    assert ("Grüße \N{WAVING HAND SIGN}", "stop") == (choice["message"]["content"], choice["finish_reason"])
    assert [vendor.CITATION] == choice["message"]["annotations"]
    assert (vendor.USAGE, vendor.TAGS) == (got["answer"]["usage"], {name: got["answer"][name] for name in vendor.TAGS})
    assert got["session"] == got["answer"]["chatSessionId"]
    assert got["request_id"]
    assert "Grüße \U0001f44b\U0001f3fd" == upstream.requests[0].json["messages"][0]["content"]
    assert ["smollm2", "scripted", "guarded", "unguarded"] == got["models"]


def test_a_stream_has_openais_sequence(run: RunScript, upstream: ScriptedUpstream) -> None:
    """The chunks of a stream, and the events and the final answer of the helper, have OpenAI's sequence."""
    upstream.default = vendor.text("Hel", "lo", "!")
    got = run("stream.mjs")
    *chunks, last = got["chunks"]
    assert 1 == len({chunk["id"] for chunk in got["chunks"]})
    assert {"role": "assistant", "content": ""} == chunks[0]["choices"][0]["delta"]
    assert "Hello!" == "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert [None] * (len(chunks) - 1) + ["stop"] == [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert ([], vendor.USAGE) == (last["choices"], last["usage"])
    assert (1, 1, 0) == tuple(got["events"].get(name, 0) for name in ("content.done", "end", "error"))
    assert "Hello!" == got["final"]["choices"][0]["message"]["content"]
    assert vendor.USAGE == got["final"]["usage"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_the_tools_runner_calls_and_is_answered(run: RunScript, upstream: ScriptedUpstream, is_stream: bool) -> None:
    """The tools runner makes two parallel calls; their results are sent by id, and the final answer is returned."""
    if is_stream:
        upstream.answer(vendor.calls_in_pieces(vendor.PARALLEL_CALLS), vendor.text("In ", "Bogotá."))
    else:
        calls = vendor.choice(None, tool_calls=vendor.PARALLEL_CALLS)
        upstream.answer(vendor.complete_answer(calls), vendor.complete_answer(vendor.choice("In Bogotá.")))
    got = run("tools.mjs", *(["stream"] if is_stream else []))
    assert {"final": "In Bogotá.", "called": ["Paris", "Bogotá"]} == got
    assert [is_stream, is_stream] == [request.json.get("stream", False) for request in upstream.requests]
    _, called, *results = upstream.requests[1].json["messages"]
    assert vendor.PARALLEL_CALLS == called["tool_calls"]
    expected = [(call["id"], f"20° in {city}") for call, city in zip(vendor.PARALLEL_CALLS, got["called"], strict=True)]
    assert expected == [(result["tool_call_id"], result["content"]) for result in results]
    properties = upstream.requests[0].json["tools"][0]["function"]["parameters"]["properties"]
    assert ["unit", "city"] == list(properties)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_the_ai_sdk_takes_several_tool_steps(run: RunScript, upstream: ScriptedUpstream, is_stream: bool) -> None:
    """The AI SDK makes two parallel calls, then one more; all results reach the upstream with their calls."""
    third = [{"id": "call_3", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Lima"}'}}]
    if is_stream:
        calls = [vendor.calls_in_pieces(vendor.PARALLEL_CALLS), vendor.calls_in_pieces(third)]
        upstream.answer(*calls, vendor.text("In ", "Lima."))
    else:
        steps = [vendor.choice(None, tool_calls=made) for made in (vendor.PARALLEL_CALLS, third)]
        upstream.answer(*map(vendor.complete_answer, steps), vendor.complete_answer(vendor.choice("In Lima.")))
    got = run("ai_sdk.mjs", *(["stream"] if is_stream else []))
    tokens = 3 * vendor.USAGE["total_tokens"]  # type: ignore[operator]
    expected = {"text": "In Lima.", "called": ["Paris", "Bogotá", "Lima"], "steps": 3, "finishReason": "stop"}
    assert expected | {"tokens": tokens} == got
    conversation = upstream.requests[2].json["messages"]
    assert ["user", "assistant", "tool", "tool", "assistant", "tool"] == [message["role"] for message in conversation]
    ids = [call["id"] for message in conversation for call in message.get("tool_calls", [])]
    assert ids == [call["id"] for call in (*vendor.PARALLEL_CALLS, *third)]
    assert ids == [message["tool_call_id"] for message in conversation if message["role"] == "tool"]


REFUSED: dict[str, tuple[dict[str, Any], str, int, str, str | None]] = {
    "an unknown model": ({"model": "gpt-9"}, "NotFoundError", 404, "model_not_found", "model"),
    "out of range": ({"temperature": 3}, "BadRequestError", 400, "invalid_request", "temperature"),
    "no messages": ({"messages": []}, "BadRequestError", 400, "invalid_request", "messages"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_rejected_request_has_its_class_and_fields(run: RunScript, upstream: ScriptedUpstream, what: str) -> None:
    """The package's error has the request id; the package does not retry."""
    sent, name, status, code, param = REFUSED[what]
    got = run("errors.mjs", "5", json.dumps(sent))
    assert got.pop("requestID")
    kind = "invalid_request_error"
    expected = {"said": "", "name": name, "is": True, "status": status, "code": code, "param": param, "type": kind}
    assert expected == {"param": None, **got}
    assert [] == upstream.requests


def test_the_package_retries_by_the_headers(run: RunScript, upstream: ScriptedUpstream) -> None:
    """429 is retried after its delay, 400 is not, and the last failure has its class."""
    slow_down = Json(vendor.error("Slow down", "requests"), 429, {"Retry-After": "1"})
    upstream.answer(slow_down, vendor.complete_answer(vendor.choice("At last.")))
    assert {"said": "At last."} == run("errors.mjs", "1", "{}")
    assert 2 == len(upstream.requests)
    upstream.default = Json(vendor.error("Unsupported value"), 400)
    assert "BadRequestError" == run("errors.mjs", "5", "{}")["name"]
    assert 3 == len(upstream.requests)
    upstream.default = Json(vendor.error("The server had an error", "server_error"), 500)
    failed = run("errors.mjs", "0", "{}")
    assert ("InternalServerError", 503, "upstream_unavailable") == (failed["name"], failed["status"], failed["code"])


def test_a_stream_that_breaks_raises(run: RunScript, upstream: ScriptedUpstream) -> None:
    """The text before the failure is delivered, then the package raises its error."""
    upstream.answer(Events([*list(vendor.text("Hel", "lo").events)[:3], Cut()]))
    got = run("errors.mjs", "0", '{"stream": true}')
    assert ("Hello", "APIError", "stream_broken") == (got["said"], got["name"], got["code"])


def test_leaving_a_stream_closes_the_upstream_connection(
    process: Callable[..., subprocess.Popen[str]], upstream: ScriptedUpstream
) -> None:
    """`break` in the loop closes the upstream's connection while the caller continues."""
    gate = Gate()
    upstream.answer(Events([*list(vendor.text("Hel").events)[:2], gate]))
    with process("leave.mjs") as running:
        assert upstream.received().closed.wait(PATIENCE)
        assert running.poll() is None
        running.communicate(timeout=PATIENCE)
    gate.set()
