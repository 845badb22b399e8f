"""The summary of a start in a terminal."""

import io
from pathlib import Path

from rich.console import Console

from parley.cli.shared import startup
from parley.cli.shared.startup import StartSummary
from parley.config.loader import load
from parley.supervisor.messages import Progress


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Returns that it is one."""
        return True


def test_each_step_becomes_a_line_with_its_duration() -> None:
    """The current step has its progress; a step that ends has the time since it began, not since its last progress."""
    output, now = Terminal(), [10.0]
    console = Console(file=output, width=80, height=10, highlight=False, color_system=None, _environ={"TERM": "xterm"})
    shown = StartSummary(console, lambda: now[0])
    shown.done("Configuration built in: 1 model, 1 backend")
    shown.show(Progress("Loading tiny.gguf, 9 MiB"))
    now[0] = 11.5
    shown.show(Progress("Loading tiny.gguf, 9 MiB", 0.37))
    with console.capture() as drawn:
        console.print(shown._line())  # noqa: SLF001 - what the live line draws, without waiting for it
    now[0] = 12.0
    shown.show(Progress("Starting Envoy"))
    now[0] = 12.25
    shown.finish()
    shown.stop()
    assert " 37%" in drawn.get()
    assert "✓ Configuration built in: 1 model, 1 backend\n" in output.getvalue()
    assert "✓ Loading tiny.gguf, 9 MiB  2.0 s\n" in output.getvalue()
    assert "✓ Starting Envoy  0.2 s\n" in output.getvalue()


def test_nothing_is_shown_without_a_terminal() -> None:
    """A log has no line that changes."""
    with startup.summary(quiet=False) as shown:
        assert shown is None


def test_the_first_steps_name_the_file_and_the_store(tmp_path: Path) -> None:
    """The configuration and the store are named, and what the store lacks."""
    config = load(None)
    assert "Configuration built in: 1 model, 1 backend" == startup.configuration_step(None, config)
    assert "Configuration a.yaml: 1 model, 1 backend" == startup.configuration_step(Path("a.yaml"), config)
    assert f"Store SQLite; state folder {tmp_path}" == startup.store_step(config, tmp_path, is_open=True)
    assert "Store SQLite, not available yet" in startup.store_step(config, tmp_path, is_open=False)
