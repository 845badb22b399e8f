"""TLS on both listeners, client certificates on the gRPC listener, and proxies in front."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio
import trustme
from cryptography import x509

from parley.supervisor.certificates import Certificates, TlsFiles
from parley.supervisor.edge_settings import EdgeSettings
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.edge.conftest import AUTHORIZATION, Edge, started, until
from tests.edge.worker import Worker
from tests.rpc.calling import chat_request

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
KEY = tuple(AUTHORIZATION.items())


@dataclass
class Secured:
    """An edge with TLS. `authority` signs its certificate, `clients` those of its clients."""

    edge: Edge
    folder: Path
    authority: trustme.CA
    clients: trustme.CA
    certificates: Certificates

    @property
    def rest(self) -> str:
        """The REST URL with TLS."""
        return f"https://localhost:{self.edge.port}{CHAT}"

    def context(self) -> ssl.SSLContext:
        """Returns the settings of a client that trusts only the authority."""
        made = ssl.create_default_context()
        made.check_hostname = True
        self.authority.configure_trust(made)
        return made

    def channel(self, client: trustme.LeafCert | None = None) -> grpc.aio.Channel:
        """Returns a channel to the gRPC listener, with a client certificate if one is given."""
        key = client.private_key_pem.bytes() if client else None
        chain = b"".join(pem.bytes() for pem in client.cert_chain_pems) if client else None
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), key, chain)
        return grpc.aio.secure_channel(f"localhost:{self.edge.grpc.rpartition(':')[2]}", credentials)


def write_certificate(folder: Path, authority: trustme.CA, name: str, *, with_key: bool = True) -> tuple[int, bytes]:
    """Writes a new certificate, and its key if chosen; returns its serial number and its key."""
    leaf = authority.issue_cert(name)
    (folder / "tls.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    if with_key:
        (folder / "tls.key").write_bytes(leaf.private_key_pem.bytes())
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number, leaf.private_key_pem.bytes()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[Secured]:
    """An edge with TLS and client certificates, behind one trusted proxy."""
    authority, clients = trustme.CA(), trustme.CA()
    write_certificate(run_dir, authority, "localhost")
    clients.cert_pem.write_to_path(run_dir / "clients.pem")
    files = TlsFiles(run_dir / "tls.pem", run_dir / "tls.key", run_dir / "clients.pem")
    certificates = Certificates(files, run_dir)
    certificates.publish()
    following = asyncio.create_task(certificates.follow())
    async with started(run_dir, [the_worker[1]], EdgeSettings(tls=files, trusted_hops=1)) as edge:
        yield Secured(edge, run_dir, authority, clients, certificates)
    following.cancel()


async def test_rest(secured: Secured, worker: Worker) -> None:
    """REST is served with TLS; a client that trusts another authority refuses it."""
    async with aiohttp.ClientSession() as session:
        async with session.post(secured.rest, json=BODY, headers=AUTHORIZATION, ssl=secured.context()) as response:
            assert 200 == response.status
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.post(secured.rest, json=BODY)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"]])
@pytest.mark.parametrize("listener", ["http", "grpc"])
async def test_protocols(secured: Secured, listener: str, offered: list[str]) -> None:
    """Both listeners choose HTTP/2 if the client offers it, and speak no TLS below 1.2."""
    port = secured.edge.port if listener == "http" else int(secured.edge.grpc.rpartition(":")[2])
    context = secured.context()
    context.set_alpn_protocols(offered)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    assert offered[0] == writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("localhost", port, ssl=context)


async def test_large_handshake(secured: Secured) -> None:
    """A handshake that is larger than the first read of the edge, here 8 KB of protocols, succeeds."""
    context = secured.context()
    context.set_alpn_protocols([f"{number:0200}" for number in range(40)] + ["http/1.1"])
    _, writer = await asyncio.open_connection("localhost", secured.edge.port, ssl=context)
    assert "http/1.1" == writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()


async def test_plain_http_is_refused(secured: Secured, worker: Worker) -> None:
    """A request without TLS gets no answer, and reaches no worker."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(secured.rest.replace("https", "http"), json=BODY, headers=AUTHORIZATION)
    assert [] == worker.calls


async def test_grpc_without_a_client_certificate(secured: Secured, worker: Worker) -> None:
    """A call with an API key needs no client certificate; the worker gets no name of a client."""
    async with secured.channel() as channel:
        spoofed = (*KEY, ("parley-client-name", "victim"), ("parley-dialect", "openai"))
        await ChatCompletionsStub(channel).CreateChatCompletion(chat_request(), metadata=spoofed)
    assert not {"parley-client-name", "parley-dialect"} & worker.metadata.keys()


async def test_grpc_with_a_client_certificate(secured: Secured, worker: Worker) -> None:
    """The worker gets the names in the client's certificate, not those that the client sends itself."""
    client = secured.clients.issue_cert("billing.internal", "other.internal")
    async with secured.channel(client) as channel:
        spoofed = (*KEY, ("parley-client-name", "victim"))
        await ChatCompletionsStub(channel).CreateChatCompletion(chat_request(), metadata=spoofed)
    assert "billing.internal,other.internal" == worker.metadata["parley-client-name"]


async def test_certificate_of_another_authority(secured: Secured, worker: Worker) -> None:
    """A client certificate of an unknown authority is refused in the handshake."""
    async with secured.channel(trustme.CA().issue_cert("billing.internal")) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await ChatCompletionsStub(channel).CreateChatCompletion(chat_request(), metadata=KEY)
    assert grpc.StatusCode.UNAVAILABLE == caught.value.code()
    assert [] == worker.calls


async def test_a_changed_certificate(secured: Secured, capfd: pytest.CaptureFixture[str]) -> None:
    """New connections get a changed certificate without a restart; until its key fits, the previous one is used."""
    previous = await _serial(secured)
    renewed, key = write_certificate(secured.folder, secured.authority, "localhost", with_key=False)

    async def is_reported() -> bool:
        return "are not a certificate and its key" in capfd.readouterr().err

    await until(is_reported)
    assert previous == await _serial(secured)
    (secured.folder / "tls.key").write_bytes(key)

    async def is_renewed() -> bool:
        return renewed == await _serial(secured)

    await until(is_renewed)


async def _serial(secured: Secured) -> int:
    """Returns the serial number of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("localhost", secured.edge.port, ssl=secured.context())
    found = writer.get_extra_info("peercert")
    writer.close()
    return int(found["serialNumber"], 16)
