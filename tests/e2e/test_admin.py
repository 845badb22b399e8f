"""The admin API of `parley up`: its Unix socket and its listener, and what its changes do to running calls."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.cli.main import main
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests import sse
from tests.e2e.conftest import write_config
from tests.processes import Parley, run, started, until
from tests.rpc.test_admin import METHODS
from tests.upstream import Events, ScriptedUpstream, Stall, chunks

GRPCURL = str(Path(sys.executable).with_name("grpcurl"))
BINPB = Path(__file__).parents[2] / "edge" / "parley.binpb"
ADMIN_KEY = "0123456789abcdef0123456789abcdef"
QUESTION = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the configuration and the state of the stack."""
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def admin_stack(the_upstream: ScriptedUpstream, folder: Path) -> Iterator[Parley]:
    """One `parley up` with the admin listener and two workers."""
    (folder / "key").write_text(f"{ADMIN_KEY}\n")
    options = ("--admin", "127.0.0.1:0", "--admin-key-file", str(folder / "key"), "--workers", "2")
    with started("--config", str(write_config(folder, the_upstream)), *options, folder=folder) as parley:
        yield parley


def _grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, GRPCURL, "-plaintext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _call(parley: Parley, method: str, **request: Any) -> dict[str, Any]:
    """Calls a method of the admin API on the Unix socket, which describes itself."""
    path = str(parley.folder / "state" / "admin.sock")
    done = _grpcurl("-unix", "-d", json.dumps(request), path, f"parley.admin.v1.{method}")
    assert 0 == done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _accepts(path: Path) -> bool:
    """Returns whether a server accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _new_key(parley: Parley, **fields: Any) -> tuple[str, str]:
    """Creates a key; returns its id and its secret."""
    made = _call(parley, "Keys/CreateKey", key={"name": "test", **fields})
    return made["key"]["id"], made["secret"]


def test_the_socket_survives_its_worker(admin_stack: Parley) -> None:
    """`admin.sock` in the state folder, with mode 0600, is served whichever worker lives."""
    path = admin_stack.folder / "state" / "admin.sock"
    assert 0o600 == path.stat().st_mode & 0o777
    before = _call(admin_stack, "Keys/ListKeys")
    for pid in admin_stack.workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not _accepts(path), "the end of both workers")
    until(lambda: _accepts(path), "another worker")
    assert before == _call(admin_stack, "Keys/ListKeys")


def test_the_listener_requires_an_admin_key(admin_stack: Parley) -> None:
    """The admin listener serves the API to callers with an admin key, whose address is in the audit log."""
    address = json.loads((admin_stack.folder / "ready.json").read_text())["admin"]
    assert f"\nAdmin http://{address}/\n" in admin_stack.output
    protos, method = ("-protoset", str(BINPB)), "parley.admin.v1.Accounts/CreateAccount"
    request = ("-d", '{"account": {"name": "remote"}}')
    for authorization in ("", f"Bearer {admin_stack.key}"):
        refused = _grpcurl(*protos, "-H", f"authorization: {authorization}", *request, address, method)
        assert "Missing or invalid admin key" in refused.stderr
    made = _grpcurl(*protos, "-H", f"authorization: Bearer {ADMIN_KEY}", *request, address, method)
    assert 0 == made.returncode, made.stderr
    [event] = _call(admin_stack, "AuditLog/ListAuditEvents", subject="account:remote")["events"]
    assert ("admin-key:admin", "127.0.0.1") == (event["actor"], event["source"])
    admin_stack.wait_for_log("admin call refused")
    assert ADMIN_KEY not in admin_stack.log


def _post(parley: Parley, path: str, body: str, **headers: str) -> tuple[int, Any]:
    """Posts JSON to the admin listener with the admin key; returns the status and the JSON of the answer."""
    address = json.loads((parley.folder / "ready.json").read_text())["admin"]
    with closing(HTTPConnection(address, timeout=30)) as connection:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        known = {"content-type": "application/json", "authorization": f"Bearer {ADMIN_KEY}"}
        connection.request("POST", path, body, known | given)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_the_listener_serves_json(admin_stack: Parley) -> None:
    """Each method is a POST of JSON to the path of gRPC; errors are a `google.rpc.Status` with its details."""
    path = "/parley.admin.v1.Accounts/"
    hostile = "a/b%2F?#<script>'\"é"
    account = {"name": hostile, "plan": "pro", "limits": {"requests_per_minute": 5}}
    assert (200, account) == _post(admin_stack, f"{path}CreateAccount", json.dumps({"account": account}))
    assert (200, account) == _post(admin_stack, f"{path}GetAccount", json.dumps({"name": hostile}))
    status, error = _post(admin_stack, f"{path}GetAccount", '{"name": "nobody"}')
    assert (404, 5, "ACCOUNT_NOT_FOUND") == (status, error["code"], error["details"][0]["reason"])
    status, error = _post(admin_stack, f"{path}GetAccount", '{"name": "nobody"}', authorization="Bearer x")
    assert (401, "INVALID_ADMIN_KEY") == (status, error["details"][0]["reason"])
    lines = {"max_lines": 1}
    assert 1 == len(_post(admin_stack, "/parley.admin.v1.Operations/ListCallLogLines", json.dumps(lines))[1]["lines"])


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("Keys/ListKeys", "{}", {"sec_fetch_site": "cross-site"}, 403, "pages of other origins may not call"),
        ("Keys/ListKeys", "{}", {"sec_fetch_site": "same-site"}, 403, "pages of other origins may not call"),
        ("Keys/ListKeys", "{}", {"content_type": "text/plain"}, 415, "the content type must be application/json"),
        ("Keys/ListKeys", "{", {}, 400, "The body must be a JSON object"),
        ("Keys/ListKeys", "[]", {}, 400, "The body must be a JSON object"),
        ("Keys/ListKeys", f'{{"account": {"[" * 200}', {}, 400, "nested too deeply"),
        ("Keys/Nothing", "{}", {}, 404, "Unknown method"),
        ("Keys/ListKeys/", "{}", {}, 404, "Unknown method"),
        ("../parley.v1.Models/ListModels", "{}", {}, 404, "Unknown method"),
        ("Keys/ListKeys?other=a", "{}", {}, 400, "Could not find field"),
    ],
)
def test_the_listener_refuses_other_json(
    admin_stack: Parley, path: str, body: str, headers: dict[str, str], status: int, message: str
) -> None:
    """A page of another origin, another type, and what is no call are refused with a message, as JSON."""
    found, error = _post(admin_stack, f"/parley.admin.v1.{path}", body, **headers)
    assert status == found
    assert message in error["message"]


@pytest.mark.parametrize(
    ("method", "body", "member", "rule"),
    [
        ("CreateKey", '{"key": {"account": "acme", "scope": ["models"]}}', "key.scope", 'did you mean "scopes"?'),
        ("CreateKey", r'{"key": {"name": "a", "\u0073cop\u00e9": []}}', "key.scop\u00e9", 'did you mean "scopes"?'),
        ("UpdateKey", '{"key": {"id": "a"}, "updateMask": "limits"}', "updateMask", 'did you mean "update_mask"?'),
        ("UpdateKey", '{"key": {"limit": {"a": 1}}, "update_mask": "limits"}', "key.limit", 'did you mean "limits"?'),
        ("RevokeKey", '{"id": "a", "because": {"id": []}}', "because", "use one of: id"),
        ("CreateKey", '{"key": [{"": 1}]}', "key[0].", "use one of: account, created,"),
        ("GetKey", '{"id": "a", "id": "b"}', "id", "is given twice"),
        ("GetKey", f'{{"{"long" * 99}": 1}}', f"{'long' * 16}…", "use one of: id"),
    ],
)
def test_the_listener_refuses_unknown_members(
    admin_stack: Parley, method: str, body: str, member: str, rule: str
) -> None:
    """A misspelt member is refused with its path and the nearest name; ignored, it would grant or clear more."""
    status, error = _post(admin_stack, f"/parley.admin.v1.Keys/{method}", body)
    assert (400, 3) == (status, error["code"])
    assert error["message"].startswith(f"`{member}`")
    assert rule in error["message"]
    info, violations = error["details"]
    assert ("INVALID_REQUEST", "parley") == (info["reason"], info["domain"])
    assert [{"field": member, "description": error["message"]}] == violations["fieldViolations"]


def test_no_other_listener_serves_it(admin_stack: Parley) -> None:
    """No method of the admin API exists on the listeners of callers, as native gRPC or as a path of REST."""
    key = admin_stack.key
    with grpc.insecure_channel(admin_stack.grpc) as channel:
        for name, method in METHODS.items():
            path = f"/{method.containing_service.full_name}/{name}"
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                call(b"", metadata=(("authorization", f"Bearer {key}"),))
            for prefix in ("", "/v1", "/api/v1", "/upchatty", "/fastapi", "/openpipe"):
                assert 404 == admin_stack.request("POST", prefix + path, {})[0]


def test_a_missing_scope_is_refused(admin_stack: Parley) -> None:
    """A key without the scope of a call gets 403 and the name of the scope; with it, the call is served."""
    _, secret = _new_key(admin_stack, scopes=["models"])
    assert 200 == admin_stack.request("GET", "/v1/models", key=secret)[0]
    text = "This key does not have the scope `chat`; use a key that has it"
    status, error = admin_stack.request("POST", "/v1/chat/completions", QUESTION, secret)
    assert (403, text, "scope_required") == (status, error["error"]["message"], error["error"]["code"])
    assert (403, {"error": text}) == admin_stack.request("POST", "/api/v1/chat/completions", QUESTION, secret)
    with grpc.insecure_channel(admin_stack.grpc) as channel:
        chat, metadata = ChatCompletionsStub(channel), (("authorization", f"Bearer {secret}"),)
        ModelsStub(channel).ListModels(ListModelsRequest(), metadata=metadata)
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            chat.CreateChatCompletion(CreateChatCompletionRequest(), metadata=metadata)


@contextmanager
def _streaming(parley: Parley, secret: str) -> Iterator[HTTPResponse]:
    """Begins a stream over REST that never ends by itself, and waits for its first event."""
    with parley.connection() as connection:
        body = json.dumps({**QUESTION, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, parley.headers(secret))
        response = connection.getresponse()
        start = response.read(6)
        assert b"data: " == start, start + response.read()
        yield response


def _shows(parley: Callable[..., str], command: tuple[str, ...], text: str) -> bool:
    return text in parley(*command)


def test_the_commands_show_and_steer_all_workers(
    admin_stack: Parley, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`parley calls`, `targets`, `log-level` and `top` answer for both workers, within 80 columns on a terminal."""
    monkeypatch.setenv("COLUMNS", "80")

    def parley(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main([*arguments, "--state-dir", str(admin_stack.folder / "state")])
        return capsys.readouterr().out

    def is_opened() -> bool:
        error = admin_stack.request("POST", "/v1/chat/completions", QUESTION)[1]["error"]
        return bool(error["code"] == "upstream_unavailable")

    upstream.answer(*[Events([*chunks("Hel"), Stall()])] * 2)
    with _streaming(admin_stack, admin_stack.key) as one, _streaming(admin_stack, admin_stack.key) as two:
        until(lambda: 2 == len(json.loads(parley("calls", "--json"))), "two calls")
        found = json.loads(parley("calls", "--json"))
        assert {"scripted"} == {call["model"] for call in found}
        shown = parley("top", "--once")
        assert "2 calls" in shown
        assert all(len(line) <= 80 for line in shown.splitlines())
        for call in found:
            parley("calls", "cancel", call["request_id"])
        for stream in (one, two):
            events, is_done = sse.read(b"data: " + stream.read())
            assert ("call_cancelled", False) == (events[-1]["error"]["code"], is_done)
        for call in found:
            command = ("calls", "log", call["request_id"])
            until(partial(_shows, parley, command, "CALL_CANCELLED"), "its log line")
    [target] = json.loads(parley("targets", "--json"))
    assert 2 == target["workers"]
    assert "open (operator)" in parley("targets", "open", target["name"])
    assert [True] * 4 == [is_opened() for _ in range(4)]
    killed = set(admin_stack.workers())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not killed & set(admin_stack.workers()), "the end of both workers")
    until(lambda: '"workers": 2' in parley("targets", "--json"), "two other workers")
    assert "open (operator)" in parley("targets")
    until(is_opened, "an answer of a new worker")
    assert "closed" in parley("targets", "close", target["name"])
    assert "debug until" in parley("log-level", "debug", "--for", "1h")
    assert "info (started with info)" in parley("log-level", "--clear")
    assert "The new configuration is in use: nothing has changed.\n" == parley("reload")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (["Keys/RevokeKey"], "invalid_api_key"),
        (["Keys/UpdateKey"], "invalid_api_key"),
        (["Keys/RotateKey"], "invalid_api_key"),
        (["Accounts/SuspendAccount", "Accounts/ResumeAccount"], "account_suspended"),
    ],
    ids=["revoked", "expired", "rotated", "suspended"],
)
def test_running_calls_end(admin_stack: Parley, upstream: ScriptedUpstream, changes: list[str], code: str) -> None:
    """Streams of REST and gRPC end with an error after their key or account has lost access; others go on."""
    upstream.answer(*[Events([*chunks("Hel"), Stall()])] * 3)
    key_id, secret = _new_key(admin_stack, account=f"account-{code}")
    requests: dict[str, dict[str, Any]] = {
        "Keys/RevokeKey": {"id": key_id},
        "Keys/UpdateKey": {"key": {"id": key_id, "expires": 1}},
        "Keys/RotateKey": {"id": key_id, "keep_seconds": 0},
    }
    with (
        grpc.insecure_channel(admin_stack.grpc) as channel,
        _streaming(admin_stack, secret) as rest,
        _streaming(admin_stack, admin_stack.key) as other,
    ):
        call: Any = ChatCompletionsStub(channel).StreamChatCompletion
        request = CreateChatCompletionRequest(model="scripted")
        request.messages.add(role="user").content.string_value = "Hi"
        native = call(request, metadata=(("authorization", f"Bearer {secret}"),))
        next(native)
        for change in changes[:1]:
            _call(admin_stack, change, **requests.get(change, {"name": f"account-{code}"}))
        events, is_done = sse.read(b"data: " + rest.read())
        assert (code, False) == (events[-1]["error"]["code"], is_done)
        with pytest.raises(grpc.RpcError):
            list(native)
        assert code == dict(native.trailing_metadata())["parley-error-code"]
        answers = [{"error": {"code": None}}]  # of each worker, which may know the key for half a second

        def is_refused() -> bool:
            answers[:] = [admin_stack.request("GET", "/v1/models", key=secret)[1] for _ in range(4)]
            return all("error" in answer for answer in answers)

        until(is_refused, "new calls are refused")
        assert {code} == {answer["error"]["code"] for answer in answers}
        assert other.fp is not None
        assert not other.isclosed()
    for change in changes[1:]:
        _call(admin_stack, change, name=f"account-{code}")


def test_the_admin_listener_needs_a_key_to_start(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """`parley up --admin` without an admin key, or with a short one, does not start and names the remedy."""
    config = str(write_config(tmp_path, upstream))
    (tmp_path / "short").write_text("secret")
    free = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    up = ("up", "--config", config, "--state-dir", str(tmp_path / "state"), *free)
    missing, short = run(*up), run(*up, "--admin-key-file", str(tmp_path / "short"))
    assert (1, 1) == (missing.returncode, short.returncode)
    assert "parley: --admin needs an admin key: set admin.keys in the configuration" in missing.stderr
    assert "an admin key must have at least 32 characters" in short.stderr
    assert "secret" not in short.stderr


def test_a_drain_stops_parley(admin_stack: Parley, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`parley drain` ends Parley as SIGTERM does. This is the last test, because it ends the stack."""
    with pytest.raises(SystemExit):
        main(["drain", "--state-dir", str(folder / "state")])
    assert "Requested" in capsys.readouterr().out
    until(lambda: not (folder / "state" / "admin.sock").exists(), "the end")
    assert 0 == admin_stack.process.wait(30)
