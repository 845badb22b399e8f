"""The table of results, beside those of other gateways measured in the same way."""

from collections.abc import Sequence

from tests.load.scenarios import Result

# CPU microseconds per unary request, per burst event, per paced event.
OTHERS = {
    "TensorZero (Rust)": {"unary": 230, "burst": 20, "paced": 66},
    "Portkey (Node)": {"unary": 1315, "burst": 29, "paced": 154},
    "LiteLLM (Python)": {"unary": 9790, "burst": 805, "paced": 930},
}
_WIDTHS = {
    "scenario": 9,
    "protocol": 9,
    "sessions": 9,
    "cpu-µs": 8,
    "/floor": 7,
    "floor-µs": 9,
    "1-client": 9,
    "upstream": 9,
    "by-role": 44,
    "+p50-ms": 8,
    "+p99-ms": 8,
    "calls/s": 8,
    "errors": 7,
    "yard-µs": 7,
}


def table(results: Sequence[Result]) -> str:
    """Returns the table: a line for each result of this run, then those of others."""
    lines = [_line(tuple(_WIDTHS)), *(_line(_cells(result)) for result in results), ""]
    for name, figures in OTHERS.items():
        lines.append(
            f"{name}: {figures['unary']} µs a request, {figures['burst']} a burst event, {figures['paced']} a paced one"
        )
    return "\n".join(lines)


def _cells(result: Result) -> tuple[object, ...]:
    """Returns the cells of a result."""
    roles = ", ".join(f"{role} {value}" for role, value in result.cpu_us_by_role.items())
    added = [result.added_ms_p50, result.added_ms_p99]
    name = (result.scenario, result.protocol, result.sessions)
    floor = (result.times_floor, result.floor["cpu_us"]) if result.floor else ("", "")
    costs = (result.cpu_us, *floor, result.cpu_us_one_client, result.upstream_cpu_us, roles)
    return (*name, *costs, *added, result.calls_per_second, result.errors, result.yardstick_us)


def _line(cells: Sequence[object]) -> str:
    """Formats cells as a line."""
    return " ".join(f"{cell!s:<{width}}" for cell, width in zip(cells, _WIDTHS.values(), strict=True)).rstrip()
