"""What is checked before anything starts."""

import socket
from pathlib import Path

import pytest

from parley.cli.shared.checks import check_address, check_config, check_ready_file
from parley.config import ConfigError, load, parse
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError

CONFIG = """\
backends: {local: {kind: llama_cpp, model_path: /none.gguf}, b: {kind: openai, base_url: "http://b/v1"}}
models:
  - {id: one, targets: [{backend: b}], defaults: {temperature: 0.5, stop: END, seed: 1}}
  - {id: two, targets: [{backend: b}], defaults: {temperature: 9, top_p: -1, stop: 7}}
  - {id: three, targets: [{backend: local}]}
"""


def checked(text: str, folder: Path) -> list[str]:
    """Returns the problems of a configuration file, a line each, without the folder."""
    file = folder / "f"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check_config(load(file), file)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_everything_that_only_using_it_tells_has_its_line(tmp_path: Path) -> None:
    """Defaults out of range and weights that are not there: each names the file, the line and the path in it."""
    assert [
        "f:4: models[1].defaults.temperature: must be between 0 and 2",
        "f:4: models[1].defaults.top_p: must be between 0 and 1",
        "f:4: models[1].defaults.stop: must be a string or an array of strings",
        "f:1: backends.local.model_path: there is no file /none.gguf; name a GGUF file, or leave it out",
    ] == checked(CONFIG, tmp_path)


def test_what_is_no_default_names_the_file(tmp_path: Path) -> None:
    """A misspelt parameter is found before anything is started."""
    problems = checked(CONFIG.replace("temperature: 9", "temprature: 9"), tmp_path)
    assert problems[0].startswith("f:4: models[1].defaults.temprature: no request parameter")


def test_a_good_configuration_passes() -> None:
    """Defaults that a request could have are no problem, and the built-in configuration is good."""
    good = CONFIG.replace("{temperature: 9, top_p: -1, stop: 7}", "{temperature: 2, top_p: 0}")
    check_config(parse(good.replace("backend: local", "backend: b"), "f"), Path("f"))


def test_a_free_port_passes() -> None:
    """A port that nobody has, and port 0, are fine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_address(Address("127.0.0.1", port), "--http")
    check_address(Address("127.0.0.1", 0), "--http")


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_is_named_with_the_option_to_change(reuse: bool) -> None:
    """A port that another process listens on is refused, even where that process would share it."""
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address(*other.getsockname())
        with pytest.raises(CommandError) as caught:
            check_address(address, "--http")
    assert f"{address} is in use; stop what uses it or choose another with --http" == str(caught.value)


def test_an_address_of_another_machine_is_refused() -> None:
    """192.0.2.1 belongs to no machine."""
    with pytest.raises(CommandError, match=r"192\.0\.2\.1:80 is not an address of this machine .* --grpc"):
        check_address(Address("192.0.2.1", 80), "--grpc")


def test_a_ready_file_of_before_is_removed(tmp_path: Path) -> None:
    """A file that a killed Parley left behind must not look as if a new one were ready."""
    (tmp_path / "ready").write_text("{}")
    check_ready_file(tmp_path / "ready")
    assert not (tmp_path / "ready").exists()


def test_a_ready_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is one line that names the option."""
    with pytest.raises(CommandError, match=r"/none/ready cannot be written \(.*\); choose another .* --ready-file"):
        check_ready_file(tmp_path / "none" / "ready")
