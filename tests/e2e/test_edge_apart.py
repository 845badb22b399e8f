"""`parley edge` and `parley serve --behind-edge`: Envoy apart from its workers, as on several machines."""

import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.supervisor import envoy
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.e2e.conftest import write_config
from tests.processes import COMMAND, PATIENCE, environment, reserved_port, run, run_here, until
from tests.upstream import Gate, Json, ScriptedUpstream, completion

_HEADER = struct.Struct(">6H")  # of a DNS message: id, flags, and the numbers of questions and records
_IS_ANSWER, _A = 0x8580, 1
ADMIN_KEY = "0123456789abcdef0123456789abcdef"


class Names:
    """A DNS server: every name has the IPv4 addresses of `addresses`, and no others."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            end = query.index(b"\0", _HEADER.size) + 5
            (kind,) = struct.unpack_from(">H", query, end - 4)
            found = self.addresses if kind == _A else []
            head = _HEADER.pack(*struct.unpack_from(">H", query), _IS_ANSWER, 1, len(found), 0, 0)
            records = (b"\xc0\x0c" + struct.pack(">2HIH", _A, 1, 1, 4) + socket.inet_aton(one) for one in found)
            self._socket.sendto(head + query[_HEADER.size : end] + b"".join(records), client)


@contextmanager
def running(
    command: list[str], log: Path, cwd: Path | None = None, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process until the end of the block; prints its log if the block fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=cwd, env=environment(**variables))
    try:
        yield process
    except BaseException:
        sys.stderr.write(f"--- {log.name}\n{log.read_text()[-4000:]}")
        raise
    finally:
        process.terminate()
        process.wait(PATIENCE)


@dataclass(frozen=True)
class Workers:
    """Two workers with the same ports on two addresses, and an API key."""

    port: int
    admin_port: int
    key: str
    first: subprocess.Popen[bytes]
    logs: tuple[Path, Path]


@pytest.fixture(scope="module")
def workers(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """The workers at 127.0.0.2, which a test ends, and at 127.0.0.3."""
    folder, port, admin_port = tmp_path_factory.mktemp("apart"), reserved_port(), reserved_port()
    (folder / "admin-key").write_text(ADMIN_KEY)
    common = ["--config", str(write_config(folder, the_upstream)), "--state-dir", str(folder / "state")]
    key = json.loads(run_here("keys", "create", "--name", "apart", "--json", *common).stdout)["key"]
    serve = [COMMAND, "serve", *common, "--behind-edge", "--hang-timeout", "0", "--metrics", "127.0.0.1:0"]
    serve += ["--admin-key-file", str(folder / "admin-key")]

    def command(host: str) -> list[str]:
        return [*serve, "--listen", f"{host}:{port}", "--admin", f"{host}:{admin_port}"]

    logs = folder / "first.log", folder / "second.log"
    with running(command("127.0.0.2"), logs[0]) as first, running(command("127.0.0.3"), logs[1]):
        yield Workers(port, admin_port, key, first, logs)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for Envoy's admin socket."""
    with tempfile.TemporaryDirectory(prefix="pe-", dir="/tmp") as made:
        yield Path(made)


def request(port: int, path: str, key: str = "", body: Any = None) -> tuple[int, Any]:
    """Sends one REST call; returns its status, 0 without a connection, and the JSON or the text of its body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        text = response.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()
    return response.status, json.loads(text) if text.startswith("{") else text


def chat(port: int, key: str) -> int:
    """Makes a chat completion; returns the status."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    return request(port, "/v1/chat/completions", key, body)[0]


