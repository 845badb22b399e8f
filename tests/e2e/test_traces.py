"""Traces of calls through the full stack, exported to a real receiver process."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from parley.config import ConfigError
from parley.tracing import settings
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.otlp import Receiver, receiver
from tests.processes import Parley, started, until
from tests.rpc.calling import chat_request
from tests.upstream import Json, ScriptedUpstream

CONFIG = """\
backends:
  first: {{kind: openai, base_url: "{first}", api_key: "sk-upstream-secret"}}
  second: {{kind: openai, base_url: "{second}"}}
  outside: {{kind: openai, base_url: "{second}", trace_context: "off"}}
limits: {{key: {{requests_per_minute: 1000}}}}
models:
  - id: two
    targets: [{{backend: first, model: one}}]
    fallbacks: [rest]
    retries: {{attempts: 3}}
  - {{id: rest, targets: [{{backend: second, model: two}}]}}
  - {{id: outside, targets: [{{backend: outside}}]}}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
STORE = ("store begin_turn", "store end_turn", "store reserve")
QUESTION = "What is a secret?"


@dataclass
class Traced:
    """A Parley that exports traces, its two upstreams and the receiver."""

    parley: Parley
    first: ScriptedUpstream
    second: ScriptedUpstream
    receiver: Receiver

    def rest(self, trace_id: str, model: str = "two", flags: str = "01") -> str:
        """Sends a streamed call over REST whose first target fails."""
        context = {"traceparent": f"00-{trace_id}-{CALLER}-{flags}", "tracestate": "vendor=1"}
        body = chat(model)
        with self.parley.connection() as connection:
            path = "/v1/chat/completions?api_key=sk-in-the-query"
            connection.request("POST", path, body, self.parley.headers() | context)
            response = connection.getresponse()
            assert 200 == response.status
            return response.read().decode()


def chat(model: str) -> bytes:
    """Returns the body of a streamed call."""
    question = f'{{"role": "user", "content": "{QUESTION}"}}'
    return f'{{"model": "{model}", "stream": true, "temperature": 0.5, "messages": [{question}]}}'.encode()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A Parley that exports over gRPC."""
    folder = tmp_path_factory.mktemp("traces")
    with ScriptedUpstream() as first, ScriptedUpstream() as second, receiver() as endpoint:
        (folder / "parley.yaml").write_text(CONFIG.format(first=first.url, second=second.url))
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.grpc,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=abc",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SERVICE_NAME": "chat",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        with started("--config", str(folder / "parley.yaml"), folder=folder, **variables) as parley:
            yield Traced(parley, first, second, endpoint)


def check(spans: dict[str, dict[str, Any]], traced: Traced, method: str) -> None:
    """Checks the spans of a call whose first target fails."""
    named = {span["name"]: span for span in spans.values()}
    call = named[f"parley.v1.ChatCompletions/{method}"]
    edge = [span for span in spans.values() if "chat-edge" == span["resource"]["service.name"]]
    assert CALLER in {span["parent"] for span in edge}
    assert call["parent"] in {span["id"] for span in edge}
    assert ("chat", "test") == tuple(call["resource"][name] for name in ("service.name", "deployment.environment.name"))
    assert "SERVER" == call["kind"]
    assert {call["id"]} == {span["parent"] for name, span in named.items() if name.startswith(("store ", "chat "))}
    failed, answered = named["chat one"], named["chat two"]
    assert ("first", "failed") == tuple(failed["attributes"][f"parley.attempt.{name}"] for name in ("kind", "outcome"))
    assert failed["error"]
    assert failed["error"] == failed["attributes"]["error.type"]
    assert "fallback" == answered["attributes"]["parley.attempt.kind"]
    assert ("completed", "openai", "two", 0.5, "127.0.0.1") == tuple(
        answered["attributes"][name]
        for name in (
            "parley.attempt.outcome",
            "gen_ai.provider.name",
            "gen_ai.request.model",
            "gen_ai.request.temperature",
            "server.address",
        )
    )
    assert ["gen_ai.first_token"] == answered["events"]
    assert call["start"] <= failed["start"] <= failed["end"] <= answered["end"] <= call["end"]
    assert "rest" == call["attributes"]["gen_ai.response.model"]
    assert call["attributes"]["gen_ai.usage.output_tokens"] > 0
    sent = [upstream.requests[-1].headers["traceparent"] for upstream in (traced.first, traced.second)]
    assert [f"00-{span['trace']}-{span['id']}-01" for span in (failed, answered)] == sent


def test_a_streamed_call_with_a_failover_has_one_trace_over_rest(traced: Traced) -> None:
    """The spans of Envoy, the service, the store and both attempts have the caller's trace id, and no secret."""
    traced.first.answer(Json({"error": {"message": "down"}}, status=401))
    assert "[DONE]" in traced.rest(TRACE)
    method = "StreamChatCompletionEvents"
    traced.receiver.trace(TRACE, [f"parley.v1.ChatCompletions/{method}", "chat one", "chat two", *STORE])
    check_edge(traced, "chat-edge")
    spans = traced.receiver.trace(TRACE, [])
    check(spans, traced, method)
    assert "vendor=1" == traced.second.requests[-1].headers["tracestate"]
    text = str(list(spans.values()))
    for secret in (traced.parley.key, "sk-upstream-secret", "sk-in-the-query", QUESTION):
        assert secret not in text
    assert {"abc"} == {span["key"] for span in spans.values()}


