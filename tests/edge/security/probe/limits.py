"""Limits at full size: 32 clients against each kind of limit, with four workers for each Parley.

SQLite has one Parley, PostgreSQL two. The tests of `make test` are the same with fewer workers.
"""

import os
import subprocess
import sys
from pathlib import Path

NAME = "limits"
WORKERS = 4
_ROOT = Path(__file__).parents[4]
_TESTS = "tests/e2e/test_shared_limits.py"


def are_kept() -> bool:
    """Runs the tests, with their progress on stderr; returns whether every limit holds."""
    command = [sys.executable, "-m", "pytest", "-vv", "--tb=short", _TESTS]
    done = subprocess.run(
        command, cwd=_ROOT, env=os.environ | {"PARLEY_LIMIT_WORKERS": str(WORKERS)}, stdout=sys.stderr, check=False
    )
    return done.returncode == 0
