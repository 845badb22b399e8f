"""A real Prometheus, Debian's package, which scrapes a Parley every second.

with scraping(parley.metrics, folder) as prometheus:
    until(lambda: prometheus.query("up"), "a scrape")
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

from tests.processes import PATIENCE, reserved_port, until

EDGE = Path(__file__).parents[1] / "edge"
RULES = EDGE / "prometheus" / "rules.yml"
DASHBOARD = EDGE / "grafana" / "parley.json"


@dataclass
class Prometheus:
    """A running Prometheus at `url`."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the elements of an instant vector."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        """Returns the names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self.api("alerts")["alerts"] if one["state"] == "firing"}

    def api(self, path: str, **parameters: str) -> Any:
        """Returns the data of an answer of the HTTP API."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=PATIENCE) as response:
            return json.loads(response.read())["data"]


@contextmanager
def scraping(metrics: str, folder: Path, rules: str | None = None) -> Iterator[Prometheus]:
    """Runs a Prometheus with the job `parley`.

    Args:
        metrics: The address of Parley's metrics.
        folder: Where its files are written.
        rules: The text of a file with rules, evaluated every second.
    """
    job = {"job_name": "parley", "static_configs": [{"targets": [urlsplit(metrics).netloc]}]}
    config: dict[str, Any] = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": [job]}
    if rules is not None:
        (folder / "rules.yml").write_text(rules)
        config["rule_files"] = ["rules.yml"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    running = Prometheus(f"http://127.0.0.1:{reserved_port()}")
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    options += [f"--web.listen-address={urlsplit(running.url).netloc}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or _is_ready(running.url), "Prometheus is ready")
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield running
    finally:
        process.kill()
        process.wait(PATIENCE)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=PATIENCE):
            return True
    except OSError:
        return False


def program(name: str) -> str:
    """Finds a program of Debian's package prometheus. Skips the test without it, except in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed; Debian has it in the package prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def queries(window: str) -> dict[str, list[tuple[str, str]]]:
    """Returns the queries of the dashboard, without its variables, and the legend of each, by the title of the panel.

    Args:
        window: Replaces `$__rate_interval`.
    """
    panels = [one for one in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if one["type"] != "row"]
    return {
        panel["title"]: [(bound(one["expr"], window), one["legendFormat"]) for one in panel["targets"]]
        for panel in panels
    }


def bound(expression: str, window: str) -> str:
    """Returns an expression of the dashboard with the values of its variables."""
    values = {"$__rate_interval": window, "$job": "parley", "$instance": ".*", "$model": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression
