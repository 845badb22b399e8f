"""TLS of guard services: their certificate, and that of the client."""

from pathlib import Path

import grpc
import pytest
import trustme

from parley.cli.shared.checks import config_problems
from parley.config import ConfigError, Guard
from parley.config.loader import parse
from parley.core.ports import GuardError
from parley.guard.v1.guard_pb2 import CheckRequest, Unit
from parley.guards.remote import RemoteGuard
from tests.rpc.guarding import ALLOW, guard_server


async def test_a_service_with_tls_requires_the_clients_certificate(tmp_path: Path) -> None:
    """The check reaches a service with TLS if both certificates are right, and fails otherwise."""
    authority = trustme.CA()
    served, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("parley")
    ca, own = tmp_path / "ca.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(ca)
    client.private_key_and_cert_chain_pem.write_to_path(own)
    key = served.private_key_pem.bytes(), served.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_server_credentials([key], authority.cert_pem.bytes(), require_client_auth=True)
    request = CheckRequest(units=[Unit(text="a")])
    with guard_server(credentials) as (_, address):
        for settings, reason in (
            (Guard(address=address, tls=True, ca=ca, client_certificate=own), None),
            (Guard(address=address, tls=True, ca=ca), "unreachable"),
            (Guard(address=address), "unreachable"),
        ):
            guard = RemoteGuard(settings)
            if reason is None:
                assert ALLOW == await guard.check(request)
            else:
                with pytest.raises(GuardError) as caught:
                    await guard.check(request)
                assert reason == caught.value.reason
            await guard.close()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file is found by `parley config check`, and by a worker; both name guard and field."""
    missing = tmp_path / "missing.pem"
    config = parse(
        'backends: {s: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}\n'
        "models: [{id: a, targets: [{backend: s}]}]\n"
        f'guards: {{g: {{address: "x:1", tls: true, ca: {missing}}}}}\n',
        "p.yaml",
    )
    [problem] = config_problems(config)
    assert problem.startswith(f"guards.g.ca: {missing} cannot be used")
    with pytest.raises(ConfigError, match=r"ca: .* cannot be read"):
        RemoteGuard(config.guards["g"])
