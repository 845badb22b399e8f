"""Thousands of odd bodies per dialect: each response is valid for the dialect and no 5xx, and memory stays constant.

`FUZZ_BODIES=10000 make test ARGS=tests/e2e/test_fuzz.py` is the long run.
"""

import json
import os
import random
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.processes import Parley
from tests.upstream import ScriptedUpstream

BODIES = int(os.environ.get("FUZZ_BODIES", "400"))
TOGETHER = 50  # bodies per example of hypothesis, because an example costs more than a body
MOST_GROWTH = 48 * 1024 * 1024  # bytes of all processes: allocators keep some memory of a burst

PATHS = {
    "openai": "/v1",
    "chipp": "/api/v1",
    "upchatty": "/upchatty/api/v1",
    "fastapi": "/fastapi/api/v1",
    "openpipe": "/openpipe/api/v1",
}
BASE: dict[str, Any] = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0.5,
    "n": 1,
    "stop": ["a"],
    "stream": False,
    "store": False,
    "max_tokens": 5,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "logit_bias": {"5": 1},
    "metadata": {"k": "v"},
    "response_format": {"type": "text"},
    "stream_options": {"include_usage": True},
    "user": "u",
    "seed": 1,
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "\0", "\ud83d\ude00", "\u202e", "NaN", "1e999", [], {}, [[]], [{}], {"": ""}, "x" * 5000]),
    st.recursive(st.just({}), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner)),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Generates a valid request with some fields changed, omitted or duplicated, sometimes with changed bytes."""
    body = {name: BASE[name] for name in draw(st.sets(st.sampled_from(sorted(BASE)))) | {"messages", "model"}}
    for name in draw(st.lists(st.sampled_from([*sorted(BASE), "session_id", "nosuch"]), max_size=3)):
        body[name] = draw(ODD)
    data = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(st.binary(max_size=3)) + data[start + draw(st.integers(0, 3)) :]
    return data


def _openai(body: Any) -> bool:
    return ["message", "type", "param", "code"] == list(body["error"])


def _is_text_error(body: Any) -> bool:
    return ["error"] == list(body) and isinstance(body["error"], str)


def _detail(body: Any) -> bool:
    detail = body["detail"]
    return isinstance(detail, str) or all(["loc", "msg", "type"] == list(item) for item in detail)


ERRORS: dict[str, Callable[[Any], bool]] = {
    "openai": _openai,
    "openpipe": _openai,
    "chipp": _is_text_error,
    "upchatty": _is_text_error,
    "fastapi": _detail,
}


def _check(dialect: str, status: int, kind: str, data: bytes, sent: bytes) -> None:
    """Checks one response against the dialect."""
    assert status < 500, (status, data, sent)
    if kind == "text/event-stream":
        assert (200, True) == (status, data.endswith(b"data: [DONE]\n\n")), (data, sent)
        return
    answer = json.loads(data)
    if status == 200:
        assert "chat.completion" == answer["object"], (data, sent)
    else:
        assert ERRORS[dialect](answer), (status, data, sent)


def _memory(stack: Parley) -> int:
    """Returns the resident memory of the workers and Envoy, in bytes."""
    pids = [pid for pid, line in stack.children().items() if "llama" not in line]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)


@pytest.mark.parametrize("dialect", PATHS)
def test_odd_bodies(stack: Parley, upstream: ScriptedUpstream, dialect: str) -> None:
    """Every body gets a response that the dialect's clients can parse."""
    path, headers, rng = f"{PATHS[dialect]}/chat/completions", stack.headers(), random.Random(7)
    memory: list[int] = []
    with stack.connection() as connection:

        @settings(
            max_examples=BODIES // TOGETHER,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(bodies(), min_size=3, max_size=3))
        def send(seeds: list[bytes]) -> None:
            for _ in range(TOGETHER // len(seeds) + 1):
                for seed in seeds:
                    _send(connection, path, headers, _change_bytes(rng, seed), dialect)
            memory.append(_memory(stack))
            upstream.reset()

        send()
    settled = max(memory[len(memory) // 4 : len(memory) // 2])
    assert memory[-1] - settled < MOST_GROWTH, memory


def _change_bytes(rng: random.Random, seed: bytes) -> bytes:
    """Changes one or two bytes of a generated body."""
    data = bytearray(seed)
    for _ in range(rng.choice((0, 0, 1, 2))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _send(connection: HTTPConnection, path: str, headers: dict[str, str], data: bytes, dialect: str) -> None:
    connection.request("POST", path, data, headers)
    response = connection.getresponse()
    kind = response.headers["content-type"] or ""
    _check(dialect, response.status, kind, response.read(), data)
