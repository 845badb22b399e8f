"""`parley vendors`."""

import json

import pytest

from parley.cli.vendors import vendors
from parley.config import VENDORS


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


def test_the_data_has_the_fields_of_a_backend(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the fields that each preset sets."""
    vendors(as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert list(VENDORS) == list(data)
    assert ("openai", "api-key", "2024-10-21") == tuple(
        data["azure"][name] for name in ("kind", "key_header", "api_version")
    )
