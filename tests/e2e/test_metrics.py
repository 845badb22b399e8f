"""The metrics of a running Parley: real scrapes, read by Prometheus' own parsers."""

import os
import signal
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import write_config
from tests.processes import Parley, started, until
from tests.upstream import ScriptedUpstream

Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with two workers and the model `scripted`."""
    the_upstream.reset()
    folder = tmp_path_factory.mktemp("metrics")
    with started("--config", str(write_config(folder, the_upstream)), "--workers", "2", folder=folder) as running:
        yield running


def total(parley: Parley, name: str, **labels: str) -> float:
    """Returns the sum of a scrape's samples with this name and these labels."""
    wanted = labels.items()
    families = text_string_to_metric_families(parley.scrape())
    samples = (sample for family in families for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items())


def test_each_call_is_counted_once_by_rpc_dialect_model_status_and_reason(parley: Parley) -> None:
    """One scrape has the calls of all workers, whose labels are bounded: an unknown model is empty."""
    call = {"rpc": "CreateChatCompletionJson", "dialect": "openai"}
    answered = {**call, "model": "scripted", "status": "OK", "reason": ""}
    before = total(parley, "parley_calls_total", **answered)
    for _ in range(6):
        parley.chat("Hello")
    status, _ = parley.request(
        "POST", "/v1/chat/completions", {"model": "x" * 50, "messages": [{"role": "user", "content": "Hello"}]}
    )
    assert 404 == status
    assert before + 6 == total(parley, "parley_calls_total", **answered)
    rejected = {**call, "model": "", "status": "NOT_FOUND", "reason": "MODEL_NOT_FOUND"}
    assert 1 == total(parley, "parley_calls_total", **rejected)
    assert before + 6 == total(parley, "gen_ai_server_request_duration_seconds_count", error_type="")
    assert before + 6 == total(parley, "parley_attempts_total", target="up", kind="first", outcome="completed")
    assert "x" * 50 not in parley.scrape()


def test_a_scrape_has_each_worker_and_envoy(parley: Parley) -> None:
    """Each worker's samples have its number as the label `worker`; Envoy's statistics keep their names."""
    assert 1 == total(parley, "parley_build_info", worker="1")
    assert 1 == total(parley, "parley_build_info", worker="2")
    parley.models()
    assert 0 < total(parley, "envoy_http_downstream_rq_total", envoy_http_conn_manager_prefix="http")


def test_a_replaced_worker_begins_anew_under_the_same_number(parley: Parley) -> None:
    """The label `worker` is the number of a worker, which its replacement keeps."""
    killed = parley.workers()[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in parley.workers() and len(parley.workers()) == 2, "another worker")
    until(lambda: total(parley, "parley_build_info") == 2, "the metrics of both workers")
    assert 1 == total(parley, "parley_build_info", worker="1")
    assert 1 == total(parley, "parley_build_info", worker="2")
