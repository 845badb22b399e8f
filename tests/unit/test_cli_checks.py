"""What is checked before anything starts."""

import socket
from pathlib import Path

import pytest

from parley.cli.checks import check_address, check_ready_file
from parley.cli.settings import Address, CommandError


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
