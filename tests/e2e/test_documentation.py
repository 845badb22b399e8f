"""The examples of the documentation run unchanged, except for addresses, key and session, with the shown results."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from tests import postgres
from tests.pages import PAGES, ROOT, blocks, shell_lines
from tests.processes import PATIENCE, Parley, environment, until

PYTHON = [text for page in PAGES for language, text in blocks(page) if language == "python" and "Guard" not in text]
"""The examples with a client; test_guards.py runs the guard of docs/guards.md."""
SECRETS = dict.fromkeys(
    (
        *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "GROQ_KEY_1", "GROQ_KEY_2"),
        *("PARLEY_EU_KEY", "PGPASSWORD"),
    ),
    "secret",
)
DATABASE = "postgresql://parley:${PGPASSWORD}@db.internal/parley"
SESSION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OUTPUTS = {
    "ChatCompletions/CreateChatCompletion": r"Paris\.",
    "keys create": "^sk-",
    "accounts set": r"Plan +pro",
    "parley usage --since": "Total",
    "sessions list": SESSION.pattern,
    "parley chat": "Paris",
    "parley --help": "Chat completions over gRPC and REST",
    "config check": "parley.yaml is fine: ",
}
"""Patterns that the output of a line contains, by a part of the line, for lines whose pages show no output."""
STDIN = "What is the capital of France?\n"
"""The standard input of every line; `parley chat` reads it."""


def _here(stack: Parley, text: str) -> str:
    """Replaces the addresses of the documentation by those of this stack."""
    text = text.replace("http://127.0.0.1:8080", stack.http).replace("http://127.0.0.1:9464", stack.metrics)
    return text.replace("127.0.0.1:50051", stack.grpc)


@pytest.mark.parametrize("example", range(4))
def test_python_examples_answer(stack: Parley, example: int) -> None:
    """The examples with the openai package, streaming or not, and with the generated stubs name Paris."""
    assert 4 == len(PYTHON)
    command = [sys.executable, "-c", _here(stack, PYTHON[example])]
    done = subprocess.run(
        command, env=os.environ | {"KEY": stack.key}, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "Paris" in done.stdout
    assert ("[('local', 'completed', '" in done.stdout) == ("grpc" in PYTHON[example])


class Shell:
    """A shell in a clean clone, for the lines of the documentation."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.parley: Parley | None = None
        self._environment = environment(
            PARLEY_HTTP="127.0.0.1:0",
            PARLEY_GRPC="127.0.0.1:0",
            PARLEY_WORKERS="1",  # a second one would only take time, as would a delay of the end
            PARLEY_SHUTDOWN_DELAY="0",
            PARLEY_READY_FILE=str(clone / "ready.json"),
            **SECRETS,
        )

    def start(self, line: str) -> None:
        """Runs a line that serves until it is stopped, and waits until it is ready."""
        ready = self.clone / "ready.json"
        with (self.clone / "output").open("wb") as output, (self.clone / "log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.clone,
                env=self._environment,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        self.parley = Parley(process, self.clone)
        until(lambda: ready.exists() or process.poll() is not None, f"{line}: the ready file")
        assert ready.exists(), self.parley.log
        addresses = json.loads(ready.read_text())
        self.parley.http, self.parley.grpc = addresses["http"], addresses["grpc"]
        self.parley.metrics = addresses["metrics"]

    def stop(self) -> None:
        """Stops the server like Ctrl-C: every process in the foreground receives the signal."""
        if self.parley is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.parley.process.pid, signal.SIGINT)
            self.parley.process.wait(PATIENCE)
            self.parley = None

    def run(self, line: str, typed: str = "") -> str:
        """Runs a line with `parley` on the PATH, and returns its output."""
        variables = dict(self._environment)
        if self.parley is not None:
            line = _here(self.parley, line)
            variables |= {"PARLEY_ADDRESS": self.parley.grpc}
        if (self.clone / "key").exists():
            variables |= {"KEY": (self.clone / "key").read_text()}
        done = subprocess.run(
            ["bash", "-c", f". .venv/bin/activate && {line}"],
            cwd=self.clone,
            env=variables,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert 0 == done.returncode, (line, done.stdout, done.stderr)
        return done.stdout


@contextmanager
def fresh_clone(folder: Path) -> Iterator[Shell]:
    """A shell in a folder with only the files of the repository, and with the installed packages of this checkout."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
            os.utime(folder / name, (0, 0))  # older than the installation: `make run` must not repeat it
    (folder / ".venv").symlink_to(sys.prefix)
    shell = Shell(folder)
    try:
        yield shell
    finally:
        shell.stop()


def _examples(page: Path) -> Iterator[tuple[str, str]]:
    """Yields the shell lines of a page, each with the shown output: the lines up to the next `$`."""
    text = page.read_text(encoding="utf-8")
    for line in shell_lines(page):
        found, after = text.partition(f"$ {line}\n")[1:]
        yield line, f"\n{after}".split("```")[0].split("\n$ ")[0].lstrip() if found else ""


def _check_output(line: str, shown: str, output: str) -> None:
    """Compares the output with the page: the texts of an answer, and the words of a list."""
    for content in re.findall(r'"content":"([^"]*\.)"', shown):
        assert f'"content":"{content}"' in output, line
    if shown and "{" not in shown:
        assert set(shown.split()) <= set(output.split()), line
    if "data: [DONE]" in shown:
        assert output.endswith("data: [DONE]\n\n"), line
    if shown.startswith("{… ") and (model := re.search(r'"model":"[^"]*"', shown)):
        assert model[0] in output, line
    for part, expected in OUTPUTS.items():
        assert part not in line or re.search(expected, output), (line, output)


def _start(shell: Shell, line: str) -> None:
    """Starts another Parley instead of the running one; a configuration selects its models."""
    shell.stop()
    shell.start(line)
    assert shell.parley
    key = shell.clone / "key"
    if not key.exists():
        key.write_text(shell.parley.key)
    if "parley.yaml" in line:
        models = yaml.safe_load((shell.clone / "parley.yaml").read_text())["models"]
        served = shell.parley.request("GET", "/v1/models", key=key.read_text())[1]
        assert [model["id"] for model in models] == [model["id"] for model in served["data"]]


def _run_page(shell: Shell, page: Path) -> None:
    """Runs the lines of a page in order. Lines that require Parley use that of `make run` unless one is running."""
    session = ""
    if any(line.startswith("make run") for line in shell_lines(page)):
        shell.stop()
    for line, shown in _examples(page):
        if line.startswith("make run"):
            _start(shell, line)
        elif not line.startswith("make"):  # tests/unit/test_documentation.py checks the others with make -n
            if shell.parley is None and re.search("curl|parley chat", line):
                _start(shell, "make run")
            output = shell.run(SESSION.sub(session, line) if session else line, STDIN)
            _check_output(line, shown, output)
            created = re.search(r'"chatSessionId": ?"([^"]+)"', output)
            session = session or (created[1] if created else "")
    if (shell.clone / "parley.yaml").exists():
        shell.stop()
        (shell.clone / "parley.yaml").unlink()


def _write_configuration(folder: Path, page: Path, database: str) -> None:
    """Writes the complete example configuration of the page, with a database of this machine."""
    for language, text in blocks(page):
        if language == "yaml" and text.startswith("# parley.yaml"):
            (folder / "parley.yaml").write_text(text.replace(DATABASE, database))


def test_every_shell_line_works_in_a_fresh_clone(tmp_path: Path) -> None:
    """Each shell line of each page runs in order in a clean clone, and prints the output that its page shows."""
    with fresh_clone(tmp_path) as shell, postgres.serving() as database:
        for page in PAGES:
            _write_configuration(tmp_path, page, database.empty())
            _run_page(shell, page)
