"""Canary secrets in every place, and failures of every kind: none is found where it does not belong."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.admin.v1.keys_pb2 import ListKeysRequest
from parley.admin.v1.keys_pb2_grpc import KeysStub
from tests.processes import Parley, reserved_port, run_here, started
from tests.upstream import Events, Json, Raw, ScriptedUpstream, Step, chunks

UPSTREAM_KEY = "sk-canary-upstream-Zq81Xw"
CHECK_KEY = "canary-unused-backend-Pw93"
ADMIN_KEY = "canary-admin-key-0123456789-abcdef-Kt61"
WEBHOOK_SECRET = "whsec_Y2FuYXJ5LXdlYmhvb2stc2VjcmV0LTAxMjM0NTY3ODk="
WEBHOOK_TOKEN = "canary-webhook-token-Rb72"
SECRETS = (UPSTREAM_KEY, CHECK_KEY, ADMIN_KEY, WEBHOOK_SECRET, WEBHOOK_TOKEN)
PROMPT = "canary prompt: the wedding is on Tuesday, the code is tulip"
CONFIG = """\
backends:
  up: {{kind: openai, base_url: "{url}", api_key: "${{CANARY_UPSTREAM_KEY}}"}}
  unused: {{kind: openai, base_url: "{url}", api_key: "${{CANARY_CHECK_KEY}}"}}
admin: {{keys: {{ops: "${{CANARY_ADMIN_KEY}}"}}}}
limits: {{account: {{tokens_per_day: 10M}}}}
budgets:
  warn_at: [0.000001]
  webhook: {{url: "http://127.0.0.1:{port}/{token}", secret: "${{CANARY_WEBHOOK_SECRET}}"}}
models:
  - {{id: kept, targets: [{{backend: up, model: kept}}]}}
"""
ENVIRONMENT: dict[str, Any] = {
    "CANARY_UPSTREAM_KEY": UPSTREAM_KEY,
    "CANARY_CHECK_KEY": CHECK_KEY,
    "CANARY_ADMIN_KEY": ADMIN_KEY,
    "CANARY_WEBHOOK_SECRET": WEBHOOK_SECRET,
}
# A target for each answer, so that failures open no breaker.
MODEL = '  - {{id: m{0}, targets: [{{backend: up, model: u{0}}}], sessions: "off", retries: {{attempts: 1}}}}\n'
ECHO = f"Authorization: Bearer {UPSTREAM_KEY}; key {UPSTREAM_KEY} with {PROMPT!r} in /srv/canary/weights.gguf"


def failing() -> Iterator[Json | Raw | Events]:
    """Yields answers that quote the key and the prompt."""
    error = {"error": {"message": ECHO, "type": ECHO, "code": ECHO, "param": ECHO}}
    for status in (400, 401, 404, 413, 429, 500, 503):
        yield Json(error, status)
        yield Raw([f"HTTP/1.1 {status} X\r\nX-Echo: {UPSTREAM_KEY}\r\nContent-Length: {len(ECHO)}\r\n\r\n{ECHO}"])
    yield Json(
        {}, 302, {"Location": f"http://{UPSTREAM_KEY}@127.0.0.1/{UPSTREAM_KEY}?prompt={PROMPT}".replace(" ", "+")}
    )
    yield Json({"choices": ECHO, "usage": {"prompt_tokens": ECHO}})
    yield Json({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": ECHO}]})
    yield Raw([f"HTTP/1.1 {ECHO}\r\n\r\n"])
    yield Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {ECHO}\r\n\r\n"])
    yield Raw([f"HTTP/1.1 200 OK\r\nContent-Encoding: {UPSTREAM_KEY}\r\nContent-Length: 2\r\n\r\n{{}}"])
    steps: tuple[list[Step], ...] = (
        [f"data: {ECHO}\n\n"],
        [*chunks("Hi"), f"data: {json.dumps(error)}\n\n"],
        [*chunks("Hi"), f"event: error\ndata: {ECHO}\n\n"],
        [*chunks("Hi"), f'data: {{"choices": "{UPSTREAM_KEY}"}}\n\n'],
    )
    yield from map(Events, steps)


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Parley, str, Path]]:
    """A Parley after the failures, what its callers received, and its configuration file."""
    file = tmp_path_factory.mktemp("canaries") / "parley.yaml"
    with ScriptedUpstream() as upstream:
        answers = list(failing())
        models = "".join(MODEL.format(number) for number in range(len(answers)))
        file.write_text(CONFIG.format(url=upstream.url, port=reserved_port(), token=WEBHOOK_TOKEN) + models)
        with started("--config", str(file), "--admin", "127.0.0.1:0", **ENVIRONMENT) as parley:
            received = [asked(parley, "kept", stream=False)]
            for number, answer in enumerate(answers):
                for stream in (False, True):
                    upstream.reset()
                    upstream.answer(answer, answer)
                    received.append(asked(parley, f"m{number}", stream=stream))
                    assert upstream.requests
            received.append(refused_by_the_admin_api(parley))
            parley.wait_for_log("budget reached")
            parley.wait_for_log("alert not accepted")
            yield parley, "\n".join(received), file


def asked(parley: Parley, model: str, *, stream: bool) -> str:
    """Makes a call; returns the headers and the body of the answer."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), parley.headers())
        response = connection.getresponse()
        return f"{response.getheaders()}\n{response.read().decode()}"


