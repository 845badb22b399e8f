"""Checks the Helm chart, or writes the table of its values: `python -m tests.kubernetes [write]`."""

import importlib.util
import sys

from tests.kubernetes import chart


def main() -> int:
    """Runs the command. Returns the exit code."""
    page = chart.README.read_text(encoding="utf-8")
    expected = chart.readme(page)
    if sys.argv[1:] == ["write"]:
        chart.README.write_text(expected, encoding="utf-8")
        return 0
    if importlib.util.find_spec("helm_python") is None:
        sys.stdout.write("Helm chart: skipped, helm-python-sdk has no wheel for this machine\n")
        return 0
    found = [problem for example in chart.EXAMPLES for problem in chart.problems(example)]
    if page != expected:
        found.append(f"{chart.README} is stale: run 'make gen' and commit the changes")
    (sys.stderr if found else sys.stdout).write("".join(f"{line}\n" for line in found or [_passed()]))
    return min(len(found), 1)


def _passed() -> str:
    names = ", ".join(example.stem for example in chart.EXAMPLES)
    return f"Helm chart: linted, rendered and compared with Kubernetes' schemas: {names}"


if __name__ == "__main__":
    sys.exit(main())
