"""`parley init`: the files that it writes, its test call, and its questions on a terminal."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.cli.shared.dialog import Dialog
from parley.cli.shared.starter import Answers, starter
from parley.cli.shared.vendors import VENDORS
from parley.config import VENDORS as PRESETS
from parley.config.loader import load, parse
from parley.supervisor.errors import CommandError
from tests.processes import run_here
from tests.upstream import Json, ScriptedUpstream, completion

KEY = "sk-init-secret-word"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    """A vendor."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: ScriptedUpstream) -> ScriptedUpstream:
    """The vendor, without earlier requests."""
    server.reset()
    server.default = Json(completion("OK"))
    return server


def init(file: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `parley init` without a terminal."""
    return run_here("init", str(file), *options, **variables, no_proxy="*")


@pytest.mark.parametrize("name", VENDORS)
def test_every_vendor_gives_a_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of each vendor is valid, as it is and with all its examples."""
    vendor = VENDORS[name]
    monkeypatch.setenv("PGPASSWORD", "x")
    if vendor.key:
        monkeypatch.setenv(vendor.key, KEY)
    url = "" if vendor.base_url or vendor.kind == "llama_cpp" else "http://vllm/v1"
    model = "" if vendor.kind == "llama_cpp" else 'qwen3:8b "new"'
    text = starter(Answers(name, vendor, url, vendor.key, model, "off"), "parley.yaml")
    assert "off" == parse(text, "f").models[0].id
    assert (f"vendor: {vendor.preset}" in text) == (name in PRESETS)
    every = parse(re.sub(r"^( *)# (?=- \{|[a-z_]+: )", r"\1", text, flags=re.MULTILINE), "f")
    assert ["off", "backup"] == [one.id for one in every.models]
    assert every.tls
    assert every.prices


def test_a_vendor_by_options(upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With options nothing is asked: the test call uses the key of the environment, and the file has its variable."""
    file = tmp_path / "parley.yaml"
    options = ("--vendor", "groq", "--base-url", upstream.url, "--model", "tiny", "--id", "small")
    result = init(file, *options, GROQ_API_KEY=KEY)
    assert (0, "") == (result.returncode, result.stderr)
    assert re.search(r"Asking groq \(tiny\) for one word …\nIt answered in \d+\.\d s: OK\nWrote ", result.stdout)
    (call,) = upstream.requests
    assert f"Bearer {KEY}" == call.headers["authorization"]
    assert KEY not in file.read_text() + result.stdout
    assert 0o600 == file.stat().st_mode & 0o777
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    config = load(file)
    assert ("small", "tiny") == (config.default_model, config.models[0].targets[0].model)


def test_the_built_in_model_is_the_default(tmp_path: Path) -> None:
    """Without a terminal and without options, the file has the built-in model."""
    file = tmp_path / "parley.yaml"
    assert 0 == init(file).returncode
    assert ["llama_cpp"] == [one.kind for one in load(file).backends.values()]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--vendor", "opnai"), '--vendor: "opnai" is unknown; use one of: openai, anthropic'),
        (("--vendor", "other"), "--base-url: a URL is needed"),
        (("--vendor", "other", "--base-url", "http://v/v1"), "--model: a name is needed"),
        (("--vendor", "local", "--base-url", "http://v/v1"), "--base-url: local has none"),
        (("--vendor", "groq"), "the variable GROQ_API_KEY is not set, so that no test call is made; set it, or give"),
        (("--vendor", "groq", "--key-variable", KEY), "--key-variable: the name of a variable is needed"),
    ],
)
def test_what_is_missing_or_wrong_is_named(options: tuple[str, ...], error: str, tmp_path: Path) -> None:
    """The error names the option; no file is written, and a key that is given by mistake is not repeated."""
    result = init(tmp_path / "parley.yaml", *options)
    assert 1 == result.returncode
    assert f"parley: {error}" in result.stderr
    assert KEY not in result.stderr
    assert [] == list(tmp_path.iterdir())


def test_a_test_call_that_fails(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """No file is written, and the error has a remedy; with --no-test no call is made."""
    upstream.default = Json({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
    file = tmp_path / "parley.yaml"
    options = ("--vendor", "openai", "--base-url", upstream.url)
    result = init(file, *options, OPENAI_API_KEY=KEY)
    assert (1, False) == (result.returncode, file.exists())
    assert re.match(r"parley: the test call failed: .*; check `api_key`.*, or give --no-test\n", result.stderr)
    assert KEY not in result.stderr
    assert 0 == init(file, *options, "--no-test").returncode
    assert "export OPENAI_API_KEY=…" in init(file, *options, "--no-test", "--force").stdout
    assert 1 == len(upstream.requests)


def test_an_existing_file_stays(tmp_path: Path) -> None:
    """A file is replaced only with --force."""
    file = tmp_path / "parley.yaml"
    file.write_text("mine")
    result = init(file)
    assert (1, "mine") == (result.returncode, file.read_text())
    assert f"{file} exists; name another file, or replace it with --force" in result.stderr


@pytest.mark.parametrize(
    ("vendor", "given", "written"),
    [
        ("azure", "https://me.openai.azure.com/", "https://me.openai.azure.com"),
        ("ollama", "http://gpu:11434", "http://gpu:11434/v1"),
        ("vllm", "http://gpu:8000/api/v1/", "http://gpu:8000/api/v1"),
    ],
)
def test_an_address_gets_the_path_of_the_vendor(vendor: str, given: str, written: str, tmp_path: Path) -> None:
    """An address without a path gets that of the preset."""
    file = tmp_path / "parley.yaml"
    assert 0 == init(file, "--vendor", vendor, "--base-url", given, "--model", "m", "--no-test").returncode
    assert f'base_url: "{written}"' in file.read_text()


def test_the_end_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D is a refusal of a question, and one line of error where an answer is needed."""
    dialog = Dialog(asks=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("maybe\nyes\n"))
    assert [False, True, False] == [dialog.confirms("Sure?") for _ in range(3)]
    with pytest.raises(CommandError, match="the answers ended; nothing is written"):
        dialog.value(None, "--model", "Model", "m", str)


def test_questions_on_a_terminal(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """On a terminal each missing value is asked for; a wrong answer is explained and asked again."""
    file = tmp_path / "parley.yaml"
    answers = ["99", "other", "ftp://x", upstream.url, "tiny", KEY, "TEAM_KEY", ""]
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "parley.cli.main", "init", str(file)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TEAM_KEY": KEY, "no_proxy": "*"},
    )
    os.close(follower)
    os.write(leader, "".join(f"{answer}\n" for answer in answers).encode())
    screen = b""
    try:
        while piece := os.read(leader, 4096):
            screen += piece
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    text = screen.decode()
    assert 0 == process.wait(), text
    for part in (
        " 1  openai        OpenAI",
        'Vendor, by number or name [local]:   "99" is unknown; use one of: openai',
        "URL of the API:   a URL is needed",
        "the name of a variable is needed, such as OPENAI_API_KEY",
        "Id of the model for callers [tiny]: ",
        "It answered in ",
    ):
        assert part in text
    assert f"Bearer {KEY}" == upstream.requests[0].headers["authorization"]
    written = file.read_text()
    assert 'api_key: "${TEAM_KEY}"' in written
    assert KEY not in written