def refused_by_the_admin_api(parley: Parley) -> str:
    """Calls the admin listener with a wrong key, which begins like the right one; returns the error."""
    address = json.loads((parley.folder / "ready.json").read_text())["admin"]
    wrong = (("authorization", f"Bearer {ADMIN_KEY[:-1]}"),)
    with grpc.insecure_channel(address) as channel:
        keys = KeysStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            keys.ListKeys(ListKeysRequest(), metadata=wrong)
    return repr(caught.value)


def test_callers_receive_no_key_and_no_path(canaries: tuple[Parley, str, Path]) -> None:
    """The prompt is the caller's own, and helps to correct the request."""
    _, received, _ = canaries
    assert "error" in received
    for secret in (*SECRETS, ADMIN_KEY[:-1], "/srv/canary"):
        assert secret not in received


def test_logs_have_no_secret_and_no_prompt(canaries: tuple[Parley, str, Path]) -> None:
    """Neither log has a word of the backend that is not a code, a type or a field."""
    parley, _, _ = canaries
    text = parley.log + parley.output.replace(parley.key, "", 1)
    assert '"event":"call"' in text
    for secret in (*SECRETS, ADMIN_KEY[:-1], "tulip", "wedding", "/srv/canary", parley.key):
        assert secret not in text


def test_processes_show_no_secret(canaries: tuple[Parley, str, Path]) -> None:
    """No command line has one, and of the children only workers have the keys of backends in their environment."""
    parley, _, _ = canaries
    own_key, workers = parley.key, set(parley.workers())
    for pid in (parley.process.pid, *parley.children()):
        parts = ["cmdline"] if pid in workers or pid == parley.process.pid else ["cmdline", "environ"]
        for part in parts:
            text = ""
            with suppress(OSError):
                text = Path(f"/proc/{pid}/{part}").read_bytes().decode(errors="replace")
            assert not [secret for secret in (*SECRETS, own_key) if secret in text], (pid, part)


def test_files_have_no_secret(canaries: tuple[Parley, str, Path]) -> None:
    """The store, the run folder and Envoy's configuration have no keys; only the store has a prompt, of a session."""
    parley, _, _ = canaries
    own_key = parley.key
    for file in (parley.folder / "state").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            found = [secret for secret in SECRETS if secret.encode() in data]
            assert [] == found, file
            assert b"tulip" not in data or file.name.startswith("parley.db"), file
            assert own_key.encode() not in data or file.stat().st_mode & 0o777 == 0o600, file


def test_the_check_of_the_configuration_shows_no_secret(canaries: tuple[Parley, str, Path]) -> None:
    """`config check` prints the configuration, or its errors, without keys."""
    _, _, file = canaries
    wrong = file.with_name("wrong.yaml")
    wrong.write_text(file.read_text().replace("kind: openai", "kind: opena", 1))
    for path in (file, wrong):
        done = run_here("config", "check", str(path), **ENVIRONMENT)
        printed = done.stdout + done.stderr
        assert printed
        # The token is in the URL, which the operator has written into the file, and which a wrong line may quote.
        assert not [secret for secret in SECRETS if secret in printed and secret != WEBHOOK_TOKEN]


def test_dumps_have_no_secret(canaries: tuple[Parley, str, Path]) -> None:
    """Exports, lists, the audit log and usage have no key; the export of a session has its prompt."""
    parley, _, file = canaries
    state = ("--state-dir", str(parley.folder / "state"), "--config", str(file))

    def printed(*command: str) -> str:
        done = run_here(*command, *state, **ENVIRONMENT)
        assert 0 == done.returncode, done.stderr
        return done.stdout + done.stderr

    [session] = parley.request("GET", "/api/v1/sessions")[1]["sessions"]
    exported = printed("sessions", "export", session["id"])
    assert "tulip" in exported
    lists = [
        printed(*command, "--json") for command in (("keys", "list"), ("accounts", "list"), ("audit",), ("usage",))
    ]
    assert all(lists)
    for text in (exported, *lists):
        assert not [secret for secret in (*SECRETS, parley.key) if secret in text]
