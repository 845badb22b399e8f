"""What a worker needs of prometheus_client, without its servers of HTTP, whose modules take 3 MB.

The package's `__init__` imports the servers. It runs only if another program part reads a name of the package itself.
"""

import importlib.util
import sys
from typing import Any


def _defer_package() -> None:
    """Makes the package importable without running its `__init__`."""
    spec = importlib.util.find_spec("prometheus_client")
    if "prometheus_client" in sys.modules or spec is None or spec.loader is None:
        return
    loader, package = spec.loader, importlib.util.module_from_spec(spec)

    def load(name: str) -> Any:
        """Runs the `__init__` at the first access to a name that it defines."""
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = load
    sys.modules["prometheus_client"] = package


_defer_package()

from prometheus_client.gc_collector import GCCollector  # noqa: E402 - after the package was deferred
from prometheus_client.metrics_core import (  # noqa: E402
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector  # noqa: E402
from prometheus_client.registry import Collector, CollectorRegistry  # noqa: E402
from prometheus_client.samples import Sample  # noqa: E402
from prometheus_client.utils import floatToGoString  # noqa: E402

__all__ = [
    "Collector",
    "CollectorRegistry",
    "CounterMetricFamily",
    "GCCollector",
    "GaugeMetricFamily",
    "HistogramMetricFamily",
    "Metric",
    "ProcessCollector",
    "floatToGoString",
    "text_of",
]
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n"})
_ESCAPED_LABEL = _ESCAPED | str.maketrans({'"': r"\""})


def text_of(registry: Collector) -> bytes:
    """Returns the metrics of a registry in Prometheus' text format, version 0.0.4."""
    lines = []
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        lines.append(f"# HELP {name} {metric.documentation.translate(_ESCAPED)}\n# TYPE {name} {metric.type}\n")
        lines.extend(map(_line, metric.samples))
    return "".join(lines).encode()


def _line(sample: Sample) -> str:
    """Returns the line of a sample, which has no timestamp."""
    labels = ",".join(f'{name}="{value.translate(_ESCAPED_LABEL)}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{f'{{{labels}}}' if labels else ''} {floatToGoString(sample.value)}\n"  # type: ignore[no-untyped-call]
