"""`make alerts`: causes each fault in a running Parley, and waits until its alert fires and clears.

The rules are those of edge/prometheus/rules.yml with shorter times: an alert waits for 2 seconds, and windows of 5 and
15 minutes have 15 seconds and 2 minutes. Two thresholds are lower, because the drill does not fill memory: 120 MB for a
worker, 30 % for Envoy's heap.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.alerts.certificate import secured
from tests.alerts.faults import FAULTS
from tests.alerts.site import Site
from tests.prometheus import RULES, Prometheus

_SHORTER = (
    (r"\bfor: \w+", "for: 2s"),
    (r"\[5m\]", "[15s]"),
    (r"\[15m\]", "[2m]"),
    (r"> 1e9", "> 1.2e8"),
    (r"_pressure > 75", "_pressure > 30"),
)
_PATIENCE = 180  # seconds; an alert on a counter clears with its window
CERTIFICATE = "ParleyCertificateExpires"


def main() -> int:
    """Runs the drill; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.alerts", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*FAULTS, CERTIFICATE], help="an alert; repeatable")
    chosen = parser.parse_args().only or [*FAULTS, CERTIFICATE]
    _write(f"{'alert':<30} {'fires':>7} {'clears':>7}  fault")
    with tempfile.TemporaryDirectory(prefix="parley-alerts-") as folder, Site(Path(folder), rules()) as site:
        for name in (name for name in chosen if name in FAULTS):
            _drill(name, FAULTS[name].description, site.prometheus, FAULTS[name].cause(site))
    if CERTIFICATE in chosen:
        with (
            tempfile.TemporaryDirectory(prefix="parley-alerts-") as folder,
            secured(Path(folder), rules()) as (prometheus, renew),
        ):
            _drill(CERTIFICATE, "a certificate expires in 5 days, and is renewed", prometheus, _until_renewed(renew))
    return 0


@contextmanager
def _until_renewed(renew: Callable[[], None]) -> Iterator[None]:
    yield
    renew()


def rules() -> str:
    """Returns the rules with shorter times."""
    text = RULES.read_text(encoding="utf-8")
    for pattern, shorter in _SHORTER:
        text, count = re.subn(pattern, shorter, text)
        assert count, pattern
    return text


def _drill(name: str, description: str, prometheus: Prometheus, fault: AbstractContextManager[None]) -> None:
    """Causes one fault, waits for its alert, ends the fault, and waits until the alert has cleared."""
    _wait(lambda: name not in prometheus.firing(), f"{name} is silent")
    began = time.monotonic()
    with fault:
        _wait(lambda: name in prometheus.firing(), f"{name} fires")
        fired = time.monotonic()
    _wait(lambda: name not in prometheus.firing(), f"{name} clears")
    _write(f"{name:<30} {fired - began:5.0f} s {time.monotonic() - fired:5.0f} s  {description}")


def _wait(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_PATIENCE} s in vain: {what}")
        time.sleep(0.2)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
