"""Tests of TLS to PostgreSQL and PgBouncer, which are Debian's: the server of the wheel has no TLS."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from parley.core.errors import StoreUnavailable
from parley.stores.postgres import PostgresStore
from tests.contract.stores import all_messages, converse
from tests.pgbouncer import pooling
from tests.postgres import Server, debian_programs, serving

HBA = "hostssl all postgres 127.0.0.1/32 cert\n"


class Certificates:
    """Certificates for server and client, as files that the server's user can read."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.folder = trustme.CA(), folder
        self.ca = self.write("ca.pem", self.authority.cert_pem)
        server = self.authority.issue_cert("localhost")
        self.certificate = self.write("server.pem", *server.cert_chain_pems)
        self.key = self.write("server.key", server.private_key_pem)
        client = self.authority.issue_cert(common_name="postgres")
        self.client = self.write("client.pem", *client.cert_chain_pems)
        self.client_key = self.write("client.key", client.private_key_pem)
        self.other_ca = self.write("other.pem", trustme.CA().cert_pem)

    def write(self, name: str, *parts: trustme.Blob) -> Path:
        """Writes a file."""
        path = self.folder / name
        path.write_bytes(b"".join(part.bytes() for part in parts))
        return path

    def query(self, **changes: str) -> str:
        """Returns the parameters of a URL with full verification and a client certificate."""
        values = {
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca),
            "sslcert": str(self.client),
            "sslkey": str(self.client_key),
        } | changes
        return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items() if value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of the module's server."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[Server]:
    """Debian's PostgreSQL, without TLS only for the tests' own programs."""
    settings = ("ssl=on", "shared_preload_libraries=pg_stat_statements")
    with serving(*settings, programs=debian_programs(), prepare=lambda data: _prepare(data, certificates)) as running:
        yield running


def _prepare(data: Path, certificates: Certificates) -> None:
    """Copies what the server reads into its data folder, whose owner it is."""
    for name, source in (("server.crt", "server.pem"), ("server.key", "server.key"), ("root.crt", "ca.pem")):
        (data / name).write_bytes((certificates.folder / source).read_bytes())
        (data / name).chmod(0o600)
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("ssl_ca_file = 'root.crt'\n")
    (data / "pg_hba.conf").write_text(HBA + "hostnossl all postgres 127.0.0.1/32 trust\n")


def _url(server: Server, certificates: Certificates, host: str = "localhost", **changes: str) -> str:
    return f"postgresql://postgres@{host}:{server.port}/parley{certificates.query(**changes)}"


async def test_full_verification(server: Server, certificates: Certificates) -> None:
    """With `verify-full` and a client certificate turns work over TLS."""
    server.empty()
    store = await PostgresStore.open(_url(server, certificates))
    await converse(store, "s", "q", "a", new=True)
    assert 2 == len(await all_messages(store, "s"))
    found = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'parley'"
    assert "t" == server.sql(found)
    await store.close()


@pytest.mark.parametrize(
    ("host", "changes", "cause"),
    [
        ("127.0.0.1", {}, "certificate is not valid for '127.0.0.1'"),
        ("localhost", {"sslrootcert": "OTHER"}, "certificate verify failed"),
        ("localhost", {"sslcert": "", "sslkey": ""}, "connection requires a valid client certificate"),
    ],
)
async def test_refused(
    server: Server, certificates: Certificates, host: str, changes: dict[str, str], cause: str
) -> None:
    """Another host name, an unknown authority, and a missing client certificate are errors that name the cause."""
    changes = {name: value.replace("OTHER", str(certificates.other_ca)) for name, value in changes.items()}
    with pytest.raises(StoreUnavailable) as refused:
        await PostgresStore.open(_url(server, certificates, host, **changes))
    assert cause in str(refused.value.cause)
    assert "\n" not in str(refused.value.cause)


async def test_through_pgbouncer(server: Server, certificates: Certificates) -> None:
    """PgBouncer in transaction mode takes TLS from Parley with a client certificate, and verifies the server fully."""
    server.empty()
    settings = {
        "pool_mode": "transaction",
        "client_tls_sslmode": "verify-full",
        "client_tls_ca_file": "ca.pem",
        "client_tls_cert_file": "server.pem",
        "client_tls_key_file": "server.key",
        "server_tls_sslmode": "verify-full",
        "server_tls_ca_file": "ca.pem",
        "server_tls_cert_file": "client.pem",
        "server_tls_key_file": "client.key",
    }
    with pooling(server, host="localhost", files=certificates.folder, **settings) as pooler:
        url = f"postgresql://postgres@localhost:{pooler.port}/parley{certificates.query()}"
        store = await PostgresStore.open(url, pooled=True)
        await converse(store, "s", "q", "a", new=True)
        assert 2 == len(await all_messages(store, "s"))
        await store.close()


async def test_statistics_of_statements(server: Server, certificates: Certificates) -> None:
    """The queries of docs/postgresql.md read `pg_stat_statements`, which counts the statements of turns."""
    server.empty()
    server.sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "parley")
    store = await PostgresStore.open(_url(server, certificates))
    server.sql("SELECT pg_stat_statements_reset()", "parley")  # without the migrations
    await converse(store, "s", "q", "a", new=True)
    await store.close()
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    queries = [block for block in page.split("```")[1::2] if "FROM pg_stat" in block]
    results = [server.sql(query, "parley") for query in queries]
    assert len(queries) >= 2
    assert "WITH sent AS" in results[0]
