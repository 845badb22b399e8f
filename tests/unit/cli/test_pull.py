"""`parley models pull`, from a real web server that breaks connections."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.cli.shared import download, model_files
from parley.cli.shared.checks import check_config
from parley.config import Config, ConfigError, LlamaCppBackend
from parley.config.loader import parse
from parley.supervisor.errors import CommandError
from tests.processes import run_here
from tests.unit.cli.model_files_server import CUT, MODEL, SHA256, Files, fetch, interrupt, serving


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A running server; retries have no delay."""
    monkeypatch.setattr(download, "_DELAY", 0.0)
    with serving() as server:
        yield server


def test_a_model_is_fetched_with_its_checksum(files: Files, tmp_path: Path) -> None:
    """The command prints the path, the checksum and the lines of the configuration; it may be repeated."""
    first, second = (
        run_here("models", "pull", files.url, "--state-dir", str(tmp_path), "--sha256", SHA256.upper())
        for _ in range(2)
    )
    path = tmp_path / "models" / "tiny.gguf"
    assert (0, MODEL) == (first.returncode, path.read_bytes())
    assert [str(path), f"sha256 {SHA256}"] == first.stdout.splitlines()[:2]
    assert f'  local: {{kind: llama_cpp, model_path: "{path}"}}' in first.stdout
    assert "parley: tiny.gguf: 0 MiB of 0 MiB" in first.stderr
    assert f"{path} (was there already)" == second.stdout.splitlines()[0]
    assert [None] == files.ranges
    assert ["tiny.gguf", "tiny.gguf.json"] == sorted(one.name for one in path.parent.iterdir())
    assert "hush" not in path.with_name("tiny.gguf.json").read_text()


def test_a_broken_download_continues_where_it_ended(files: Files, tmp_path: Path) -> None:
    """A connection that ends early is replaced by one that requests the rest."""
    files.cuts = 2
    assert SHA256 == fetch(files, tmp_path).sha256
    assert [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"] == files.ranges
    assert MODEL == (tmp_path / "tiny.gguf").read_bytes()


def test_the_next_command_continues(files: Files, tmp_path: Path) -> None:
    """After Ctrl-C, the next call requests only what is missing."""
    interrupt(files, tmp_path)
    assert SHA256 == fetch(files, tmp_path).sha256
    assert [None, f"bytes={CUT}-"] == files.ranges


def test_a_changed_file_is_fetched_anew(files: Files, tmp_path: Path) -> None:
    """If the server has another version by now, nothing of the old one is kept."""
    interrupt(files, tmp_path)
    files.content, files.etag = MODEL[::-1].replace(MODEL[:4][::-1], b""), '"two"'
    files.content = b"GGUF" + files.content
    assert hashlib.sha256(files.content).hexdigest() == fetch(files, tmp_path).sha256
    assert files.content == (tmp_path / "tiny.gguf").read_bytes()


def test_a_server_without_versions_sends_all_again(files: Files, tmp_path: Path) -> None:
    """Without an ETag or a date, the rest could be that of another file."""
    files.etag = ""
    interrupt(files, tmp_path)
    assert SHA256 == fetch(files, tmp_path).sha256
    assert [None, None] == files.ranges


def test_a_login_page_leaves_what_is_here(files: Files, tmp_path: Path) -> None:
    """A page in place of the rest of the file is an error, and the next command continues."""
    interrupt(files, tmp_path)
    content, etag = files.content, files.etag
    files.content, files.etag = b"<html>sign in</html>", ""
    with pytest.raises(CommandError, match="is not a GGUF file"):
        fetch(files, tmp_path)
    files.content, files.etag = content, etag
    assert SHA256 == fetch(files, tmp_path).sha256
    assert f"bytes={CUT}-" == files.ranges[-1]


def test_a_wrong_checksum_leaves_no_file(files: Files, tmp_path: Path) -> None:
    """The error names both checksums; the incomplete file is removed."""
    with pytest.raises(CommandError, match=f"tiny.gguf has the checksum {SHA256}, not {'0' * 64}; it was removed"):
        fetch(files, tmp_path, "0" * 64)
    assert ["tiny.gguf.json"] == [one.name for one in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (404, MODEL, "the server answers 404 Not Found; check the address"),
        (503, MODEL, "the server answers 503 Service Unavailable"),
        (0, b"<html>sign in</html>", "is not a GGUF file; name the address of the file itself"),
    ],
)
def test_what_cannot_be_fetched(files: Files, tmp_path: Path, status: int, content: bytes, message: str) -> None:
    """The error has the cause, and nothing of the address that may be a secret. No file is left."""
    files.status, files.content = status, content
    with pytest.raises(CommandError, match=message) as caught:
        fetch(files, tmp_path)
    assert "hush" not in str(caught.value)
    assert [] == list(tmp_path.glob("*.part"))


