"""`parley usage`: what was used and what it cost, read from the store, without a running service."""

import csv
import json as jsons
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any

from cyclopts import Parameter

from parley.cli.shared import key_store
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import json_text, print_table, without_control_characters
from parley.config import Duration
from parley.config.loader import load
from parley.config.validation import ValidationError, validated
from parley.core.ports import UsageCounts, UsageQuery, UsageRow
from parley.core.ports.usage import NANOS, Dimension
from parley.core.usage.recorder import day
from parley.core.usage.report import iso, parse_date
from parley.supervisor.errors import CommandError

_COUNTS = ("Calls", "Errors", "Attempts", "Prompt", "Cached", "Completion", "Reasoning", "Cost")
_COST_PLACES = Decimal("0.000001")


def usage(  # noqa: PLR0913 - the command's options
    *,
    by: Annotated[
        list[Dimension] | None,
        Parameter(name="--by", negative=(), help="What to sum up by; repeatable. Default: account and model."),
    ] = None,
    since: Annotated[
        str, Parameter(name="--since", help="The first day: a date (UTC), or how long ago: 7d, 30d.")
    ] = "30d",
    until: Annotated[str | None, Parameter(name="--until", help="The last day, as --since. Default: today.")] = None,
    account: Annotated[str | None, Parameter(name="--account", help="Only this account.")] = None,
    key: Annotated[str | None, Parameter(name="--key", help="Only the API key with this id.")] = None,
    model: Annotated[
        list[str] | None, Parameter(name="--model", negative=(), help="Only this model; repeatable.")
    ] = None,
    json: JsonOption = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative=(), help="Print CSV.")] = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what calls have used, with their cost by the configured prices.

    Each call counts once, where it was answered; attempts, tokens and cost count at the target that each attempt used.
    """
    if json and as_csv:
        raise CommandError("--json and --csv exclude each other; choose one")
    names: Sequence[Dimension] = list(dict.fromkeys(by or ("account", "model")))
    first, last = _day("--since", since), None if until is None else _day("--until", until)
    query = UsageQuery(names, first, last, account, key, model or ())
    checked = load(config)
    folder = key_store.existing(checked, state_dir, "usage", "")
    rows = key_store.run(checked, folder, lambda store: store.usage(query))
    if json:
        print(json_text(jsons.dumps([_fields(names, row) for row in rows], ensure_ascii=False)))
    elif as_csv:
        _print_csv(names, rows)
    else:
        _show(names, rows)


def _day(option: str, text: str) -> int:
    """Converts a date, or a duration before now, to days since 1970-01-01. Raises CommandError."""
    found = parse_date(text)
    if found is not None:
        return found
    try:
        seconds: float = validated(Duration, text)
        iso(found := day(time.time() - seconds))
    except (ValidationError, ValueError, OverflowError) as error:
        raise CommandError(f'{option}: "{text}" is neither a date nor a duration; write 2026-11-01 or 30d') from error
    return found


def _values(names: Sequence[Dimension], row: UsageRow) -> list[str]:
    """Returns the values of a row's dimensions as text; the day as a date."""
    pairs = zip(names, row.group, strict=True)
    return [iso(int(value)) if name == "day" else str(value) for name, value in pairs]


def _fields(names: Sequence[Dimension], row: UsageRow) -> dict[str, Any]:
    counts = asdict(row.counts)
    cost = counts.pop("cost_nanos") / NANOS
    return {**dict(zip(names, _values(names, row), strict=True)), **counts, "cost": cost}


def _print_csv(names: Sequence[Dimension], rows: Iterable[UsageRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    counts = [name for name in asdict(UsageCounts()) if name != "cost_nanos"]
    writer.writerow([*names, *counts, "cost"])
    for row in rows:
        values = map(without_control_characters, _values(names, row))
        numbers = [getattr(row.counts, name) for name in counts]
        writer.writerow([*values, *numbers, f"{_cost(row.counts):f}"])


def _show(names: Sequence[Dimension], rows: Sequence[UsageRow]) -> None:
    total = UsageCounts()
    for row in rows:
        total.add(row.counts)
    lines = [[*_values(names, row), *_cells(row.counts)] for row in rows]
    lines.append(["Total", *[""] * (len(names) - 1), *_cells(total)])
    headings = [name.capitalize() for name in names]
    print_table([*headings, *_COUNTS], lines, folded=headings, numbers=_COUNTS)


def _cells(counts: UsageCounts) -> list[str]:
    numbers = list(asdict(counts).values())[:-1]
    return [*(f"{number:,}" for number in numbers), f"{_cost(counts).quantize(_COST_PLACES):,f}"]


def _cost(counts: UsageCounts) -> Decimal:
    return Decimal(counts.cost_nanos) / NANOS