def test_envoy_follows_the_addresses_of_its_workers(workers: Workers, tmp_path: Path, folder: Path) -> None:
    """With strict DNS, Envoy uses each address of a name; a worker is replaced by another one without a failed call."""
    names, key, http, rpc, admin = Names(), workers.key, reserved_port(), reserved_port(), reserved_port()
    options = ["--workers", f"dns:workers.test:{workers.port}"]
    options += ["--admin-workers", f"dns:workers.test:{workers.admin_port}"]
    listeners = ["--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{rpc}", "--admin", f"127.0.0.1:{admin}"]
    assert 0 == run_here("edge", "render", str(folder), *options, *listeners).returncode
    config = json.loads((folder / "envoy.yaml").read_text())
    config["typed_dns_resolver_config"] = _resolver(names.port)
    (folder / "envoy.yaml").write_text(json.dumps(config))
    with running(envoy.command(folder / "envoy.yaml"), tmp_path / "envoy.log", cwd=folder):
        until(lambda: request(http, "/livez")[0] == 200, "Envoy serves, before it has workers")
        assert 503 == request(http, "/readyz")[0]
        names.addresses = ["127.0.0.2"]
        # Two clusters, each of which resolves the name by itself.
        until(lambda: {request(http, path)[0] for path in ("/readyz", "/healthz")} == {200}, "the worker is found")
        assert 200 == chat(http, key)
        _check_health(http, workers.port)
        with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            metadata = (("authorization", f"Bearer {key}"),)
            (model,) = ModelsStub(channel).ListModels(ListModelsRequest(), metadata=metadata, timeout=PATIENCE).data
        assert "scripted" == model.id
        _check_credentials(http, workers.logs[0])
        _check_admin(admin, http)

        names.addresses = ["127.0.0.2", "127.0.0.3"]
        until(lambda: chat(http, key) == 200 and "ChatCompletion" in workers.logs[1].read_text(), "both serve")
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(workers.first.wait, PATIENCE)
            workers.first.terminate()
            statuses = [chat(http, key)]
            while not ended.done():
                statuses.append(chat(http, key))
        names.addresses = ["127.0.0.3"]
        statuses.append(chat(http, key))
        assert {200} == set(statuses)


def _check_health(http: int, port: int) -> None:
    """`parley health` reports the health of a listener and of a service, and the status of a page."""
    healthy = ([f"127.0.0.2:{port}"], [f"127.0.0.2:{port}", "--service", "parley.v1.ChatCompletions"])
    for arguments in healthy:
        assert (0, "SERVING\n") == _health(*arguments)[:2]
    assert (0, "200\n") == _health(f"http://127.0.0.1:{http}/readyz")[:2]
    code, _, error = _health(f"127.0.0.2:{port}", "--service", "missing")
    assert (1, True) == (code, "does not serve: NOT_FOUND" in error)
    code, _, error = _health(f"http://127.0.0.1:{http}/missing")
    assert (1, True) == (code, "does not serve: HTTP Error 404" in error)


def _health(*arguments: str) -> tuple[int, str, str]:
    done = run_here("health", *arguments)
    return done.returncode, done.stdout, done.stderr


