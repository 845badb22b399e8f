"""The metrics of a running Parley: real scrapes, read by Prometheus' own parsers."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import write_config
from tests.processes import ANY_PORTS, PATIENCE, Parley, run, run_here, started, until
from tests.upstream import Json, ScriptedUpstream

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with two workers and the model `scripted`."""
    the_upstream.reset()
    folder = tmp_path_factory.mktemp("metrics")
    config = write_config(folder, the_upstream)
    config.write_text(config.read_text().replace("{kind: openai,", "{kind: openai, api_keys: [key-1, key-2],"))
    with started("--config", str(config), "--workers", "2", folder=folder) as running:
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


def test_a_key_without_quota_is_left_out(
    parley: Parley, the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The call goes on with the other key; the metrics and the targets show the key that is left out."""
    assert 0 == total(parley, "parley_backend_keys", backend="up", state="left_out")
    the_upstream.answer(Json({"error": {"message": "used up", "code": "insufficient_quota"}}, 429))
    assert "Hello there." == parley.chat("Hello")
    assert 1 == total(parley, "parley_backend_keys", backend="up", state="left_out")
    assert 3 == total(parley, "parley_backend_keys", backend="up", state="working")
    assert "1/2 keys left out" in run_here("targets", "--state-dir", str(parley.folder / "state")).stdout


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


def test_the_page_lists_exactly_the_metrics_of_a_scrape(parley: Parley) -> None:
    """Each metric of docs/metrics.md is in a scrape, with its type and its labels, and the other way around."""
    parley.chat("Hello", model="scripted")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    families = [
        family
        for family in text_string_to_metric_families(parley.scrape())
        if not family.name.startswith(("envoy_", "process_", "python_"))
    ]
    assert {name: kind for name, (kind, _) in documented.items()} == {each.name: each.type for each in families}
    for family in families:
        for sample in family.samples:
            assert documented[family.name][1] == sample.labels.keys() - {"worker", "le"}, family.name


def test_promtool_accepts_a_scrape(parley: Parley) -> None:
    """Prometheus' own checker can read the text, Envoy's part included, and finds each family once."""
    parley.chat("Hello", model="scripted")
    text = parley.scrape()
    types = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert sorted(set(types)) == sorted(types)
    promtool = shutil.which("promtool")
    if promtool is None:
        assert "CI" not in os.environ, "promtool is missing; install the Debian package prometheus"
        pytest.skip("needs promtool of Debian's package prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert "error while linting" not in done.stderr, done.stderr


def test_other_paths_and_methods_have_no_metrics(parley: Parley) -> None:
    """Only GET and HEAD of /metrics are answered with metrics."""
    connection = HTTPConnection(urlsplit(parley.metrics).netloc, timeout=PATIENCE)
    for method, path, expected in (
        ("GET", "/", 404),
        ("POST", "/metrics", 405),
        ("HEAD", "/metrics?x=1", 200),
        ("GET", "/readyz", 200),
    ):
        connection.request(method, path)
        response = connection.getresponse()
        assert (expected, response.will_close) == (response.status, True), (method, path)
        response.read()
        connection.close()


def test_an_address_that_is_given_must_be_free(scripted_config: Path, tmp_path: Path) -> None:
    """`--metrics` with an address in use ends the start with one line that names the option."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        more = ("--config", str(scripted_config), "--state-dir", str(tmp_path / "state"), "--metrics", address)
        done = run("up", *ANY_PORTS, *more)
    assert 1 == done.returncode
    assert f"{address} is in use; stop what uses it or choose another with --metrics" in done.stderr
