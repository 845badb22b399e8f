"""`parley doctor` on real files, sockets and a scripted backend."""

import asyncio
import fcntl
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from parley.cli.diagnosis import backends, certificates
from parley.cli.shared.probe import Reply
from parley.config.loader import load
from parley.stores.open import create_store
from tests.processes import run_here
from tests.upstream import Json, ScriptedUpstream, completion

KEY = "sk-doctor-secret-word"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    """A backend."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: ScriptedUpstream) -> ScriptedUpstream:
    """The backend, without earlier requests; its clock is that of this machine."""
    server.reset()
    server.default = Json(completion("OK"), headers={"Date": formatdate(usegmt=True)})
    return server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the configuration; the state folder is `state` in it."""
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path


def configure(folder: Path, url: str, more: str = "") -> Path:
    """Writes a configuration with one backend at `url`."""
    file = folder / "parley.yaml"
    file.write_text(
        f'backends: {{up: {{kind: openai, base_url: "{url}", api_key: "${{UP_KEY}}"}}}}\n'
        f"models: [{{id: m, targets: [{{backend: up, model: tiny}}]}}]\n{more}"
    )
    return file


def doctor(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs `parley doctor` with the configuration and the state folder of a folder, and with any free ports."""
    ports = {"PARLEY_HTTP": "127.0.0.1:0", "PARLEY_GRPC": "127.0.0.1:0", "PARLEY_METRICS": "127.0.0.1:0"}
    files = {"PARLEY_STATE_DIR": str(folder / "state"), "PARLEY_CONFIG": str(folder / "parley.yaml")}
    return run_here("doctor", *options, UP_KEY=KEY, no_proxy="*", **files, **ports)


def findings(folder: Path, check: str, *options: str) -> list[dict[str, Any]]:
    """Returns the findings of one check, from the JSON output."""
    result = doctor(folder, "--json", *options)
    assert KEY not in result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert (1 if any(one["status"] == "failed" for one in found) else 0) == result.returncode
    return [one for one in found if one.pop("check") == check]


def problem(folder: Path, check: str, *options: str) -> dict[str, Any]:
    """Returns the only finding of a check that is a warning or has failed."""
    (found,) = [one for one in findings(folder, check, *options) if one["status"] in {"warning", "failed"}]
    assert found["remedy"]
    return found


def test_every_check_passes(upstream: ScriptedUpstream, folder: Path) -> None:
    """Every check has a line; the backend is called once, with its key and for few tokens; nothing is created."""
    configure(folder, upstream.url)
    result = doctor(folder)
    assert (0, "") == (result.returncode, result.stderr)
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()[:-1]]  # the last: the limit of open files
    assert {"ok"} == {status for status, _, _ in lines}
    assert ["configuration", "backends", "store", "store", "clocks", "ports", "ports", "ports", "permissions"] == [
        check for _, check, _ in lines
    ]
    assert lines[1][2].startswith("up (tiny) answered in ")
    (call,) = [request for request in upstream.requests if request.method == "POST"]
    assert f"Bearer {KEY}" == call.headers["authorization"]
    assert ("tiny", 16) == (call.json["model"], call.json["max_tokens"])
    assert [] == list((folder / "state").iterdir())


def test_no_calls(upstream: ScriptedUpstream, folder: Path) -> None:
    """With --no-calls, no backend receives anything."""
    configure(folder, upstream.url)
    (found,) = findings(folder, "backends", "--no-calls")
    assert "skipped" == found["status"]
    assert [] == upstream.requests


@pytest.mark.parametrize(
    ("status", "message", "outcome", "remedy"),
    [
        (401, f"Incorrect API key provided: {KEY}", "failed", "check `api_key`, `base_url` and the target's `model`"),
        (404, "no such model", "failed", "check `api_key`, `base_url` and the target's `model`"),
        (429, "slow down", "warning", "wait, or have the vendor raise the limit of the key"),
        (500, "oops", "failed", "see the log of the server, or try again later"),
        (400, "`max_tokens` is bad", "failed", "check the target's `model`, and which parameters it accepts"),
    ],
)
def test_a_backend_that_refuses(
    status: int, message: str, outcome: str, remedy: str, upstream: ScriptedUpstream, folder: Path
) -> None:
    """The line has a remedy that fits the refusal, and never the key."""
    configure(folder, upstream.url)
    upstream.default = Json({"error": {"message": message}}, status)
    found = problem(folder, "backends")
    assert (outcome, remedy) == (found["status"], found["remedy"])
    assert found["message"].startswith("up (tiny): ")


def test_each_key_of_a_backend_is_called(upstream: ScriptedUpstream, folder: Path) -> None:
    """A key that the vendor refuses is named by its number, though calls would go on with another one."""
    file = configure(folder, upstream.url)
    file.write_text(file.read_text().replace('api_key: "${UP_KEY}"', 'api_keys: ["${UP_KEY}", "${UP_KEY}-2"]'))
    refused = f"Bearer {KEY}-2"
    upstream.default = lambda request: (
        Json({}, 401) if request.headers.get("authorization") == refused else Json(completion("OK"))
    )
    found = findings(folder, "backends")
    assert ["ok", "failed"] == [one["status"] for one in found]
    assert ["up (tiny), key 1 answered", "up (tiny), key 2: "] == [
        found[0]["message"].partition(" in ")[0],
        found[1]["message"][:18],
    ]


def test_a_backend_with_the_new_name_of_the_limit(upstream: ScriptedUpstream, folder: Path) -> None:
    """A model that demands `max_completion_tokens` gets it."""
    configure(folder, upstream.url)
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    upstream.answer(Json({"error": {"message": text, "code": "unsupported_parameter", "param": "max_tokens"}}, 400))
    assert ["ok"] == [one["status"] for one in findings(folder, "backends")]
    assert 16 == upstream.requests[1].json["max_completion_tokens"]


def test_a_backend_is_called_with_the_parameters_of_its_target(upstream: ScriptedUpstream, folder: Path) -> None:
    """A server that knows another name of the limit answers, as it does for callers."""
    file = configure(folder, upstream.url)
    file.write_text(file.read_text().replace("model: tiny", "model: tiny, rename: {max_tokens: limit}, set: {mode: a}"))
    assert ["ok"] == [one["status"] for one in findings(folder, "backends")]
    body = upstream.requests[0].json
    assert (16, "a", False) == (body["limit"], body["mode"], "max_tokens" in body)


@pytest.mark.parametrize(("more", "status"), [("", "skipped"), ("default_model: up/tiny\n", "ok")])
def test_a_backend_whose_models_callers_name(more: str, status: str, upstream: ScriptedUpstream, folder: Path) -> None:
    """The default model is called if an id with `*` stands for it; `*` itself is no model."""
    file = configure(folder, upstream.url, more)
    file.write_text(file.read_text().replace("id: m", 'id: "up/*"').replace("model: tiny", 'model: "*"'))
    assert [status] == [one["status"] for one in findings(folder, "backends")]
    called = [request.json["model"] for request in upstream.requests if request.method == "POST"]
    assert ["tiny"] * (status == "ok") == called


def test_a_backend_that_is_down(folder: Path) -> None:
    """A refused connection is a failure, with exit code 1 and one line on standard error."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        configure(folder, f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        found = problem(folder, "backends")
        result = doctor(folder)
    assert ("failed", "start the server, or correct its address; check the network and the proxy variables") == (
        found["status"],
        found["remedy"],
    )
    assert (1, "parley: 1 check failed\n") == (result.returncode, result.stderr)


def test_an_invalid_configuration(folder: Path) -> None:
    """Each problem is a line with file and line; what needs the configuration is skipped, the rest is checked."""
    configure(folder, "http://up", "models2: []\nplans: 7\n")
    found = findings(folder, "configuration")
    assert [f"{folder}/parley.yaml:{line}" for line in (4, 3)] == [one["message"].split(": ")[0] for one in found]
    assert ["skipped"] == [one["status"] for one in findings(folder, "store")]
    assert {"ok"} == {one["status"] for one in findings(folder, "permissions")}


def test_each_key_in_the_file_is_a_risk(upstream: ScriptedUpstream, folder: Path) -> None:
    """A key of several is one too; a reference to a file is none."""
    (folder / "key").write_text("from-a-file")
    file = configure(folder, upstream.url)
    keys = f'api_keys: ["{KEY}", "file:{folder}/key", "${{file:{folder}/key}}"]'
    file.write_text(file.read_text().replace('api_key: "${UP_KEY}"', keys))
    file.chmod(0o600)
    found = findings(folder, "configuration", "--no-calls")
    assert [f"{file}:1: backends.up.api_keys[0] has the secret itself"] == [one["message"] for one in found[1:]]


def test_risks_of_a_valid_configuration(upstream: ScriptedUpstream, folder: Path) -> None:
    """A key in the file, a file that others can read or change, and an unused backend are warnings."""
    file = configure(folder, upstream.url)
    text = file.read_text().replace('"${UP_KEY}"}', f'"{KEY}"}}, idle: {{kind: llama_cpp}}')
    file.write_text(text)
    file.chmod(0o646)
    found = findings(folder, "configuration", "--no-calls")
    assert ["ok", "warning", "warning", "warning", "warning"] == [one["status"] for one in found]
    assert "no model uses the backend idle" == found[1]["message"]
    assert f"run `chmod o-w {file}`" == found[2]["remedy"]
    assert f"{file}:1: backends.up.api_key has the secret itself" == found[3]["message"]
    assert f"run `chmod o-r {file}`" == found[4]["remedy"]


def test_a_lost_store(upstream: ScriptedUpstream, folder: Path) -> None:
    """A database that existed and is gone is a failure, and is not created anew; an existing one is fine."""
    file = configure(folder, upstream.url, f"store: {{kind: sqlite, path: {folder}/data/parley.db}}\n")
    (folder / "data").mkdir(mode=0o700)
    from parley.config.loader import load

    file.write_text(file.read_text().replace("${UP_KEY}", KEY))
    asyncio.run(create_store(load(file).store, folder / "state"))
    assert {"ok"} == {one["status"] for one in findings(folder, "store", "--no-calls")}
    for database in (folder / "data").iterdir():
        database.unlink()
    found = problem(folder, "store", "--no-calls")
    assert "failed" == found["status"]
    assert str(folder / "data" / "parley.db") in found["message"]
    assert [] == list((folder / "data").iterdir())


@pytest.mark.parametrize(("ahead", "text"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_wrong_clock(ahead: float, text: str, upstream: ScriptedUpstream, folder: Path) -> None:
    """A clock that differs from that of the backend is a failure with the difference."""
    configure(folder, upstream.url)
    upstream.default = Json(completion("OK"), headers={"Date": formatdate(time.time() + ahead, usegmt=True)})
    found = problem(folder, "clocks")
    assert f" s {text} that of {upstream.address}" in found["message"]
    assert 3590 < float(found["message"].split(" is ")[1].split()[0]) < 3610
    assert "NTP" in found["remedy"]


def test_a_port_in_use(upstream: ScriptedUpstream, folder: Path) -> None:
    """A port in use is a failure, unless the Parley of the state folder runs; that of metrics is a warning."""
    configure(folder, upstream.url)
    taken = upstream.address
    found = problem(folder, "ports", "--no-calls", "--http", taken)
    assert ("failed", f"{taken} is in use") == (found["status"], found["message"])
    assert found["remedy"].endswith("choose another with --http")
    assert "warning" == problem(folder, "ports", "--no-calls", "--metrics", taken)["status"]
    with (folder / "state" / "parley.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        ports = findings(folder, "ports", "--no-calls", "--http", taken)
    assert f"{taken} (--http) is in use while Parley runs (process 4711)" == ports[0]["message"]


def test_an_address_without_tls(upstream: ScriptedUpstream, folder: Path) -> None:
    """An address that other machines reach is a warning, because `parley up` refuses it without TLS."""
    configure(folder, upstream.url)
    found = problem(folder, "ports", "--no-calls", "--http", "0.0.0.0:0")
    assert "warning" == found["status"]
    assert "set `tls` in the configuration, or give --insecure to `parley up`" == found["remedy"]


def test_permissions(upstream: ScriptedUpstream, folder: Path) -> None:
    """A state folder that others can write to, a database that others can read, and a stored first key are listed."""
    configure(folder, upstream.url)
    state = folder / "state"
    state.chmod(0o777)
    (state / "first-key").write_text("sk-first-secret-word")
    (state / "parley.db").touch(0o644)
    (state / "parley.db").chmod(0o644)
    found = findings(folder, "permissions", "--no-calls")
    assert ["failed", "warning", "failed", "ok"] == [one["status"] for one in found]
    assert f"run `chmod go-w {state}`, or choose another --state-dir" == found[0]["remedy"]
    assert f"run `chmod o-rw {state}/parley.db`" == found[2]["remedy"]


@pytest.mark.parametrize(
    ("begins", "ends", "status", "text"),
    [
        (-400, -2, "failed", "t.pem (tls) expired on 2026-04-29"),
        (-400, 9, "warning", "t.pem (tls) expires on 2026-05-10"),
        (-400, 90, "ok", "t.pem (tls) is valid until 2026-07-30"),
        (1, 90, "failed", "t.pem (tls) is valid from 2026-05-02 00:00 UTC on"),
    ],
)
def test_the_dates_of_a_certificate(begins: int, ends: int, status: str, text: str) -> None:
    """A certificate that has expired, soon expires or is not valid yet has a remedy."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    found = certificates.judge("t.pem (tls)", now + timedelta(begins), now + timedelta(ends), now)
    assert (status, text, status != "ok") == (found.status, found.message, found.remedy != "")


def test_every_certificate_is_checked(upstream: ScriptedUpstream, folder: Path) -> None:
    """The listeners' certificate, the authorities of clients and the files of backends are checked."""
    authority = trustme.CA()
    old, new = authority.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC)), authority.issue_cert("b")
    for name, blob in (("old", old.cert_chain_pems[0]), ("new", new.private_key_and_cert_chain_pem)):
        blob.write_to_path(folder / f"{name}.pem")
    old.private_key_pem.write_to_path(folder / "tls.key")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "tls.key").chmod(0o600)
    more = f"""\
tls: {{certificate: {folder}/old.pem, key: {folder}/tls.key}}
auth: {{mtls: {{ca: {folder}/ca.pem}}}}
"""
    file = configure(folder, upstream.url, more)
    backend = f"client_certificate: {folder}/new.pem, ca: {folder}/ca.pem, api_key:"
    file.write_text(file.read_text().replace("api_key:", backend))
    found = findings(folder, "certificates", "--no-calls")
    assert ["failed", "ok", "ok", "ok"] == [one["status"] for one in found]
    for part, one in zip(("tls.certificate", "auth.mtls.ca", "up.ca", "up.client_certificate"), found, strict=True):
        assert f"{part})" in one["message"]


def test_a_package_that_imports_for_long_delays_no_other_backend(
    upstream: ScriptedUpstream, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider of any-llm-sdk blocks the process while it is imported; the time limits of others do not run."""
    file = configure(folder, upstream.url, "")
    text = file.read_text().replace("}}\n", "}, any: {kind: any_llm, provider: openai, api_key: x}}\n", 1)
    file.write_text(text.replace("targets: [", "targets: [{backend: any, model: x}, "))
    monkeypatch.setenv("UP_KEY", KEY)
    called: list[str] = []

    async def probe(name: str, *_: object) -> Reply:
        called.append(f"{name} begins")
        await asyncio.sleep(0)
        called.append(f"{name} ends")
        return Reply("OK", 0.1)

    monkeypatch.setattr(backends, "probe", probe)
    found = asyncio.run(backends.check(load(file), None))
    assert ["any begins", "any ends", "up begins", "up ends"] == called
    assert ["up", "any"] == [one.message.split()[0] for one in found]
