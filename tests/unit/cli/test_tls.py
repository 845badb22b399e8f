"""TLS in the configuration and the options: what is refused before anything starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from parley.cli.shared.checks import require_private
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from tests.processes import run, run_here

CONFIG = """\
backends: {up: {kind: openai, base_url: "http://127.0.0.1:1"}}
models: [{id: m, targets: [{backend: up}]}]
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    """An address of this machine alone needs no TLS."""
    require_private(Address(host, 1), "--http", "set `tls`")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "2001:db8::1"])
def test_other_addresses_need_tls(host: str) -> None:
    """An address that other machines reach is refused without TLS, with both remedies."""
    with pytest.raises(CommandError, match=r"^--http: other machines reach .*; set `tls`, or give --insecure$"):
        require_private(Address(host, 1), "--http", "set `tls`")


@pytest.mark.parametrize(("command", "option"), [("up", "--grpc"), ("serve", "--listen")])
def test_a_public_address_is_refused(tmp_path: Path, command: str, option: str) -> None:
    """Both commands refuse a public address without TLS before they listen."""
    ended = run(command, "--state-dir", str(tmp_path), option, "0.0.0.0:0")
    assert (1, True) == (ended.returncode, f"{option}: other machines reach 0.0.0.0:0" in ended.stderr), ended.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a certificate and its key, the key of another one, and a file without a certificate."""
    authority = trustme.CA()
    first, second = authority.issue_cert("a.test"), authority.issue_cert("b.test")
    first.cert_chain_pems[0].write_to_path(tmp_path / "tls.pem")
    first.private_key_pem.write_to_path(tmp_path / "tls.key")
    second.private_key_pem.write_to_path(tmp_path / "other.key")
    (tmp_path / "empty.pem").write_text("")
    return tmp_path


@pytest.fixture
def check(files: Path) -> Callable[[str], str]:
    """Returns a function that checks a configuration with these lines; returns the errors, empty for none."""

    def errors(lines: str) -> str:
        file = files / "parley.yaml"
        file.write_text(CONFIG + lines.replace("@", str(files)))
        return run_here("config", "check", str(file)).stderr

    return errors


TLS = "tls: {certificate: @/tls.pem, key: @/tls.key}\n"


@pytest.mark.parametrize("lines", [TLS, TLS + "auth: {mtls: {ca: @/tls.pem, account: san_uri, required: true}}"])
def test_usable_files(check: Callable[[str], str], lines: str) -> None:
    """A certificate with its key is accepted, and so are authorities of clients."""
    assert "" == check(lines)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("tls: {certificate: @/none.pem, key: @/tls.key}", "tls.certificate: "),
        ("tls: {certificate: @/tls.pem, key: @/none.key}", "tls.key: "),
        ("tls: {certificate: @/tls.pem, key: @/other.key}", "are not a certificate and its key in PEM"),
        ("tls: {certificate: @/empty.pem, key: @/tls.key}", "are not a certificate and its key in PEM"),
        (TLS + "auth: {mtls: {ca: @/empty.pem}}", "auth.mtls.ca: "),
        ("auth: {mtls: {ca: @/tls.pem}}", "auth.mtls: client certificates need `tls`"),
    ],
)
def test_unusable_files(check: Callable[[str], str], lines: str, error: str) -> None:
    """A file that cannot be used is an error that names its setting."""
    assert error in check(lines)
