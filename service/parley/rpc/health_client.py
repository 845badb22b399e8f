"""A client of gRPC's health service."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_DIRECT = [("grpc.enable_http_proxy", 0)]


class HealthCheckFailed(Exception):
    """There was no answer; the text has the reason."""


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
            raise HealthCheckFailed(f"{error.code().name}: {error.details()}") from error
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
