"""The admin keys of `--admin`."""

from pathlib import Path

import pytest

from parley.cli.shared.admin_key import with_admin_key
from parley.config import Config
from parley.config.loader import parse
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError

ADDRESS = Address("127.0.0.1", 50052)
KEY = "0123456789abcdef0123456789abcdef"


def configuration(admin: str) -> Config:
    """Returns a configuration with this access of administrators."""
    text = "backends: {a: {kind: llama_cpp}}\nmodels: [{id: m, targets: [{backend: a}]}]\n"
    return parse(f"{text}tls: {{certificate: a.pem, key: a.key}}\nadmin: {admin}\n", "test.yaml")


def test_the_key_of_the_file_is_beside_those_of_the_configuration(tmp_path: Path) -> None:
    """The key of the file has the name `admin`."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    found = with_admin_key(ADDRESS, tmp_path / "key", configuration(f"{{keys: {{ops: {KEY[::-1]}}}}}"))
    assert {"ops": KEY[::-1], "admin": KEY} == found.admin.keys


def test_a_worker_without_an_envoy_of_its_own_trusts_no_certificate() -> None:
    """There, whoever reaches the port could claim the name of an administrator: keys are required."""
    certificates = "mtls: {ca: ca.pem, names: [ops.example.com]}"
    config = configuration(f"{{{certificates}}}")
    assert config == with_admin_key(ADDRESS, None, config)
    with pytest.raises(CommandError, match=r"needs an admin key: set admin.keys in the configuration, or give"):
        with_admin_key(ADDRESS, None, config, certificates=False)
    found = with_admin_key(
        ADDRESS, None, configuration(f"{{keys: {{ops: {KEY}}}, {certificates}}}"), certificates=False
    )
    assert ({"ops": KEY}, None) == (found.admin.keys, found.admin.mtls)
