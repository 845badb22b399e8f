"""The README's examples do what the README says: pasted as they stand, but for addresses, key and session."""

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

from parley.config import parse
from tests import postgres
from tests.processes import PATIENCE, Parley, environment, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
[YAML] = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SECRETS = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PARLEY_EU_KEY", "PGPASSWORD"), "secret")


def shell_lines() -> list[str]:
    """Returns every line of the README that is for a shell: those of `sh` blocks, and those behind a `$`."""
    lines = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        if language == "sh":
            lines += text.splitlines()
        elif not language:
            lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return lines


def _here(stack: Parley, text: str) -> str:
    """Puts this stack's addresses in place of the README's."""
    return text.replace("http://127.0.0.1:8080", stack.http).replace("127.0.0.1:50051", stack.grpc)


@pytest.mark.parametrize("place", range(2))
def test_python_examples_answer(stack: Parley, place: int) -> None:
    """The openai package and the generated stubs name Paris."""
    assert 2 == len(PYTHON)
    command = [sys.executable, "-c", _here(stack, PYTHON[place])]
    done = subprocess.run(
        command, env=os.environ | {"KEY": stack.key}, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "Paris" in done.stdout
    assert ("[('local', 'completed', '" in done.stdout) == (place == 1)


def test_the_configuration_example_is_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML is accepted as it stands, once its variables are set."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    assert ["support", "backup"] == [model.id for model in parse(YAML, "README.md").models]


class Shell:
    """A shell in a fresh clone, in which a reader of the README pastes its lines."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.parley: Parley | None = None
        self._environment = environment(
            PARLEY_HTTP="127.0.0.1:0", PARLEY_GRPC="127.0.0.1:0", PARLEY_READY_FILE=str(clone / "ready.json"), **SECRETS
        )

    def start(self, line: str) -> None:
        """Runs a line that serves until it is stopped, and waits until it does."""
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

    def stop(self) -> None:
        """Stops what serves, as Ctrl-C does: every process in the foreground gets the signal."""
        if self.parley is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.parley.process.pid, signal.SIGINT)
            self.parley.process.wait(PATIENCE)
            self.parley = None

    def run(self, line: str, typed: str = "") -> str:
        """Runs a line after the one that puts `parley` on the PATH; returns what it printed."""
        known = dict(self._environment)
        if self.parley is not None:
            line = _here(self.parley, line)
            known |= {"PARLEY_ADDRESS": self.parley.grpc}
        if (self.clone / "key").exists():
            known |= {"KEY": (self.clone / "key").read_text()}
        done = subprocess.run(
            ["bash", "-c", f". .venv/bin/activate && {line}"],
            cwd=self.clone,
            env=known,
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
    """A folder with the files that are in the repository, and nothing else."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # `make run` would do the same; here it may take as long as the registries do.
    subprocess.run(["make", "install"], cwd=folder, capture_output=True, check=True)
    shell = Shell(folder)
    try:
        yield shell
    finally:
        shell.stop()


def test_every_shell_line_works_in_a_fresh_clone(tmp_path: Path) -> None:
    """All of them, in their order, as a newcomer pastes them; each prints what the README says."""
    make_run, stream, first, second, listing, call, activate, *commands, check, copy, configured = shell_lines()
    keys, accounts, sessions, chat, help_ = commands
    with fresh_clone(tmp_path) as shell, postgres.serving() as database:
        shell.start(make_run)
        assert shell.parley
        (tmp_path / "key").write_text(shell.parley.key)
        assert shell.run(stream).endswith("data: [DONE]\n\n")
        answer = shell.run(first)
        session = re.search(r'"chatSessionId":"([^"]+)"', answer)
        assert session
        renamed = re.sub(r'"chatSessionId": "[^"]+"', f'"chatSessionId": "{session[1]}"', second)
        assert "The capital of Germany is Berlin." in shell.run(renamed)
        shown = README.split(listing)[1].split("$ ")[0].split()
        assert set(shown) <= set(shell.run(listing).split())
        assert "Paris." in shell.run(call)
        shell.run(activate)
        assert shell.run(keys).startswith("sk-")
        assert "default" in shell.run(accounts)
        assert session[1] in shell.run(sessions)
        assert "Paris" in shell.run(chat, "What is the capital of France?\n")
        assert "Chat completions over gRPC and REST" in shell.run(help_)
        shell.stop()

        url = "postgresql://parley:${PGPASSWORD}@db.internal/parley"
        assert url in YAML
        (tmp_path / "parley.yaml").write_text(YAML.replace(url, database.empty()))
        assert "parley.yaml is fine: " in shell.run(check)
        shell.run(copy)
        shell.start(configured)
        assert shell.parley
        served = shell.parley.request("GET", "/v1/models", key=(tmp_path / "key").read_text())[1]
        assert ["support", "backup"] == [model["id"] for model in served["data"]]
