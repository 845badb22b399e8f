"""The dashboard and the alerts against a running Parley, which a real Prometheus scrapes."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import Parley, run_here, started, until
from tests.prometheus import RULES, Prometheus, queries, scraping
from tests.upstream import Json, ScriptedUpstream

WINDOW = "30s"
CONFIG = """\
backends:
  up: {{kind: openai, base_url: "{url}", api_keys: [first, second]}}
  wrong-key: {{kind: openai, base_url: "{refusing}"}}
models:
  - id: scripted
    targets: [{{backend: up, max_concurrent: 8}}]
  - {{id: front, targets: [{{backend: wrong-key}}], fallbacks: [scripted]}}
  - {{id: cached, targets: [{{backend: up, max_concurrent: 8}}], cache: {{any_temperature: true}}}}
guards: {{words: {{patterns: ["Hel+o"]}}}}
default_guards: [words]
default_model: scripted
prices: {{up: {{prompt: 1, completion: 2}}}}
"""
OF_PROMETHEUS = {"ALERTS", "up"}
"""Series that Prometheus adds itself."""
OF_TARGETS = {"namespace", "job", "instance"}
"""Labels that Prometheus adds to each series, in Kubernetes at least."""


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with a target that answers and one that does not. Its heap is small, so that its use is above 0 %."""
    the_upstream.reset()
    folder = tmp_path_factory.mktemp("monitoring")
    with ScriptedUpstream() as refusing:
        refusing.default = Json({"error": {"message": "wrong key"}}, status=401)
        (folder / "parley.yaml").write_text(CONFIG.format(url=the_upstream.url, refusing=refusing.url))
        with started("--config", str(folder / "parley.yaml"), "--max-heap", "160MiB", folder=folder) as running:
            yield running


@pytest.fixture(scope="module")
def prometheus(parley: Parley, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with calls of all kinds between its scrapes."""
    made = run_here("keys", "create", "--name", "limited", "--json", "--limit", "requests_per_minute=1",
                    "--state-dir", str(parley.folder / "state"))  # fmt: skip
    limited = json.loads(made.stdout)["key"]
    call_all(parley, limited)
    with scraping(parley.metrics, tmp_path_factory.mktemp("prometheus")) as running:
        until(lambda: running.query("parley_calls_total"), "a scrape")
        call_all(parley, limited)
        until(lambda: running.query("sum(rate(parley_calls_total[1m])) > 0"), "a scrape after the calls")
        yield running


def call_all(parley: Parley, limited: str) -> None:
    """Makes calls of which every panel shows something: answers, streams, a fallback, errors, a replay, a rejection."""
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
    path = "/v1/chat/completions"
    for fields in ({}, {"model": "front"}, {"model": "cached"}, {"model": "unknown"}):
        parley.request("POST", path, question | fields)
    for _ in range(2):
        with parley.connection() as connection:
            headers = parley.headers() | {"Idempotency-Key": "again"}
            connection.request("POST", path, json.dumps(question), headers)
            assert 200 == connection.getresponse().status
    with parley.connection() as connection:
        connection.request("POST", path, json.dumps(question | {"stream": True}), parley.headers())
        assert b"[DONE]" in connection.getresponse().read()
    for _ in range(2):
        parley.request("GET", "/v1/models", key=limited)


def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    """Each query of each panel finds series of a live system, with every label that its legend shows."""
    for title, targets in queries(WINDOW).items():
        for expression, legend in targets:
            until(partial(prometheus.query, expression), f"{title}: {expression}")
            found = prometheus.query(expression)
            for label in set(re.findall(r"{{(\w+)}}", legend)):
                assert any(one["metric"].get(label) for one in found), (title, expression, label)


def test_every_selector_of_the_alerts_matches_a_scrape(parley: Parley, prometheus: Prometheus) -> None:
    """Each metric of the rules is in a scrape or recorded, and has the labels that select, group and describe it."""
    assert prometheus.query("up")
    rules = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    labels: dict[str, set[str]] = {name: set() for name in OF_PROMETHEUS}
    labels |= {rule["record"]: grouped(rule["expr"]) for rule in rules if "record" in rule}
    for family in text_string_to_metric_families(parley.scrape()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for rule in rules:
        for name, matchers in selectors(rule["expr"]):
            assert name in labels, rule
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) | grouped(rule["expr"])
            used |= set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations"))))
            assert used <= labels[name] | OF_TARGETS, (name, used)


def grouped(expression: str) -> set[str]:
    """Returns the labels by which an expression groups."""
    return {label for listed in re.findall(r"\bby \(([^)]*)\)", expression) for label in listed.split(", ")}


def selectors(expression: str) -> list[tuple[str, str]]:
    """Returns the metrics of an expression, each with its matchers."""
    without_labels = re.sub(r"\b(?:by|on|ignoring) \([^)]*\)", "", expression)
    names = r"\b((?:parley|gen_ai|envoy|process|python|job|instance)_?\w*(?::\w+)*|up)\b(?!\()(?:{([^}]*)})?"
    quoted = re.compile(r'"[^"]*"')
    return [
        (name, quoted.sub('""', matchers))
        for name, matchers in re.findall(names, without_labels)
        if ":" in name or "_" in name or name == "up"
    ]
