"""The part of Envoy's configuration that traces calls: its tracer, and the cluster of the endpoint.

Envoy samples and exports as the workers do: their settings are the same.
"""

from ipaddress import ip_address
from typing import Any

from parley.tracing.settings import TracingSettings

_CLUSTER = "traces"
_LISTENERS = ("http", "grpc")  # not `large`, which continues requests of `http`
_TYPE = "type.googleapis.com/envoy"
_SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_EXPORT_TIMEOUT = "5s"
_CONNECT_TIMEOUT = "2s"
_SAMPLER_TYPE = f"{_TYPE}.extensions.tracers.opentelemetry.samplers.v3"


def apply(config: dict[str, Any], settings: TracingSettings) -> None:
    """Adds the tracer to the listeners of callers, and the cluster of the endpoint.

    Args:
        config: Envoy's configuration.
        settings: Where traces are sent, and which.
    """
    resources = config["static_resources"]
    flush = {"tracing.opentelemetry.flush_interval_ms": settings.delay_ms}
    config["layered_runtime"]["layers"].append({"name": "tracing", "static_layer": flush})
    resources["clusters"].append(_cluster(settings))
    for listener in resources["listeners"]:
        if listener["name"] in _LISTENERS:
            for chain in listener["filter_chains"]:
                chain["filters"][-1]["typed_config"]["tracing"] = _manager(settings)


def _manager(settings: TracingSettings) -> dict[str, Any]:
    """Returns `tracing` of a connection manager."""
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": _tracer(settings)},
        # The sampler decides.
        "client_sampling": {"value": 100},
        "random_sampling": {"value": 100},
        "overall_sampling": {"value": 100},
        # By default this tag has the query, which may have what does not belong into traces.
        "custom_tags": [{"tag": "http.url", "value": "%REQ(x-forwarded-proto)%://%REQ(:authority)%%PATH(NQ)%"}],
    }


def _cluster(settings: TracingSettings) -> dict[str, Any]:
    """Returns the cluster of the endpoint."""
    host, port = settings.address
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    found: dict[str, Any] = {
        "name": _CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": _CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": _CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if settings.protocol == "grpc":
        options = f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
        http2 = {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
        found["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2}
    if settings.is_secure:
        found["transport_socket"] = _tls(settings, host)
    return found


def _tracer(settings: TracingSettings) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.config.trace.v3.OpenTelemetryConfig",
        "service_name": f"{settings.service_name}-edge",
        "sampler": _sampler(settings),
        **_exporter(settings),
    }


def _exporter(settings: TracingSettings) -> dict[str, Any]:
    if settings.protocol == "grpc":
        metadata = [{"key": name, "value": value} for name, value in settings.headers.items()]
        service = {"envoy_grpc": {"cluster_name": _CLUSTER}, "timeout": _EXPORT_TIMEOUT, "initial_metadata": metadata}
        return {"grpc_service": service}
    headers = [{"header": {"key": name, "value": value}} for name, value in settings.headers.items()]
    uri = {"uri": settings.url, "cluster": _CLUSTER, "timeout": _EXPORT_TIMEOUT}
    return {"http_service": {"http_uri": uri, "request_headers_to_add": headers}}


def _sampler(settings: TracingSettings) -> dict[str, Any]:
    share = {"numerator": round(settings.ratio * 1_000_000), "denominator": "MILLION"}
    ratio = {"@type": f"{_SAMPLER_TYPE}.TraceIdRatioBasedSamplerConfig", "sampling_percentage": share}
    root = {"name": "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", "typed_config": ratio}
    if not settings.parent_based:
        return root
    parent = {"@type": f"{_SAMPLER_TYPE}.ParentBasedSamplerConfig", "wrapped_sampler": root}
    return {"name": "envoy.tracers.opentelemetry.samplers.parent_based", "typed_config": parent}


def _tls(settings: TracingSettings, host: str) -> dict[str, Any]:
    authorities = {"filename": settings.certificate or _SYSTEM_CERTIFICATES}
    is_address = _is_ip(host)
    names = [{"san_type": "IP_ADDRESS" if is_address else "DNS", "matcher": {"exact": host}}]
    validation = {"trusted_ca": authorities, "match_typed_subject_alt_names": names}
    return {
        "name": "tls",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "" if is_address else host,
            "common_tls_context": {"validation_context": validation},
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
