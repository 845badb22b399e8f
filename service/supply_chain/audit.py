"""Checks the lock files against published advisories: `python -m supply_chain.audit`.

Python's packages are looked up by pip-audit in a database with the API of OSV, Node's packages by `npm audit`. The exit
status tells the results apart:

    0  every lock file was checked, and no package has an advisory
    1  a package has an advisory
    3  a lock file could not be checked, for example because the advisories could not be reached
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OSV_URL = "https://api.osv.dev/v1/query"
VULNERABLE, NOT_CHECKED = 1, 3
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Report:
    """The result for one lock file.

    Attributes:
        packages: The number of packages that were checked.
        advisories: One line for each advisory.
        failure: Why the file could not be checked; None if it was.
    """

    packages: int = 0
    advisories: Sequence[str] = ()
    failure: str | None = None


def audit_python(lock: Path, osv_url: str) -> Report:
    """Checks a file of hashed requirements with pip-audit."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "audit.json"
        options = ["--strict", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--cache-dir", folder]
        source = ["--vulnerability-service", "osv", "--osv-url", osv_url]
        done = _run(
            [sys.executable, "-m", "pip_audit", *options, *source, "-f", "json", "-o", str(result), "-r", str(lock)]
        )
        if not result.exists():  # pip-audit exits with 1 for advisories and for errors, but writes only results
            return Report(failure=_last_line(done))
        dependencies = json.loads(result.read_bytes())["dependencies"]
    return Report(len(dependencies), [line for dependency in dependencies for line in _python_lines(dependency)])


def audit_node(lock: Path) -> Report:
    """Checks a `package-lock.json` with npm."""
    if shutil.which("npm") is None:
        return Report(failure="npm is not installed")
    done = _run(["npm", "audit", "--package-lock-only", "--json", "--fetch-retries=0"], lock.parent)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return Report(failure=_last_line(done))
    if "vulnerabilities" not in result:
        return Report(failure=result.get("message") or _last_line(done))
    lines = [_node_line(found) for found in result["vulnerabilities"].values()]
    return Report(result["metadata"]["dependencies"]["total"], lines)


def lock_files(root: Path) -> list[Path]:
    """Returns the lock files that are under version control below `root`."""
    patterns = ["*requirements.lock", "*package-lock.json"]
    listed = subprocess.run(  # noqa: S603 - constant arguments
        ["git", "-C", str(root), "ls-files", "--", *patterns],  # noqa: S607 - git is on the path
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [root / name for name in listed.stdout.splitlines()]


def exit_status(reports: Iterable[tuple[Path, Report]]) -> int:
    """Prints each report and returns the exit status."""
    statuses = {0}
    for lock, report in reports:
        name = lock.relative_to(_ROOT) if lock.is_relative_to(_ROOT) else lock
        if report.failure is not None:
            statuses.add(NOT_CHECKED)
            print(f"{name}: NOT CHECKED: {report.failure}", file=sys.stderr)
            continue
        print(f"{name}: {report.packages} packages, {len(report.advisories)} advisories")
        for line in report.advisories:
            statuses.add(VULNERABLE)
            print(f"  {line}")
    if NOT_CHECKED in statuses:
        print("The audit is incomplete. Run it where the advisories can be reached.", file=sys.stderr)
    return VULNERABLE if VULNERABLE in statuses else max(statuses)


def main() -> int:
    """Checks the lock files that are named, or all of the repository."""
    parser = argparse.ArgumentParser(prog="supply_chain.audit", description=__doc__.splitlines()[0])
    parser.add_argument(
        "locks", nargs="*", type=Path, metavar="LOCK", help="lock files; all of the repository by default"
    )
    parser.add_argument("--osv-url", default=OSV_URL, help="the query URL of a database with the API of OSV")
    options = parser.parse_args()
    locks = [lock.resolve() for lock in options.locks] or lock_files(_ROOT)
    return exit_status(
        (lock, audit_node(lock) if lock.suffix == ".json" else audit_python(lock, options.osv_url)) for lock in locks
    )


def _run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "1000"}  # one line for each error
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)  # noqa: S603


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"no reason was given (exit {done.returncode})"


def _python_lines(dependency: dict[str, Any]) -> list[str]:
    return [
        f"{dependency['name']} {dependency['version']}: {advisory['id']},"
        f" fixed in {', '.join(advisory['fix_versions']) or 'no version yet'}"
        for advisory in dependency["vulns"]
    ]


def _node_line(found: dict[str, Any]) -> str:
    advisories = [via["url"] if isinstance(via, dict) else f"by {via}" for via in found["via"]]
    return f"{found['name']} {found['range']}".rstrip() + f": {found['severity']} ({', '.join(advisories)})"


if __name__ == "__main__":
    sys.exit(main())
