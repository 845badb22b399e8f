"""Checks before any process starts."""

import socket
from pathlib import Path

import pytest

from parley.cli.shared.checks import check_address, check_config, check_ready_file
from parley.config import ConfigError
from parley.config.loader import load, parse
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from tests.processes import reserved_port

CONFIG = """\
backends: {local: {kind: llama_cpp, model_path: /none.gguf}, b: {kind: openai, base_url: "http://b/v1"}}
models:
  - {id: one, targets: [{backend: b}], defaults: {temperature: 0.5, stop: END, seed: 1}}
  - {id: two, targets: [{backend: b}], defaults: {temperature: 9, top_p: -1, stop: 7}}
  - {id: three, targets: [{backend: local}]}
"""


def checked(text: str, folder: Path) -> list[str]:
    """Returns the problems of a configuration file, one per line, without the folder."""
    file = folder / "f"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check_config(load(file), file)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_each_problem_has_a_line(tmp_path: Path) -> None:
    """Defaults out of range and missing weights are reported with file, line and path."""
    assert [
        "f:4: models[1].defaults.temperature: must be between 0 and 2",
        "f:4: models[1].defaults.top_p: must be between 0 and 1",
        "f:4: models[1].defaults.stop: must be a string or an array of strings",
        "f:1: backends.local.model_path: there is no file /none.gguf; name a GGUF file, or leave it out",
    ] == checked(CONFIG, tmp_path)


def test_an_unknown_default_names_the_file(tmp_path: Path) -> None:
    """A misspelt parameter is found before any process starts."""
    problems = checked(CONFIG.replace("temperature: 9", "temprature: 9"), tmp_path)
    assert problems[0].startswith("f:4: models[1].defaults.temprature: no request parameter")


def test_a_valid_configuration_passes() -> None:
    """Valid defaults and the built-in configuration have no problems."""
    good = CONFIG.replace("{temperature: 9, top_p: -1, stop: 7}", "{temperature: 2, top_p: 0}")
    check_config(parse(good.replace("backend: local", "backend: b"), "f"), Path("f"))


def test_a_free_port_passes() -> None:
    """A free port and port 0 are accepted."""
    check_address(Address("127.0.0.1", reserved_port()), "--http")
    check_address(Address("127.0.0.1", 0), "--http")


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_is_named_with_the_option_to_change(reuse: bool) -> None:
    """A port in use is rejected, even if its process would share it."""
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address(*other.getsockname())
        with pytest.raises(CommandError) as caught:
            check_address(address, "--http")
    assert f"{address} is in use; stop what uses it or choose another with --http" == str(caught.value)


def test_an_address_of_another_machine_is_rejected() -> None:
    """192.0.2.1, which belongs to no machine, is rejected."""
    with pytest.raises(CommandError, match=r"192\.0\.2\.1:80 is not an address of this machine .* --grpc"):
        check_address(Address("192.0.2.1", 80), "--grpc")


def test_an_old_ready_file_is_removed(tmp_path: Path) -> None:
    """The ready file of a killed Parley is removed, because it would report readiness."""
    (tmp_path / "ready").write_text("{}")
    check_ready_file(tmp_path / "ready")
    assert not (tmp_path / "ready").exists()


def test_a_ready_file_that_cannot_be_written_is_rejected(tmp_path: Path) -> None:
    """The error for a missing folder is one line that names the option."""
    with pytest.raises(CommandError, match=r"/none/ready cannot be written \(.*\); choose another .* --ready-file"):
        check_ready_file(tmp_path / "none" / "ready")
