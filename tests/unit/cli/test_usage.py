"""`parley usage` on a real file."""

import asyncio
import csv
import io
import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parley.core.ports import UsageCounts, UsageKey
from parley.stores.sqlite import SqliteStore
from tests.processes import run_here

OLD = 20_000  # 2024-10-04
TODAY = int(time.time() // 86400)
COUNTS = UsageCounts(1234, 3, 1240, 5_000_000_000, 400, 300, 200, 12_345_678_901)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with usage of two accounts, today and long ago."""
    folder = tmp_path_factory.mktemp("state")
    rows = {
        UsageKey("acme", TODAY, "key_1", "m", "vllm/qwen"): COUNTS,
        UsageKey("acme", TODAY, "key_2", "m", "openai"): UsageCounts(1, 1, 1),
        UsageKey("bob\x1b[31m", TODAY, "key_3", "n", ""): UsageCounts(1, cost_nanos=1),
        UsageKey("acme", OLD, "key_1", "m", "vllm/qwen"): UsageCounts(7),
    }

    async def fill() -> None:
        store = SqliteStore(folder / "parley.db")
        await store.add_usage("w", 1, rows)
        await store.close()

    asyncio.run(fill())
    return folder


def usage(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `parley usage`."""
    return run_here("usage", *arguments, PARLEY_STATE_DIR=str(state), COLUMNS="130")


def read(state: Path, *arguments: str) -> Any:
    """Runs `parley usage --json`, which must succeed."""
    result = usage(state, *arguments, "--json")
    assert (0, "") == (result.returncode, result.stderr)
    return json.loads(result.stdout)


def test_table(state: Path) -> None:
    """The table has aligned numbers and a line of totals, and no control characters of a name."""
    result = usage(state)
    assert (0, "") == (result.returncode, result.stderr)
    lines = result.stdout.splitlines()
    headings = "Account Model Calls Errors Attempts Prompt Cached Completion Reasoning Cost"
    assert headings.split() == lines[0].split()
    assert ["acme", "m", "1,235", "4", "1,241", "5,000,000,000", "400", "300", "200", "12.345679"] == lines[1].split()
    assert ["bob[31m", "n", "1", "0", "0", "0", "0", "0", "0", "0.000000"] == lines[2].split()
    assert ["Total", "1,236", "4", "1,241", "5,000,000,000", "400", "300", "200", "12.345679"] == lines[3].split()
    assert 1 == len({len(line) for line in lines})


def test_json(state: Path) -> None:
    """JSON has one object for each row, with exact numbers."""
    row = {"account": "acme", "target": "vllm/qwen", "calls": 1234, "errors": 3, "attempts": 1240}
    row |= {"prompt_tokens": 5_000_000_000, "cached_tokens": 400, "completion_tokens": 300, "reasoning_tokens": 200}
    found = read(state, "--by", "account", "--by", "target", "--account", "acme", "--key", "key_1")
    assert [row | {"cost": 12.345678901}] == found


def test_csv(state: Path) -> None:
    """CSV has a header and exact decimals, and fits JSON."""
    result = usage(state, "--by", "model", "--by", "day", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    today = datetime.now(UTC).date().isoformat()
    assert [("m", today, "12.345678901"), ("n", today, "0.000000001")] == [
        (row["model"], row["day"], row["cost"]) for row in rows
    ]
    assert [str(row["calls"]) for row in read(state, "--by", "model")] == [row["calls"] for row in rows]


def test_period(state: Path) -> None:
    """Days are chosen by date, both days included, or by age."""
    assert [] == read(state, "--since", "2024-10-05", "--until", "2024-12-31")
    assert [7] == [row["calls"] for row in read(state, "--since", "2024-10-04", "--until", "2024-10-04")]
    assert [7, 1236] == [row["calls"] for row in read(state, "--since", "20000d", "--by", "day")]


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["2026-13-01", "soon", "-1d", ""])
def test_a_wrong_period(state: Path, option: str, text: str) -> None:
    """A period that cannot be read is named, with an example."""
    result = usage(state, f"{option}={text}")
    hint = f'parley: {option}: "{text}" is neither a date nor a duration; write 2026-11-01 or 30d\n'
    assert (1, hint) == (result.returncode, result.stderr)


def test_two_formats(state: Path) -> None:
    """JSON and CSV exclude each other."""
    result = usage(state, "--json", "--csv")
    assert (1, "parley: --json and --csv exclude each other; choose one\n") == (result.returncode, result.stderr)


def test_a_folder_without_a_store(tmp_path: Path) -> None:
    """A folder without a store is an error, and no store is created."""
    result = usage(tmp_path / "none")
    assert (1, True) == (result.returncode, "has no usage" in result.stderr)
    assert not (tmp_path / "none").exists()
