"""The Helm chart of edge/kubernetes, rendered by Helm without a cluster and compared with Kubernetes' schemas."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

CHART = Path(__file__).parents[2] / "edge" / "kubernetes" / "parley"
EXAMPLES = sorted((CHART / "ci").glob("*.yaml"))
"""Sets of values, each of which is rendered and checked."""
README = CHART.parent / "README.md"
KUBERNETES = ("v1.30.0", "v1.37.0")
"""The oldest and the newest Kubernetes whose schemas are checked."""
BEGIN, END = "<!-- generated from values.schema.json by make gen: begin -->\n", "<!-- generated: end -->\n"
COPIES = {
    CHART / "files" / file.name: file
    for file in (CHART.parents[1] / "prometheus" / "rules.yml", CHART.parents[1] / "grafana" / "parley.json")
}
"""The files of the chart that are copies of others, since Helm reads none outside of a chart."""
_FOREIGN = {"PrometheusRule", "ServiceMonitor"}  # resources of operators, which have no schema here
_NO_ICON = "icon is recommended"


def values(example: Path) -> dict[str, Any]:
    """Returns a set of values."""
    return yaml.safe_load(example.read_text(encoding="utf-8")) or {}


def render(chosen: dict[str, Any]) -> list[Any]:
    """Returns the resources that the chart renders with these values. Raises HelmError."""
    from helm_python.chart import Chart

    with Chart.load(CHART) as chart:
        chart.validate_schema(chosen)
        rendered = chart.render(chosen, name="demo", namespace="ai", is_install=True)
    manifests = (text for path, text in sorted(rendered.items()) if path.endswith(".yaml"))
    return [resource for text in manifests for resource in yaml.safe_load_all(text) if resource]


def notes(chosen: dict[str, Any]) -> str:
    """Returns what Helm prints after an installation. Raises HelmError."""
    from helm_python.chart import Chart

    with Chart.load(CHART) as chart:
        return chart.render(chosen, name="demo", namespace="ai", is_install=True)["parley/templates/NOTES.txt"]


def problems(example: Path) -> Iterator[str]:
    """Yields what Helm's linter and the schemas of Kubernetes find wrong with a set of values."""
    from helm_python.chart import lint

    chosen = values(example)
    for message in lint(CHART, chosen, strict=True, namespace="ai")["messages"]:
        if _NO_ICON not in message["error"]:
            yield f"{example.name}: {message['path']}: {message['error']}"
    for resource in render(chosen):
        if resource["kind"] not in _FOREIGN:
            for version in KUBERNETES:
                yield from (f"{example.name}: {version}: {error}" for error in schema_errors(resource, version))


def schema_errors(resource: dict[str, Any], version: str) -> Iterator[str]:
    """Yields where a resource differs from the schema of a version of Kubernetes."""
    group, _, api = resource["apiVersion"].rpartition("/")
    name = "-".join(part for part in (resource["kind"].lower(), group.partition(".")[0], api) if part)
    for error in _validator(version, name).iter_errors(resource):
        path = ".".join(map(str, error.instance_path))
        yield f"{resource['kind']} {resource['metadata']['name']}: {path}: {error.message}"


@cache
def _validator(version: str, name: str) -> Any:
    return jsonschema_rs.Draft202012Validator(
        _schema(version, f"{name}.json"), base_uri="file:///", retriever=lambda uri: _schema(version, Path(uri).name)
    )


@cache
def _schema(version: str, file: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"{version}-local-strict"
    return json.loads((folder / file).read_text(encoding="utf-8"))


def readme(text: str) -> str:
    """Returns the page with the table of the values between its markers."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{_table()}\n{END}{after}"


def _table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    default = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = "\n".join(_rows("", schema, default))
    return f"| value | default | meaning |\n|---|---|---|\n{rows}\n"


def _rows(prefix: str, schema: dict[str, Any], default: Any) -> Iterator[str]:
    for name, value in default.items():
        part = schema["properties"][name]
        if "properties" in part:
            yield f"| **`{prefix}{name}`** | | {part['description']} |"
            yield from _rows(f"{prefix}{name}.", part, value)
        else:
            yield f"| `{prefix}{name}` | {_written(value)} | {part['description']} |"


def _written(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return "the built-in model"
    text = json.dumps(value) if not isinstance(value, str) else value
    return f"`{text}`" if text not in {"", "{}", "[]"} else ""
