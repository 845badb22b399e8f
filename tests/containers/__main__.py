"""Checks the Containerfile and the composition: `python -m tests.containers`."""

import sys

from tests.containers import checks


def main() -> int:
    """Runs the command. Returns the exit code."""
    if not (checks.installed("hadolint") and checks.installed("docker-compose")):
        sys.stdout.write("Containers: skipped, hadolint and Docker Compose have no wheels for this machine\n")
        return 0
    found = list(checks.problems())
    passed = "Containers: Containerfile checked by hadolint, compose.yaml by Docker Compose"
    (sys.stderr if found else sys.stdout).write("".join(f"{line}\n" for line in found or [passed]))
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
