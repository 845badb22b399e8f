"""Addresses, the state folder and its lock, and folders for Unix sockets."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from parley.supervisor.addresses import Address, parse_address
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import locked, private_dir, run_dir, state_dir, write_private


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ],
)
def test_an_address_reads_and_writes_the_same(text: str, host: str, port: int) -> None:
    """HOST:PORT, with brackets around IPv6, is parsed and printed unchanged."""
    assert (host, port) == parse_address(text)
    assert text == str(parse_address(text))


@pytest.mark.parametrize("text", ["8080", ":8080", "host:", "host:port", "::1:80", "host:65536", "a b:1", ""])
def test_an_invalid_address_is_rejected_with_an_example(text: str) -> None:
    """Text other than HOST:PORT is rejected with an example."""
    with pytest.raises(ValueError, match=r"write HOST:PORT, for example 127\.0\.0\.1:8080"):
        parse_address(text)


@pytest.mark.parametrize(
    ("listens", "called"), [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
)
def test_a_wildcard_is_called_by_the_loopback(listens: str, called: str) -> None:
    """A client on this machine gets an address to which it can connect."""
    assert called == str(parse_address(listens).to_call())


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    """The state folder and its parents are created; only the owner can access it."""
    folder = state_dir(tmp_path / "a" / "b")
    assert tmp_path / "a" / "b" == folder
    assert 0o700 == folder.stat().st_mode & 0o777


def test_a_state_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """A file instead of the folder is an error of one line that names the option."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"/file/state cannot be written \(.*\); choose another .* --state-dir"):
        state_dir(tmp_path / "file" / "state")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_state_folder_that_others_can_write_to_is_rejected(tmp_path: Path, mode: int) -> None:
    """The error names the command that mends the folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    expected = f"other users can write to {folder}; run `chmod go-w {folder}`, or choose another --state-dir"
    with pytest.raises(CommandError) as caught:
        state_dir(folder)
    assert expected == str(caught.value)
    folder.chmod(0o755)
    assert folder == state_dir(folder)


def test_a_state_folder_that_others_can_replace_is_rejected(tmp_path: Path) -> None:
    """Others can rename a folder whose parent they can write to, also behind a link; a sticky parent forbids it."""
    (tmp_path / "open").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CommandError, match=r"can write to .*/open; run `chmod o-w .*/open`, or choose another --state"):
        state_dir(tmp_path / "link" / "state")
    (tmp_path / "open").chmod(0o1777)
    assert tmp_path / "link" / "state" == state_dir(tmp_path / "link" / "state")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders to other users")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "is_mount", "accepted"),
    [
        (0, 4000, 0o2775, False, True),  # Kubernetes with fsGroup: the volume belongs to root and the pod's group
        (0, 4001, 0o2775, False, False),
        (0, 4000, 0o2777, False, False),
        (0, 4000, 0o2777, True, True),  # an emptyDir with fsGroup
        (0, 4001, 0o2777, True, False),
        (65534, 4000, 0o2777, True, False),
        (65534, 4000, 0o2770, False, False),
        (65534, 4000, 0o755, False, False),
        (4000, 4001, 0o700, False, True),
    ],
)
def test_the_owner_of_a_state_folder(owner: int, group: int, mode: int, *, is_mount: bool, accepted: bool) -> None:
    """A folder of another user is rejected, except a mounted volume of root that this process's group may write to."""
    program = (
        "import os, sys; from pathlib import Path; from parley.supervisor.folders import state_dir\n"
        f"Path.is_mount = lambda self: {is_mount}\n"
        "os.setgroups([4000]); os.setgid(4000); os.setuid(4000); state_dir(Path(sys.argv[1]))"
    )
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        os.chown(folder, owner, group)
        Path(folder).chmod(mode)
        done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert accepted == (done.returncode == 0), done.stderr


def test_a_private_file_replaces_what_is_in_its_place(tmp_path: Path) -> None:
    """A secret is written with mode 0600, and never through a link that another program made."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "file").symlink_to(tmp_path / "target")
    write_private(tmp_path / "file", "secret")
    assert ("kept", "secret") == ((tmp_path / "target").read_text(), (tmp_path / "file").read_text())
    assert 0o600 == (tmp_path / "file").lstat().st_mode & 0o777


def test_sockets_are_in_a_state_folder_with_a_short_path() -> None:
    """A short path leaves room for a socket's name within the kernel's limit."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as short, run_dir(Path(short)) as folder:
        assert Path(short) / "run" == folder


def test_sockets_of_a_long_path_are_in_a_private_temporary_folder(tmp_path: Path) -> None:
    """A long path gets a short folder that only its owner can access, and that is removed afterwards."""
    with run_dir(tmp_path / ("x" * 80)) as folder, run_dir(tmp_path / ("y" * 80)) as other:
        assert len(str(folder)) < 50
        assert 0o700 == folder.stat().st_mode & 0o777
        assert folder != other
    assert not folder.exists()


def test_the_state_folder_links_to_the_sockets_of_a_long_path(tmp_path: Path) -> None:
    """`run` in the state folder is where an operator finds the sockets, also after a Parley that was killed."""
    state = tmp_path / ("x" * 80)
    state.mkdir()
    (state / "run").symlink_to(tmp_path / "missing")
    with run_dir(state) as folder:
        assert folder == (state / "run").readlink()
    assert not (state / "run").is_symlink()


def test_files_of_a_killed_parley_are_removed(tmp_path: Path) -> None:
    """The same state has the same folder each time, and it is empty at first."""
    with run_dir(tmp_path / ("x" * 80)) as folder:
        killed = folder
    killed.mkdir(mode=0o700)
    (killed / "worker-1.sock").touch()
    with run_dir(tmp_path / ("x" * 80)) as folder:
        assert killed == folder
        assert [] == list(folder.iterdir())


def test_a_folder_that_others_can_access_is_rejected(tmp_path: Path) -> None:
    """Sockets are never in a folder in which other users could create theirs."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(CommandError, match="must be a folder that only this user owns"):
        private_dir(tmp_path / "open")


def test_a_link_instead_of_the_private_folder_is_rejected(tmp_path: Path) -> None:
    """A symbolic link to a private folder is rejected."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CommandError, match="must be a folder that only this user owns"):
        private_dir(tmp_path / "link")


def test_a_state_folder_is_held_by_one_process(tmp_path: Path) -> None:
    """A second process gets the id of the first one; after the end of the first the folder is free."""
    hold = (
        "import sys; from pathlib import Path; from parley.supervisor.folders import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert "held\n" == holder.stdout.readline()
        message = rf"in use by another `parley up` \(process {holder.pid}\); stop it or choose another --state-dir"
        with pytest.raises(CommandError, match=message), locked(tmp_path):
            pass
        holder.communicate()
    with locked(tmp_path):
        assert str(os.getpid()) == (tmp_path / "parley.lock").read_text()


def test_an_address_is_made_of_host_and_port() -> None:
    """An address from host and port is printed like a parsed one."""
    assert "[::1]:9" == str(Address("::1", 9))