def _check_credentials(http: int, log: Path) -> None:
    """A large request with an unknown key is answered by a worker's check, which knows the client's address."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x" * 200_000}]}
    status, answer = request(http, "/v1/chat/completions", f"sk-{'x' * 43}", body)
    assert (401, "Invalid API key") == (status, answer["error"]["message"])
    until(lambda: "127.0.0.1" in log.read_text(), "the log of the worker has the client's address")


def _check_admin(admin: int, http: int) -> None:
    """The admin listener serves what is in the store, with an admin key, and the Console without the other views."""
    path = "/parley.admin.v1."
    body = {"page_size": 9}
    until(
        lambda: request(admin, f"{path}Keys/ListKeys", ADMIN_KEY, body)[0] == 200, "the admin listener finds the worker"
    )
    _, answer = request(admin, f"{path}Keys/ListKeys", ADMIN_KEY, body)
    assert ["apart"] == [key["name"] for key in answer["keys"]]
    assert 401 == request(admin, f"{path}Keys/ListKeys", "wrong", body)[0]
    status, answer = request(admin, f"{path}Operations/ListCalls", ADMIN_KEY, {"account": "default"})
    assert (404, True) == (status, "call them there" in answer["message"])
    assert "<title>" in request(admin, "/")[1]
    assert {"certificates": False, "operations": False} == request(admin, "/console/settings.json")[1]
    assert 404 == request(http, f"{path}Keys/ListKeys", ADMIN_KEY, body)[0]


def _resolver(port: int) -> Any:
    kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    servers = [{"socket_address": {"address": "127.0.0.1", "port_value": port}}]
    options = {"no_default_search_domain": True}
    config = {"@type": kind, "resolvers": servers, "dns_resolver_options": options}
    return {"name": "envoy.network.dns_resolver.cares", "typed_config": config}


def test_a_drain_waits_for_running_calls(
    workers: Workers, upstream: ScriptedUpstream, tmp_path: Path, folder: Path
) -> None:
    """`parley edge drain` ends when the running calls have; new connections are refused meanwhile."""
    http, metrics, gate = reserved_port(), reserved_port(), Gate()
    run_edge = [*_run_edge(workers, folder, http), "--metrics", f"127.0.0.1:{metrics}"]
    upstream.answer(Json(completion("Hello"), wait=gate))
    with running(run_edge, tmp_path / "envoy.log") as edge, ThreadPoolExecutor(2) as pool:
        until(lambda: request(http, "/readyz")[0] == 200, "the worker is found")
        status, page = request(metrics, "/metrics")
        assert (200, True) == (status, "envoy_cluster_upstream_rq_total" in page)
        assert 404 == request(metrics, "/clusters")[0]
        call = pool.submit(chat, http, workers.key)
        upstream.received()
        assert 'parley_calls_in_flight{worker="1"} 1.0\n' in _metrics(workers.logs[1])
        drained = pool.submit(run, "edge", "drain", str(folder), "--shutdown-delay", "0", "--shutdown-grace", "60s")
        until(lambda: request(http, "/readyz")[0] == 0, "the listener is closed")
        assert (False, False) == (call.done(), drained.done())
        gate.set()
        assert (200, 0) == (call.result(PATIENCE), drained.result(PATIENCE).returncode)
        assert edge.poll() is None


def test_sigterm_waits_for_running_calls(
    workers: Workers, upstream: ScriptedUpstream, tmp_path: Path, folder: Path
) -> None:
    """`parley edge run` drains at SIGTERM and ends with 0. The rate of its lines about refused calls is limited."""
    http, gate, log = reserved_port(), Gate(), tmp_path / "envoy.log"
    upstream.answer(Json(completion("Hello"), wait=gate))
    # Each thread of Envoy lets an address fail 100 times; the kernel chooses the thread of a connection.
    run_edge = [*_run_edge(workers, folder, http), "--threads", "1"]
    with running(run_edge, log) as edge, ThreadPoolExecutor(1) as pool:
        until(lambda: request(http, "/readyz")[0] == 200, "the worker is found")
        statuses = [chat(http, "wrong") for _ in range(160)]
        assert ({401}, True) == (set(statuses[:100]), 429 in statuses)
        call = pool.submit(chat, http, workers.key)
        upstream.received()
        edge.terminate()
        until(lambda: request(http, "/readyz")[0] == 0, "the listener is closed")
        assert (False, None) == (call.done(), edge.poll())
        gate.set()
        assert (200, 0) == (call.result(PATIENCE), edge.wait(PATIENCE))
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    refused = [line for line in lines if line["event"] == "call"]
    assert ("UNAUTHENTICATED", "envoy") == (refused[0]["status"], refused[0]["refused_by"])
    assert 100 <= len(refused) < 160


def _run_edge(workers: Workers, folder: Path, http: int) -> list[str]:
    """Returns the command of an Envoy in front of the second worker."""
    options = ["--workers", f"dns:127.0.0.3:{workers.port}", "--http", f"127.0.0.1:{http}", "--grpc", "127.0.0.1:0"]
    return [COMMAND, "edge", "run", str(folder), *options, "--shutdown-delay", "0", "--shutdown-grace", "60s"]


def _metrics(log: Path) -> str:
    """Returns the metrics of the worker with this log, of which an autoscaler reads one."""
    found = re.search(r"^metrics  http://127.0.0.1:(\d+)/metrics$", log.read_text(), re.MULTILINE)
    assert found, log.read_text()
    return str(request(int(found[1]), "/metrics")[1])
