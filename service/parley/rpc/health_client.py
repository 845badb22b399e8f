"""A client of gRPC's health service."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_DIRECT = [("grpc.enable_http_proxy", 0)]
_REMEDIES = {
    "UNIMPLEMENTED": "it has no health checks of gRPC: name the gRPC listener of a Parley, or a URL such as"
    " http://127.0.0.1:8080/readyz",
    "NOT_FOUND": "it does not know the service: leave --service out, or name one such as parley.v1.ChatCompletions",
    "UNAVAILABLE": "see whether it runs at this address; if its listeners use TLS, name a URL such as"
    " https://127.0.0.1:8080/readyz",
    "DEADLINE_EXCEEDED": "it does not answer in time: see whether it hangs, or set a longer --timeout",
}


class HealthCheckFailed(Exception):
    """There was no answer; the text has the reason and the remedy."""


def check(address: str, service: str, seconds: float) -> str:
    """Returns the health of a listener without TLS, such as `SERVING`.

    Args:
        address: HOST:PORT.
        service: The full name of a service; empty for the server as a whole.
        seconds: The longest time until the answer.

    Raises:
        HealthCheckFailed: There is no listener or no such service, or no answer in time.
    """
    with grpc.insecure_channel(address, options=_DIRECT) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            status = error.code().name
            remedy = f"; {_REMEDIES[status]}" if status in _REMEDIES else ""
            raise HealthCheckFailed(f"{status}: {error.details()}{remedy}") from error
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
