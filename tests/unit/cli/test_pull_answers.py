"""What servers answer to `parley models pull`: parts that were not requested, redirects, files without a length."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.cli.shared import download, http_source
from parley.supervisor.errors import CommandError
from tests.contract.certificates import CERTIFICATE
from tests.processes import run_here
from tests.unit.cli.model_files_server import CUT, MODEL, SHA256, Files, fetch, interrupt, serving


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A running server; retries have no delay."""
    monkeypatch.setattr(download, "_DELAY", 0.0)
    with serving() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Files]:
    """A running server of another host."""
    with serving() as server:
        yield server


def part(start: int, end: int, **headers: str) -> tuple[dict[str, str], bytes]:
    """Returns a part of the file, as answers have it."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = MODEL[start:end] if not headers else bytes(end - start)
    return {"Content-Range": f"bytes {start}-{end - 1}/{len(MODEL)}", "ETag": '"one"'} | names, body


@pytest.mark.parametrize(
    "answer",
    [
        part(CUT + 100, len(MODEL)),
        part(0, 1000),
        part(CUT, len(MODEL), ETag='"two"'),
        part(CUT, len(MODEL), Content_Range="bytes */*"),
        part(CUT, len(MODEL), Content_Range=f"bytes {CUT}-{len(MODEL)}/*"),
        part(CUT, len(MODEL), Content_Range=f"bytes {CUT}-{len(MODEL)}/{CUT + 10}"),
    ],
    ids=["behind", "before", "other version", "no range", "no size", "too long"],
)
def test_a_part_that_was_not_requested_is_not_used(
    files: Files, tmp_path: Path, answer: tuple[dict[str, str], bytes]
) -> None:
    """If the server sends another part, or one of another version, the file is fetched from its beginning."""
    interrupt(files, tmp_path)
    files.part = answer
    assert SHA256 == fetch(files, tmp_path).sha256
    assert MODEL == (tmp_path / "tiny.gguf").read_bytes()


def test_a_part_without_its_version_is_used(files: Files, tmp_path: Path) -> None:
    """A server may leave out the date of a part, if the request has named it (RFC 9110, 15.3.7)."""
    interrupt(files, tmp_path)
    headers, body = part(CUT, len(MODEL))
    files.part = {"Content-Range": headers["Content-Range"]}, body
    assert SHA256 == fetch(files, tmp_path).sha256
    assert [None, f"bytes={CUT}-"] == files.ranges


def test_a_file_of_unknown_length_needs_a_checksum(files: Files, other: Files, tmp_path: Path) -> None:
    """Without a length, an answer that ends early looks complete."""
    files.has_length = other.has_length = False
    with pytest.raises(CommandError, match="does not say how long the file is; give --sha256"):
        fetch(files, tmp_path)
    assert [] == list(tmp_path.glob("*.gguf*"))
    other.cuts = 1
    with pytest.raises(CommandError, match="it was removed"):
        fetch(other, tmp_path, SHA256)
    assert SHA256 == fetch(files, tmp_path, SHA256).sha256


def test_a_file_that_has_changed_since_is_not_the_fetched_one(files: Files, tmp_path: Path) -> None:
    """The checksum is that of the file as it is now."""
    fetch(files, tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(MODEL + b"!")
    with pytest.raises(CommandError, match=r"tiny\.gguf is there already, with the checksum"):
        fetch(files, tmp_path)


def with_user(url: str) -> str:
    """Returns an address with a user and a password."""
    return url.replace("://", "://ada:hu%3Ash@")


def test_only_the_server_of_the_address_gets_its_password(files: Files, other: Files, tmp_path: Path) -> None:
    """A redirect to the same server keeps user and password, one to another server does not."""
    url = with_user(files.url)
    files.location = f"{with_user(other.url)}#part"
    source = http_source.parse(url)
    assert SHA256 == download.fetch(source, tmp_path / "tiny.gguf", None, lambda *_: None).sha256
    assert (["Basic YWRhOmh1OnNo"], [None]) == (files.users, other.users)
    assert [] == [text for text in ("hu%3Ash", "hu:sh") if text in source.name + repr(source)]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "redirects more than 10 times; name the address of the file itself"),
        ("file:///etc/hush", "redirects to is not valid; name one such as"),
        ("ftp://127.0.0.1/hush", "redirects to is not valid; name one such as"),
        ("http://[hush", "redirects to is not valid; name one such as"),
        ("/é hush", "redirects more than 10 times"),
    ],
)
def test_redirects_that_lead_nowhere(files: Files, tmp_path: Path, location: str, message: str) -> None:
    """The error is one line, without the secrets of either address."""
    files.location = location or files.url
    done = run_here("models", "pull", with_user(files.url), "--state-dir", str(tmp_path))
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert message in done.stderr
    assert "hush" not in done.stderr
    assert "hu%3Ash" not in done.stderr


def test_no_request_leaves_tls(files: Files, other: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from TLS to an address without it is not followed: the address may be secret."""
    pem = tmp_path / "both.pem"
    pem.write_text(CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    files.socket = context.wrap_socket(files.socket, server_side=True)
    files.location = other.url
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    source = http_source.parse(files.url.replace("http://127.0.0.1", "https://localhost"))
    with pytest.raises(CommandError, match="redirects to an address without TLS; name another"):
        download.fetch(source, tmp_path / "tiny.gguf", None, lambda *_: None)
    assert [] == other.ranges
