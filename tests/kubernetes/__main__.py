"""Checks the Helm chart, or writes its table of values and its copies: `python -m tests.kubernetes [write]`."""

import importlib.util
import sys

from tests.kubernetes import chart


def main() -> int:
    """Runs the command. Returns the exit code."""
    page = chart.README.read_text(encoding="utf-8")
    expected = chart.readme(page)
    if sys.argv[1:] == ["write"]:
        chart.README.write_text(expected, encoding="utf-8")
        for copy, source in chart.COPIES.items():
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(source.read_bytes())
        return 0
    if importlib.util.find_spec("helm_python") is None:
        sys.stdout.write("Helm chart: skipped, helm-python-sdk has no wheel for this machine\n")
        return 0
    found = [problem for example in chart.EXAMPLES for problem in chart.problems(example)]
    stale = [copy for copy, source in chart.COPIES.items() if copy.read_bytes() != source.read_bytes()]
    stale += [chart.README] if page != expected else []
    found += [f"{file} is stale: run 'make gen' and commit the changes" for file in stale]
    (sys.stderr if found else sys.stdout).write("".join(f"{line}\n" for line in found or [_passed()]))
    return min(len(found), 1)


def _passed() -> str:
    names = ", ".join(example.stem for example in chart.EXAMPLES)
    return f"Helm chart: linted, rendered and compared with Kubernetes' schemas: {names}"


if __name__ == "__main__":
    sys.exit(main())
