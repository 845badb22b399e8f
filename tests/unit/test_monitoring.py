"""The alerts and the dashboard as files: their tests with promtool, their paragraphs in the runbook, their schemas."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from grpc import StatusCode

from parley.rpc.error_catalogue import SERVICE, reason_name
from parley.v1.error_reason_pb2 import ErrorReason
from tests.alerts.__main__ import CERTIFICATE, rules
from tests.alerts.faults import FAULTS
from tests.prometheus import DASHBOARD, EDGE, RULES, program, queries

FOLDER = RULES.parent
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
RUNBOOK = (EDGE.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
PARAGRAPHS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def promtool(*arguments: str) -> str:
    """Returns the output of a successful command of promtool."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration() -> None:
    """The configuration and its rules are valid."""
    assert "SUCCESS" in promtool("check", "config", str(FOLDER / "prometheus.yml"))


def test_the_unit_tests_of_the_alerts_pass() -> None:
    """Promtool's own tests of the rules pass."""
    assert "SUCCESS" in promtool("test", "rules", str(FOLDER / "rules_test.yml"))


def test_each_alert_has_a_unit_test_in_which_it_fires_and_is_silent() -> None:
    """For each alert there is a time at which it fires, one before it and one after it."""
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    fires: dict[str, list[bool]] = {}
    for case in (case for test in tests for case in test["alert_rule_test"]):
        fires.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
    assert {alert["alert"]: [False, True, False] for alert in ALERTS} == fires


def test_each_alert_has_a_severity_a_summary_and_a_paragraph_in_the_runbook() -> None:
    """The link of an alert leads to its own heading, below which there are causes or panels, and what to do."""
    assert {alert["alert"] for alert in ALERTS} == PARAGRAPHS.keys()
    for alert in ALERTS:
        name, annotations = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert annotations["summary"]
        assert f"docs/runbook.md#{name.lower()}" == annotations["runbook_url"]
        assert {"Look at", "Do"} <= set(re.findall(r"^- ([\w ]+):", PARAGRAPHS[name], re.MULTILINE)), name


def test_the_drill_has_a_fault_for_each_alert() -> None:
    """`make alerts` causes each alert; the runbook has its transcript, in which each of them fired and cleared."""
    drilled = [*FAULTS, CERTIFICATE]
    assert {alert["alert"] for alert in ALERTS} == set(drilled)
    assert drilled == re.findall(r"^(Parley\w+) +\d+ s +\d+ s  \w", RUNBOOK, re.MULTILINE)
    assert rules() != RULES.read_text(encoding="utf-8")


def test_the_runbook_names_panels_of_the_dashboard() -> None:
    """Each panel that a paragraph names is in the dashboard."""
    listed = re.findall(r"panels? ((?:\"[^\"]+\"(?:, | and )?)+)", re.sub(r"\s+", " ", RUNBOOK))
    named = {name for names in listed for name in re.findall(r'"([^"]+)"', names)}
    assert len(named) > 10
    assert named <= queries("1m").keys()


def test_the_reasons_of_the_rules_and_the_runbook_exist() -> None:
    """Each reason by which a rule selects calls is one of the API, and the runbook explains it."""
    selected = set(re.findall(r"[A-Z]+(?:_[A-Z]+)*", " ".join(re.findall(r'reason=~?"([^"]+)"', RULES.read_text()))))
    assert selected
    assert {f"ERROR_REASON_{name}" for name in selected} <= set(ErrorReason.keys())
    assert selected <= set(re.findall(r"`(\w+)`", RUNBOOK))


def test_the_alert_on_failed_calls_counts_every_reason_that_is_not_the_callers() -> None:
    """It counts each reason that the service has for UNAVAILABLE and INTERNAL, and the runbook lists what it counts."""
    [counting] = [rule for rule in GROUPS[0]["rules"] if rule["record"].startswith("job:parley_call_failures:")]
    counted = set(re.findall(r'reason=~"([^"]+)"', counting["expr"])[0].split("|"))
    of_service = {StatusCode.UNAVAILABLE, StatusCode.INTERNAL}
    assert {reason_name(reason) for reason, error in SERVICE.items() if error.grpc_status in of_service} <= counted
    rows = re.findall(r"^\| (`\w+`.*?) \|", PARAGRAPHS["ParleyCallsFail"], re.MULTILINE)
    assert counted == set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_the_dashboard_has_the_schema_of_grafana() -> None:
    """Grafana's own models read the dashboard and write all of it again, with defaults: no field is unknown to them."""
    register_default_plugins()
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert [] == list(lost(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))))


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yields the paths of what differs or is missing afterwards."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from lost(value, after.get(name, "missing"), f"{path}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


def test_the_panels_of_the_dashboard_fit_its_grid() -> None:
    """Panels have ids, titles and descriptions of their own, and overlap nowhere on the grid of 24 columns."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len(panels) == len({one["id"] for one in panels})
    assert len(queries("1m")) == len([one for one in panels if one["type"] != "row"])
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, one["title"]
        assert place["x"] + place["w"] <= 24, one["title"]
        taken |= cells
        assert one["type"] == "row" or one["description"], one["title"]


def test_promtool_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """Each query is PromQL, and uses only variables that the dashboard defines."""
    expressions = [expression for targets in queries("1m").values() for expression, _ in targets]
    assert not [one for one in expressions if "$" in one]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", str(tmp_path / "panels.yml"))


@pytest.mark.parametrize("file", sorted((EDGE / "grafana" / "provisioning").glob("*/*.yaml")), ids=lambda it: it.stem)
def test_the_provisioning_is_that_of_grafana(file: Path) -> None:
    """Each file has the version of the format and one entry."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    kind = {"datasources": "datasources", "dashboards": "providers"}[file.parent.name]
    assert 1 == content["apiVersion"]
    assert ["prometheus" if kind == "datasources" else "file"] == [one["type"] for one in content[kind]]
