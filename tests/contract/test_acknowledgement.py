"""Tests of when a turn is acknowledged, by the system calls of a real worker."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import processes
from tests.upstream import Json, ScriptedUpstream, completion, stream

ANSWER = "marked-answer"
_SYNCED = re.compile(r"(?:fsync|fdatasync)\(\d+<[^>]*parley\.db-wal>|<\.\.\. (?:fsync|fdatasync) resumed")
_SENT = re.compile(r"(?:write|writev|sendmsg|sendto)\(\d+<(?:TCP|socket|UNIX)")


class Worker(NamedTuple):
    """A worker under strace: its address, a key and its system calls."""

    channel: grpc.Channel
    key: str
    trace: Path


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A backend."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def worker(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Worker]:
    """Runs `parley serve` and records its writes and syncs."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    config, trace = tmp_path / "parley.yaml", tmp_path / "trace"
    config.write_text(
        f'backends:\n  up: {{kind: openai, base_url: "{upstream.url}"}}\n'
        "models:\n  - id: scripted\n    targets: [{backend: up}]\n"
    )
    common = ["--config", str(config), "--state-dir", str(tmp_path / "state")]
    made = processes.run("keys", "create", "--name", "n", *common)
    key = re.search(r"sk-[\w-]{43}", made.stdout)
    assert key, made
    calls = "trace=fsync,fdatasync,write,writev,sendmsg,sendto,recvfrom,recvmsg,read"
    command = ["strace", "-f", "-yy", "-s", "4096", "-e", calls, "-o", str(trace)]
    process = subprocess.Popen(
        [*command, processes.COMMAND, "serve", *common, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        env=processes.environment(),
        text=True,
    )
    assert process.stdout
    try:
        address = process.stdout.readline().split()[-1]
        with grpc.insecure_channel(address) as channel:
            yield Worker(channel, key[0], trace)
    finally:
        for pid in processes.children(process.pid):
            os.kill(pid, signal.SIGTERM)
        process.wait(processes.PATIENCE)


@pytest.mark.parametrize("is_stream", [False, True], ids=["unary", "streamed"])
def test_the_commit_is_synced_before_the_answer_is_acknowledged(
    worker: Worker, upstream: ScriptedUpstream, *, is_stream: bool
) -> None:
    """An fsync of the log completes between the backend's answer and the bytes that acknowledge it."""
    upstream.default = stream(ANSWER) if is_stream else Json(completion(ANSWER))
    request = CreateChatCompletionRequest(model="scripted")
    request.messages.add(role="user").content.string_value = "Hi"
    metadata = (("authorization", f"Bearer {worker.key}"),)
    stub = ChatCompletionsStub(worker.channel)
    for _ in range(3):
        if is_stream:
            text = b"".join(body.data for body in stub.StreamChatCompletionEvents(request, metadata=metadata))
            assert text.endswith(b"data: [DONE]\n\n")
        else:
            stub.CreateChatCompletion(request, metadata=metadata)
    events = _events(worker.trace.read_text(errors="replace"), b"[DONE]".decode() if is_stream else ANSWER)
    assert 3 == events.count("acknowledged"), events
    for index, event in enumerate(events):
        assert event != "acknowledged" or "synced" == events[index - 1], events


def _events(trace: str, acknowledgement: str) -> list[str]:
    """Returns the trace's events `answered` (by the backend), `synced`, `acknowledged`; the ends of each run."""
    events: list[str] = []
    for line in trace.splitlines():
        if ANSWER in line and re.search(r"\b(?:recvfrom|recvmsg|read)\b", line):
            events.append("answered")
        elif _SENT.search(line) and acknowledgement in line:
            events.append("acknowledged")
        elif _SYNCED.search(line) and "= 0" in line and "answered" in events[-1:]:
            events.append("synced")
    return events
