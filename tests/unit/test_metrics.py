"""The counters and histograms of calls."""

from prometheus_client import generate_latest

from parley.config import Timeouts
from parley.config.loader import parse
from parley.core.call import CallOutcome
from parley.core.errors import RateLimited
from parley.core.ports import UpstreamCall
from parley.core.usage.attempts import AttemptKind, AttemptRecord
from parley.metrics.calls import DIALECTS, CallMetrics
from parley.metrics.prometheus import (
    Collector,
    CollectorRegistry,
    GaugeMetricFamily,
    GCCollector,
    Metric,
    ProcessCollector,
    text_of,
)
from parley.metrics.runtime import Losses
from parley.metrics.series import MAX_COUNTERS, Counter, Histogram
from parley.metrics.worker import WorkerMetrics
from parley.supervisor import edge_settings
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Usage


def test_the_dialects_are_those_of_the_edge() -> None:
    """Each dialect of the edge is a value of the label."""
    assert set(edge_settings.DIALECTS) == DIALECTS


def test_a_family_has_a_bounded_number_of_label_sets() -> None:
    """Label sets beyond the limit share one, whose values are `other`."""
    counter = Counter("x", "X.", ("model",))
    for number in range(MAX_COUNTERS + 10):
        counter.series(str(number))[0] += 1
    (family,) = counter.collect()
    values = {sample.labels["model"]: sample.value for sample in family.samples}
    assert MAX_COUNTERS + 1 == len(values)
    assert 10 == values["other"]


def test_a_scrape_of_ten_thousand_models_is_bounded() -> None:
    """10,000 models with calls have no more samples than 2,000; calls beyond the limit still count."""
    metrics, samples = CallMetrics({}), []
    for number in range(10_000):
        call = UpstreamCall(CreateChatCompletionRequest(), "", Timeouts())
        attempt = AttemptRecord(f"m{number}", "b", f"t{number}", None, call, AttemptKind.FIRST, 0.0, usage=Usage())
        outcome = CallOutcome(model_id=f"m{number}", attempts=[attempt])
        metrics.observe("StreamChatCompletion", None, "OK", None, outcome, 0.1)
        if number in {1_999, 9_999}:
            samples.append([sample for family in metrics.collect() for sample in family.samples])
    few, all_of_them = samples
    assert len(few) == len(all_of_them)
    counts = [sample.value for sample in all_of_them if sample.name == "parley_attempts_total"]
    assert (MAX_COUNTERS + 1, 10_000) == (len(counts), sum(counts))


def test_the_names_of_a_wildcard_have_its_label() -> None:
    """Callers choose the names: they add no series."""
    metrics = CallMetrics({"b": "openai"})
    for number in range(3):
        call = UpstreamCall(CreateChatCompletionRequest(), "", Timeouts())
        attempt = AttemptRecord(
            f"b/t{number}", "b", f"t{number}", None, call, AttemptKind.FIRST, 0.0, usage=Usage(), first_token=0.1
        )
        attempt.model_label, attempt.target_label = "b/*", "b/*"
        metrics.observe("CreateChatCompletion", None, "OK", None, CallOutcome(model_id="b/*", attempts=[attempt]), 0.1)
    labels = [sample.labels for family in metrics.collect() for sample in family.samples]
    named = {
        labels[name] for labels in labels for name in ("model", "gen_ai_request_model", "target") if name in labels
    }
    assert {"b/*"} == named
    counts = [sample.value for family in metrics.attempts.collect() for sample in family.samples]
    assert 3 in counts


def test_buckets_are_cumulative() -> None:
    """A bucket counts the values up to its bound, the bound included."""
    histogram = Histogram("x", "X.", (1, 2))
    for value in (0.5, 1, 1.5, 3):
        histogram.add(value)
    (family,) = histogram.collect()
    values = [sample.value for sample in family.samples]
    assert [2, 3, 4, 4, 6] == values


def test_a_dialect_of_a_caller_without_an_edge_is_no_label() -> None:
    """Metadata that names no dialect of the edge counts as gRPC."""
    metrics = CallMetrics({})
    metrics.observe("ListModels", "made up", "OK", None, CallOutcome(), 0.1)
    text = [sample.labels for family in metrics.calls.collect() for sample in family.samples]
    assert [{"rpc": "ListModels", "dialect": "grpc", "model": "", "status": "OK", "reason": ""}] == text


def test_a_rejected_call_counts_under_its_limit_and_what_is_limited() -> None:
    """The subject is the kind of what is limited, never its name."""
    metrics = CallMetrics({})
    for subject in ("key:key_1", "account:ada", ""):
        error = RateLimited("slow down", 3, subject=subject, limit="requests_per_minute")
        metrics.observe("ListModels", None, "RESOURCE_EXHAUSTED", error, CallOutcome(), 0.1)
    found = {sample.labels["subject"]: sample.value for each in metrics.rejections.collect() for sample in each.samples}
    assert {"key": 1, "account": 1, "address": 1} == found


def test_the_text_is_that_of_prometheus_client() -> None:
    """The metrics have the same text as from the library, whose servers a worker does not import."""
    calls = CallMetrics({"b": "openai"})
    calls.observe("CreateChatCompletion", None, "OK", None, CallOutcome(model_id="m"), 0.1)
    gauge = GaugeMetricFamily("a", 'A "b"\\\n', labels=["z", "name"])
    gauge.add_metric(['"quoted"', "back\\slash\nline"], float("inf"))
    found = [*calls.collect(), *GCCollector(CollectorRegistry()).collect(), *ProcessCollector(registry=None).collect()]

    class Fixed(Collector):
        def collect(self) -> list[Metric]:
            return [*found, gauge]

    assert generate_latest(Fixed()).decode() == text_of(Fixed()).decode()


def test_a_guard_that_may_fail_open_has_its_series_at_the_start() -> None:
    """Prometheus sees the rise of the first open failures only in a series that has been 0."""
    config = parse(
        "{guards: {a: {address: 'guard:1', on_failure: open}, b: {secrets: true}},"
        " backends: {u: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}},"
        " models: [{id: m, targets: [{backend: u, model: m}]}]}",
        "guards.yaml",
    )
    families = WorkerMetrics(config, set()).calls.guard_checks.collect()
    found = [(one.labels["guard"], one.labels["phase"], one.value) for family in families for one in family.samples]
    assert [("a", "before", 0), ("a", "after", 0)] == [each for each in found if each[2] == 0]


def test_each_loss_has_a_sample_of_its_own() -> None:
    """Also while nothing is lost: Prometheus sees no rise in a series that begins with 1."""
    losses = Losses(usage=lambda: 3, alerts=lambda: 2, log_lines=lambda: 0)
    found = {sample.name: sample.value for family in losses.collect() for sample in family.samples}
    names = ("parley_usage_lost_total", "parley_budget_alerts_undelivered_total", "parley_log_lines_lost_total")
    assert dict(zip(names, (3, 2, 0), strict=True)) == found