def check_edge(traced: Traced, service: str, trace: str = TRACE) -> None:
    """Waits for the span of Envoy that has the caller as its parent; the other spans of Envoy end before it."""

    def found() -> bool:
        spans = [span for span in list(traced.receiver.spans) if trace == span["trace"]]
        return any(CALLER == span["parent"] and service == span["resource"]["service.name"] for span in spans)

    until(found, f"spans of Envoy in {traced.receiver.spans}")


def test_a_streamed_call_with_a_failover_has_one_trace_over_grpc(traced: Traced) -> None:
    """The spans have the caller's trace id over gRPC too."""
    trace = TRACE[::-1]
    traced.first.answer(Json({"error": {"message": "down"}}, status=401))
    metadata = (("authorization", f"Bearer {traced.parley.key}"), ("traceparent", f"00-{trace}-{CALLER}-01"))
    with grpc.insecure_channel(traced.parley.grpc) as channel:
        request = chat_request(model="two", temperature=0.5)
        list(ChatCompletionsStub(channel).StreamChatCompletion(request, metadata=metadata))
    method = "StreamChatCompletion"
    traced.receiver.trace(trace, [f"parley.v1.ChatCompletions/{method}", "chat one", "chat two", *STORE])
    check_edge(traced, "chat-edge", trace)
    check(traced.receiver.trace(trace, []), traced, method)


def test_a_trace_that_the_caller_does_not_sample_has_no_spans(traced: Traced) -> None:
    """The decision of the caller reaches the target. A backend without trace context receives no header."""
    trace = "1" * 32
    traced.rest(trace, "rest", "00")
    assert traced.second.requests[-1].headers["traceparent"].startswith(f"00-{trace}-")
    assert traced.second.requests[-1].headers["traceparent"].endswith("-00")
    sampled = "2" * 32
    traced.rest(sampled, "outside")
    assert "traceparent" not in traced.second.requests[-1].headers
    traced.receiver.trace(sampled, ["chat outside", "parley.v1.ChatCompletions/StreamChatCompletionEvents"])
    assert not [span for span in traced.receiver.spans if trace == span["trace"]]


def test_an_endpoint_that_never_answers_harms_neither_calls_nor_the_shutdown(tmp_path: Path) -> None:
    """Calls succeed, and Parley ends by itself, with exit code 0 and all processes."""
    with ScriptedUpstream() as upstream, socket.create_server(("127.0.0.1", 0)) as silent:
        (tmp_path / "parley.yaml").write_text(CONFIG.format(first=upstream.url, second=upstream.url))
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "1"}
        with started("--config", str(tmp_path / "parley.yaml"), folder=tmp_path, **variables) as parley:
            for _ in range(3):
                assert "Hello there." == parley.chat("Hi", model="rest")
            assert 0 == parley.stop()
            parley.wait_for_log("traces not exported")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_endpoint_with_tls(tmp_path: Path, protocol: str) -> None:
    """Envoy and the service export over TLS to an endpoint of an authority of its own, with both protocols."""
    authority, file = trustme.CA(), tmp_path / "endpoint.pem"
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    with ScriptedUpstream() as upstream, receiver(file) as endpoint:
        (tmp_path / "parley.yaml").write_text(CONFIG.format(first=upstream.url, second=upstream.url))
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.grpc if protocol == "grpc" else endpoint.http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with started("--config", str(tmp_path / "parley.yaml"), folder=tmp_path, **variables) as parley:
            Traced(parley, upstream, upstream, endpoint).rest(TRACE, "rest")
            wanted = ["chat two", "parley.v1.ChatCompletions/StreamChatCompletionEvents"]
            spans = endpoint.trace(TRACE, wanted)
            until(lambda: _edge(endpoint, TRACE), f"Envoy's span in {spans}")


def _edge(endpoint: Receiver, trace: str) -> list[dict[str, Any]]:
    """Returns the spans of Envoy."""
    named = [span for span in list(endpoint.spans) if trace == span["trace"]]
    return [span for span in named if "parley-edge" == span["resource"]["service.name"]]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_without_the_extra_the_error_names_it(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint without the packages of OpenTelemetry is an error that has the command to install them."""
    monkeypatch.setattr(settings, "_PACKAGES", {protocol: "not_installed.exporter"})
    with pytest.raises(ConfigError) as caught:
        settings.read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert "pip install 'parley-gateway[otel]'" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", 'OTEL_TRACES_SAMPLER: "jaeger_remote" is not supported'),
        ("OTEL_EXPORTER_OTLP_HEADERS", "my-secret", "OTEL_EXPORTER_OTLP_HEADERS must have the form"),
    ],
)
def test_an_invalid_variable_stops_the_start(variable: str, value: str, message: str) -> None:
    """The error names the variable, and repeats no secret."""
    with pytest.raises(ConfigError) as caught:
        settings.read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", variable: value})
    assert message in str(caught.value)
    assert "my-secret" not in str(caught.value)
