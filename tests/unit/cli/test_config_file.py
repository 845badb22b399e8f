"""The mode of the configuration file."""

from pathlib import Path

import pytest

from parley.cli.shared.checks import check_config
from parley.config.loader import load

CONFIG = "backends: {up: {kind: openai, base_url: 'http://up'}}\nmodels: [{id: m, targets: [{backend: up}]}]\n"


def test_a_configuration_that_everyone_can_change_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The warning names the file and the command that mends its mode; other modes cause none."""
    file = tmp_path / "parley.yaml"
    file.write_text(CONFIG)
    for mode, expected in ((0o664, ""), (0o666, f"parley: other users can change {file}, ")):
        file.chmod(mode)
        check_config(load(file), file)
        log = capfd.readouterr().err
        assert expected == log[: len(expected) or None]
    assert log.endswith(f"run `chmod o-w {file}`\n")
