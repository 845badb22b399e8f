"""`parley vendors`."""

import json

import pytest

from parley.cli.vendors import vendors
from parley.config import VENDORS
from parley.supervisor.errors import CommandError


def test_the_table_has_every_vendor_and_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each preset is one line with its address and its source."""
    monkeypatch.delenv("COLUMNS", raising=False)
    vendors()
    heading, *lines = capsys.readouterr().out.splitlines()
    assert list(VENDORS) == [line.split()[0] for line in lines]
    assert heading.split()[0] == "Vendor"
    assert all(f"https://{vendor.source}" in line for vendor, line in zip(VENDORS.values(), lines, strict=True))


def test_a_terminal_gets_lines_that_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 80 columns no line is longer, but for an address, and all of a preset is shown."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    vendors("mistral", "gemini")
    lines = capsys.readouterr().out.splitlines()
    assert "mistral  https://api.mistral.ai/v1  MISTRAL_API_KEY" in lines
    assert [] == [line for line in lines if len(line) > 80 and "https://" not in line]
    text = " ".join(" ".join(lines).split())
    assert "rename: max_completion_tokens → max_tokens, seed → random_seed" in text
    assert "https://docs.mistral.ai/api/endpoint/chat" in text


def test_an_unknown_vendor_is_named() -> None:
    """The error names the vendor, and the known ones."""
    with pytest.raises(CommandError, match='"grok" is unknown; use one of: openai, azure'):
        vendors("grok")


def test_the_data_has_the_fields_of_a_backend(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the fields that each preset sets."""
    vendors(as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert list(VENDORS) == list(data)
    assert ("openai", "api-key", "2024-10-21") == tuple(
        data["azure"][name] for name in ("kind", "key_header", "api_version")
    )