def test_a_local_file_is_copied(tmp_path: Path) -> None:
    """A path instead of an address copies the file; --json prints what programs need."""
    (tmp_path / "mine.gguf").write_bytes(MODEL)
    done = run_here(
        "models",
        "pull",
        str(tmp_path / "mine.gguf"),
        "--name",
        "small",
        "--state-dir",
        str(tmp_path / "state"),
        "--json",
    )
    path = tmp_path / "state" / "models" / "small.gguf"
    assert {"path": str(path), "sha256": SHA256, "bytes": len(MODEL)} == json.loads(done.stdout)
    assert MODEL == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://host/x.gguf"], "ftp: is not supported; name an https: address or a file"),
        (["/nowhere/x.gguf"], "/nowhere/x.gguf cannot be read (No such file or directory)"),
        (["https://host/x.gguf", "--sha256", "abc"], '"abc" is not a SHA-256 checksum; it has 64 hexadecimal digits'),
        (["https://u:hush@host:x/a.gguf"], "the address is not valid; name one such as https://host/model.gguf"),
        (["https://u:hush@[::1/a.gguf"], "the address is not valid; name one such as https://host/model.gguf"),
        (["https://u:hush@ho st/a.gguf"], "the address is not valid; name one such as https://host/model.gguf"),
        (["https://host/"], "--name: the name of the file must have letters, digits, `.+-_` only; name another"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    """A mistake is one line."""
    done = run_here("models", "pull", *arguments, "--state-dir", str(tmp_path))
    assert (1, f"parley: {message}\n") == (done.returncode, done.stderr)


def configured(url: str) -> Config:
    """Returns a configuration with a model of this address."""
    backend = f'{{kind: llama_cpp, model_url: "{url}"}}'
    return parse(f"backends: {{local: {backend}}}\nmodels: [{{id: a, targets: [{{backend: local}}]}}]", "test.yaml")


def local(config: Config) -> LlamaCppBackend:
    """Returns the backend of a configuration."""
    backend = config.backends["local"]
    assert isinstance(backend, LlamaCppBackend)
    return backend


def test_a_start_fetches_what_the_configuration_names(files: Files, tmp_path: Path) -> None:
    """`model_url` is fetched once, and again only when its checksum has changed."""
    config = configured(f"{files.url}#sha256={SHA256}")
    check_config(config, None)
    for _ in range(2):
        path = local(model_files.fetched(config, tmp_path, None, quiet=True)).model_path
        assert tmp_path / "models" / "tiny.gguf" == path
        assert MODEL == path.read_bytes()
    assert [None] == files.ranges
    with pytest.raises(CommandError, match=r"tiny\.gguf is there already, with the checksum"):
        model_files.fetched(configured(f"{files.url}#sha256={'0' * 64}"), tmp_path, None, quiet=True)


@pytest.mark.parametrize("url", ["ftp://host/a.gguf", "https://secret", "https:///a.gguf", "https://h/a#sha256=12"])
def test_a_wrong_address_is_a_mistake_of_the_configuration(url: str) -> None:
    """The error names the key, and nothing of the address, which may hold a secret."""
    with pytest.raises(ConfigError, match="model_url: must be the URL of a file") as caught:
        configured(url)
    assert url not in str(caught.value)
