"""A receiver of traces as a process: OTLP over gRPC or HTTP, with the real messages of opentelemetry-proto.

`python -m tests.otlp` prints its two addresses as JSON, then each span as one line of JSON. With the path of a file
with a certificate and its key, both addresses have TLS.
"""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.processes import until

_ROOT = Path(__file__).parents[1]
_lock = threading.Lock()


@dataclass
class Receiver:
    """A running receiver: its URLs for gRPC and for HTTP, and the spans so far."""

    grpc: str
    http: str
    spans: list[dict[str, Any]] = field(default_factory=list)

    def trace(self, trace_id: str, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Waits for the spans of a trace with these names; returns all spans of the trace by name and span id."""

        def found() -> list[dict[str, Any]]:
            return [span for span in list(self.spans) if span["trace"] == trace_id]

        until(lambda: set(wanted) <= {span["name"] for span in found()}, f"{wanted} in {found()}")
        return {span["id"]: span for span in found()}


@contextmanager
def receiver(certificate: Path | None = None) -> Iterator[Receiver]:
    """Runs a receiver, with TLS if a file with a certificate and its key is given."""
    command = [sys.executable, "-m", "tests.otlp", *([str(certificate)] if certificate else [])]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        running = Receiver(**json.loads(process.stdout.readline()))
        reading = threading.Thread(target=_read, args=(process.stdout, running.spans))
        reading.start()
        try:
            yield running
        finally:
            process.kill()
            reading.join()


def _read(lines: Any, spans: list[dict[str, Any]]) -> None:
    for line in lines:
        spans.append(json.loads(line))  # noqa: PERF401 - each span is visible at once


class _Service(TraceServiceServicer):
    def Export(  # noqa: N802 - its name in OTLP
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        """Receives spans over gRPC."""
        _write(request, dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Receives spans over HTTP."""
        assert self.path == "/v1/traces"
        length = self.headers["content-length"]
        data = self._chunks() if length is None else self.rfile.read(int(length))
        _write(ExportTraceServiceRequest.FromString(data), {name.lower(): text for name, text in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def _chunks(self) -> bytes:
        """Reads a chunked body, which Envoy sends."""
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *_arguments: Any) -> None:
        """Logs nothing."""


def _write(request: ExportTraceServiceRequest, metadata: dict[str, str]) -> None:
    with _lock:
        for resource in request.resource_spans:
            named = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    _print(_span(span) | {"resource": named, "key": metadata.get("x-key")})


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - the output of this process


def _span(span: Span) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "error": span.status.message if span.status.code else "",
        "attributes": _attributes(span.attributes),
        "events": [event.name for event in span.events],
    }


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


def _serve(certificate: Path | None) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(_Service(), server)  # type: ignore[no-untyped-call]
    http, scheme = ThreadingHTTPServer(("127.0.0.1", 0), _Handler), "http"
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pem, scheme = certificate.read_bytes(), "https"
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    server.start()
    _print({"grpc": f"{scheme}://127.0.0.1:{port}", "http": f"{scheme}://127.0.0.1:{http.server_port}"})
    http.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]) if sys.argv[1:] else None)
