"""`parley up` with TLS and client certificates, called by real clients."""

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
import trustme

from parley.admin.v1.keys_pb2 import ListKeysRequest
from parley.admin.v1.keys_pb2_grpc import KeysStub
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2 import ListSessionsRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.e2e.conftest import write_config
from tests.processes import PATIENCE, Parley, run, run_here, started
from tests.rpc.calling import chat_request
from tests.upstream import ScriptedUpstream

CERTIFICATE = {"ca": "ca.pem", "cert": "cert.pem", "cert-key": "cert.key"}


@dataclass
class Secured:
    """A Parley with TLS. `authority` signs its certificate, `clients` those of its clients."""

    parley: Parley
    config: Path
    authority: trustme.CA
    clients: trustme.CA
    admins: trustme.CA
    key_pem: bytes

    def channel(self, client: trustme.LeafCert | None, address: str | None = None) -> grpc.Channel:
        """Returns a channel, by default to the gRPC listener, with a client certificate if one is given."""
        key = client.private_key_pem.bytes() if client else None
        chain = client.cert_chain_pems[0].bytes() if client else None
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), key, chain)
        return grpc.secure_channel((address or self.parley.grpc).replace("127.0.0.1", "localhost"), credentials)

    @property
    def port(self) -> int:
        """The port of the REST listener."""
        return int(self.parley.http.rpartition(":")[2])

    def list_keys(self, client: trustme.LeafCert | None, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Lists the API keys at the admin listener; returns the answer, or the status of the failure."""
        address = json.loads((self.parley.folder / "ready.json").read_text())["admin"]
        with self.channel(client, address) as channel:
            try:
                return KeysStub(channel).ListKeys(ListKeysRequest(), metadata=metadata, timeout=PATIENCE)
            except grpc.RpcError as error:
                failed: Any = error
                return failed.code()


@pytest.fixture(scope="module")
def secured(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A Parley with TLS, and client certificates whose DNS name is the account."""
    the_upstream.reset()
    folder = tmp_path_factory.mktemp("tls")
    authority, clients, admins = trustme.CA(), trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(folder / "tls.pem")
    leaf.private_key_pem.write_to_path(folder / "tls.key")
    clients.cert_pem.write_to_path(folder / "clients.pem")
    admins.cert_pem.write_to_path(folder / "admins.pem")
    config = write_config(folder, the_upstream)
    with config.open("a") as file:
        file.write(f"tls: {{certificate: {folder}/tls.pem, key: {folder}/tls.key}}\n")
        file.write(f"auth: {{mtls: {{ca: {folder}/clients.pem, account: san_dns}}}}\n")
        file.write(f"admin: {{mtls: {{ca: {folder}/admins.pem, names: [ops.internal]}}}}\n")
    with started("--config", str(config), "--admin", "127.0.0.1:0") as parley:
        yield Secured(parley, config, authority, clients, admins, leaf.private_key_pem.bytes())


def test_rest(secured: Secured) -> None:
    """OpenAI's client is answered over TLS, at the address of the ready file."""
    context = ssl.create_default_context()
    secured.authority.configure_trust(context)
    base = secured.parley.http.replace("127.0.0.1", "localhost")
    assert base.startswith("https://")
    with (
        openai.DefaultHttpxClient(verify=context) as http,
        openai.OpenAI(base_url=f"{base}/v1", api_key=secured.parley.key, http_client=http) as client,
    ):
        assert client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Hi"}]).choices


def test_a_failed_handshake_has_its_line(secured: Secured) -> None:
    """A client that does not trust the certificate, or speaks no TLS, has a line; other connections have none."""
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", secured.port)) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    secured.parley.wait_for_log('"reason":"TLS_FAILED"')
    lines = [json.loads(line) for line in secured.parley.log.splitlines() if '"event":"connection refused"' in line]
    assert {("127.0.0.1", "info")} == {(line["client"], line["level"]) for line in lines}
    test_rest(secured)
    assert len(lines) == secured.parley.log.count('"event":"connection refused"')


def test_the_certificate_of_an_administrator(secured: Secured) -> None:
    """The admin listener accepts a certificate of its authorities with a listed name, which the log of the call has."""
    assert secured.list_keys(secured.admins.issue_cert("ops.internal")).keys
    secured.parley.wait_for_log('"actor":"admin-certificate:ops.internal"')
    claimed = (("parley-client-name", "ops.internal"),)
    assert grpc.StatusCode.UNAUTHENTICATED == secured.list_keys(None)
    assert grpc.StatusCode.UNAUTHENTICATED == secured.list_keys(None, claimed)
    assert grpc.StatusCode.UNAUTHENTICATED == secured.list_keys(secured.admins.issue_cert("dev.internal"), claimed)
    wrong_key = (("authorization", f"Bearer {secured.parley.key}"),)
    assert grpc.StatusCode.UNAUTHENTICATED == secured.list_keys(secured.admins.issue_cert("ops.internal"), wrong_key)
    assert grpc.StatusCode.UNAVAILABLE == secured.list_keys(secured.clients.issue_cert("ops.internal"))


def test_the_console_knows_of_certificates(secured: Secured) -> None:
    """A browser is offered to use its certificate, which counts as over gRPC, and only for pages of the same origin."""
    port = int(json.loads((secured.parley.folder / "ready.json").read_text())["admin"].rpartition(":")[2])
    context = ssl.create_default_context()
    secured.authority.configure_trust(context)
    secured.admins.issue_cert("ops.internal").configure_cert(context)

    def request(method: str, path: str, **headers: str) -> tuple[int, Any]:
        with closing(HTTPSConnection("localhost", port, context=context, timeout=PATIENCE)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, "{}", {"content-type": "application/json", **given})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    assert (200, {"certificates": True, "operations": True}) == request("GET", "/console/settings.json")
    path = "/parley.admin.v1.Keys/ListKeys"
    status, answer = request("POST", path, sec_fetch_site="same-origin", parley_client_name="dev.internal")
    assert (200, ["first key"]) == (status, [key["name"] for key in answer["keys"]])
    assert 403 == request("POST", path, sec_fetch_site="cross-site")[0]
    assert 415 == request("POST", path, content_type="text/plain")[0]
    assert 405 == request("OPTIONS", path, origin="https://other.example.com")[0]


def test_private_keys_stay_private(secured: Secured) -> None:
    """The key of the listeners is only in files that the owner alone may read, and no client's key is anywhere."""
    client = secured.admins.issue_cert("ops.internal")
    assert secured.list_keys(client).keys
    own, others = (pem.decode().splitlines()[1] for pem in (secured.key_pem, client.private_key_pem.bytes()))
    texts = [secured.parley.log, secured.parley.output]
    for pid in (secured.parley.process.pid, *secured.parley.children()):
        texts += [Path(f"/proc/{pid}/{part}").read_text(errors="replace") for part in ("cmdline", "environ")]
    files = [file for file in (secured.parley.folder / "state").rglob("*") if file.is_file()]
    readable = [file for file in files if file.stat().st_mode & 0o077]
    assert any(own.encode() in file.read_bytes() for file in files)
    assert not [text for text in texts if own in text or others in text]
    assert not [file for file in readable if own.encode() in file.read_bytes()]
    assert not [file for file in files if others.encode() in file.read_bytes()]


def test_a_client_certificate_is_an_account(secured: Secured) -> None:
    """A call without an API key belongs to the account of the certificate, and so does its session."""
    with secured.channel(secured.clients.issue_cert("billing.internal")) as channel:
        made = ChatCompletionsStub(channel).CreateChatCompletion(chat_request())
        listed = SessionsStub(channel).ListSessions(ListSessionsRequest()).sessions
    assert [made.session_id] == [session.id for session in listed]
    accounts = run_here("accounts", "list", "--state-dir", str(secured.parley.folder / "state")).stdout
    assert "billing.internal" in accounts
    key = (("authorization", f"Bearer {secured.parley.key}"),)
    with secured.channel(None) as channel:
        others = SessionsStub(channel).ListSessions(ListSessionsRequest(), metadata=key).sessions
    assert made.session_id not in [session.id for session in others]


@pytest.mark.parametrize("metadata", [(), (("parley-client-name", "billing.internal"),)])
def test_without_a_certificate(secured: Secured, metadata: tuple[tuple[str, str], ...]) -> None:
    """A call with neither a certificate nor an API key is rejected, also if it names an account itself."""
    with secured.channel(None) as channel, pytest.raises(grpc.RpcError) as caught:
        SessionsStub(channel).ListSessions(ListSessionsRequest(), metadata=metadata)
    assert grpc.StatusCode.UNAUTHENTICATED == caught.value.code()


def test_rest_takes_no_name(secured: Secured) -> None:
    """The REST listener neither asks for a client certificate nor takes the name of one from a header."""
    context = ssl.create_default_context()
    secured.authority.configure_trust(context)
    base = secured.parley.http.replace("127.0.0.1", "localhost")
    answer = httpx.get(f"{base}/api/v1/sessions", headers={"parley-client-name": "billing.internal"}, verify=context)
    assert 401 == answer.status_code


def test_a_reload_with_other_files(secured: Secured) -> None:
    """A reload does not apply changed settings of TLS; it says that they need a restart."""
    before = secured.config.read_text()
    secured.config.write_text(before.replace("san_dns", "san_uri"))
    secured.parley.process.send_signal(signal.SIGHUP)
    secured.parley.wait_for_log("need a restart")
    secured.config.write_text(before)


def test_the_command_chat_verifies_the_certificate(secured: Secured, tmp_path: Path) -> None:
    """`parley chat` trusts the authority of --ca, checks the host name, and does not call without TLS."""
    (tmp_path / "ca.pem").write_bytes(secured.authority.cert_pem.bytes())
    port = secured.parley.grpc.rpartition(":")[2]
    chat = ["chat", "--once", "Hello", "--address"]
    key, ca = {"PARLEY_API_KEY": secured.parley.key}, ["--ca", str(tmp_path / "ca.pem")]
    trusted = run(*chat, f"localhost:{port}", *ca, **key)
    named = run(*chat, f"127.0.0.1:{port}", *ca, "--tls-name", "localhost", **key)
    assert [(0, ""), (0, "")] == [(one.returncode, one.stderr.partition("To go on")[0]) for one in (trusted, named)]
    for options in (["--tls"], [*ca, "--tls-name", "elsewhere"], []):
        refused = run(*chat, f"localhost:{port}", *options, **key)
        assert 1 == refused.returncode
        assert f"parley: nothing answers at localhost:{port} (" in refused.stderr


def test_the_command_chat_calls_with_a_certificate(secured: Secured, tmp_path: Path) -> None:
    """With --cert, `parley chat` needs no API key: the call belongs to the account of the certificate."""
    leaf = secured.clients.issue_cert("desk.internal")
    (tmp_path / "ca.pem").write_bytes(secured.authority.cert_pem.bytes())
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "cert.key")
    files = [f"--{name}={tmp_path / file}" for name, file in CERTIFICATE.items()]
    address = secured.parley.grpc.replace("127.0.0.1", "localhost")
    done = run("chat", "--once", "Hello", "--address", address, *files, PARLEY_API_KEY="")
    assert 0 == done.returncode, done.stderr
    assert "To go on: parley chat" in done.stderr
    accounts = run_here("accounts", "list", "--state-dir", str(secured.parley.folder / "state")).stdout
    assert "desk.internal" in accounts
