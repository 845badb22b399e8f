"""The README's examples do what the README says: pasted as they stand, but for addresses, key and session."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parley.config import parse
from tests.processes import Parley

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line[2:] for line in README.splitlines() if re.match(r"\$ (curl|\.venv/bin/grpcurl) ", line)]


def _here(stack: Parley, text: str) -> str:
    """Puts this stack's addresses in place of the README's."""
    return text.replace("http://127.0.0.1:8080", stack.http).replace("127.0.0.1:50051", stack.grpc)


def _run(stack: Parley, *command: str) -> str:
    environment = os.environ | {"KEY": stack.key}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("place", range(2))
def test_python_examples_answer(stack: Parley, place: int) -> None:
    """The openai package and the generated stubs name Paris."""
    assert 2 == len(PYTHON)
    assert "Paris" in (said := _run(stack, sys.executable, "-c", _here(stack, PYTHON[place])))
    assert ("[('local', 'completed', '" in said) == (place == 1)


def test_command_examples_answer(stack: Parley) -> None:
    """The curl and grpcurl lines answer as shown; the second turn of the session knows the first."""
    stream, first, second, listing, call = COMMANDS
    assert _run(stack, "bash", "-c", _here(stack, stream)).endswith("data: [DONE]\n\n")
    answer = _run(stack, "bash", "-c", _here(stack, first))
    session = re.search(r'"chatSessionId":"([^"]+)"', answer)
    assert session
    renamed = re.sub(r'"chatSessionId": "[^"]+"', f'"chatSessionId": "{session[1]}"', second)
    assert "The capital of Germany is Berlin." in _run(stack, "bash", "-c", _here(stack, renamed))
    shown = README.split(listing)[1].split("$ ")[0].split()
    grpcurl = f"{sys.executable} {Path(sys.executable).with_name('grpcurl')}"
    for line, expected in ((listing, shown), (call, ["Paris."])):
        output = _run(stack, "bash", "-c", _here(stack, line).replace(".venv/bin/grpcurl", grpcurl))
        assert all(word in output for word in expected)


def test_the_configuration_example_is_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML is accepted as it stands, once its variables are set."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PARLEY_EU_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "secret")
    [text] = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert ["support", "backup"] == [model.id for model in parse(text, "README.md").models]
