"""The Helm chart: what it renders for several sets of values, and that Parley and Envoy accept it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from parley.config.loader import parse
from tests.kubernetes import chart
from tests.processes import run_here
from tests.unit.cli.test_edge import validate

helm = pytest.importorskip("helm_python") if not os.environ.get("CI") else __import__("helm_python")
DEFAULTS = chart.render({})
WORKLOADS = ("Deployment", "Job")


def named(resources: list[Any], kind: str, name: str) -> Any:
    """Returns the one resource of this kind and name."""
    (found,) = [one for one in resources if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pods(resources: list[Any]) -> Iterator[Any]:
    """Yields the pod specification of each workload."""
    for resource in resources:
        if resource["kind"] in WORKLOADS:
            yield resource["spec"]["template"]["spec"]


def container(resources: list[Any], name: str) -> Any:
    """Returns the container of a Deployment."""
    (found,) = named(resources, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    return found


def test_a_mistake_of_a_template_is_found() -> None:
    """The check compares with the schemas of the oldest and the newest Kubernetes, unknown fields included."""
    broken = {**named(DEFAULTS, "Deployment", "demo-parley-worker"), "spec": {"replica": 2}}
    for version in chart.KUBERNETES:
        assert any("replica" in problem for problem in chart.schema_errors(broken, version))


@pytest.mark.parametrize("example", chart.EXAMPLES, ids=lambda path: path.stem)
def test_every_container_is_confined(example: Path) -> None:
    """No container is root, writes to its image, has a capability or a token; each has requests and a memory limit."""
    found = list(pods(chart.render(chart.values(example))))
    assert 3 == len(found)
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
        for one in pod["containers"]:
            context = one["securityContext"]
            assert (True, False) == (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"])
            assert {"drop": ["ALL"]} == context["capabilities"]
            assert one["resources"]["limits"]["memory"]


@pytest.mark.parametrize("example", chart.EXAMPLES, ids=lambda path: path.stem)
def test_envoy_accepts_what_the_chart_runs(example: Path, tmp_path: Path) -> None:
    """`parley edge` accepts the options of each set of values, and the real Envoy the configuration made of them."""
    authority = trustme.CA()
    pair = authority.issue_cert("parley.example.com")
    for folder in ("tls", "clients", "edge"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tls/tls.crt").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(str(tmp_path / "tls/tls.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "clients/ca.crt"))
    envoy = container(chart.render(chart.values(example)), "demo-parley-edge")
    assert ["parley", "edge", "run", "/run/parley"] == envoy["command"]
    options = [one.replace("/etc/parley/", f"{tmp_path}/") for one in envoy["args"]]
    shown = [one for one in options if not one.startswith("--shutdown-")]
    done = run_here("edge", "render", str(tmp_path / "edge"), *shown)
    assert (0, "") == (done.returncode, done.stderr)
    assert "configuration 'envoy.yaml' OK" in validate(tmp_path / "edge")


def test_the_worker_and_the_drain_use_options_that_exist() -> None:
    """The options of the worker, of Envoy's preStop hook and of the migration are those of the commands."""
    from parley.cli.app import app

    worker, envoy = (container(DEFAULTS, f"demo-parley-{name}") for name in ("worker", "edge"))
    job = named(DEFAULTS, "Job", "demo-parley-migration")["spec"]["template"]["spec"]["containers"][0]
    commands = [
        worker["command"] + worker["args"],
        envoy["command"] + envoy["args"],
        envoy["lifecycle"]["preStop"]["exec"]["command"],
        job["command"],
    ]
    for command in commands:
        assert "parley" == command[0]
        app.parse_args(command[1:], exit_on_error=False, print_error=False)


def test_envoy_finds_the_workers_by_the_name_of_their_service() -> None:
    """Envoy resolves the headless Service, which selects the workers at the port where they listen."""
    service = named(DEFAULTS, "Service", "demo-parley-workers")
    labels = named(DEFAULTS, "Deployment", "demo-parley-worker")["spec"]["template"]["metadata"]["labels"]
    assert ("None", True) == (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"])
    assert service["spec"]["selector"].items() <= labels.items()
    port = service["spec"]["ports"][0]["port"]
    assert f"--workers=dns:demo-parley-workers:{port}" in container(DEFAULTS, "demo-parley-edge")["args"]
    assert f"--listen=0.0.0.0:{port}" in container(DEFAULTS, "demo-parley-worker")["args"]


def test_only_envoy_reaches_the_workers() -> None:
    """The port of the calls, which trusts what Envoy says, admits the pods of Envoy alone."""
    policy = named(DEFAULTS, "NetworkPolicy", "demo-parley-worker")["spec"]
    (calls,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "grpc"]
    (source,) = calls["from"]
    envoy = named(DEFAULTS, "Deployment", "demo-parley-edge")["spec"]["template"]["metadata"]["labels"]
    worker = named(DEFAULTS, "Deployment", "demo-parley-worker")["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= envoy.items()
    assert not source["podSelector"]["matchLabels"].items() <= worker.items()
    assert policy["podSelector"]["matchLabels"].items() <= worker.items()


def test_the_admin_listener_exists_only_if_requested() -> None:
    """It has a Service within the cluster, whatever that for callers is; only Envoy reaches the workers' port."""
    values = chart.values(chart.CHART / "ci" / "admin.yaml")
    resources = chart.render({**values, "edge": {"service": {"type": "LoadBalancer"}}})
    service = named(resources, "Service", "demo-parley-admin")["spec"]
    assert ("ClusterIP", [50060]) == (service["type"], [one["port"] for one in service["ports"]])
    worker, envoy = (container(resources, f"demo-parley-{name}") for name in ("worker", "edge"))
    assert {"--admin=0.0.0.0:50060", "--admin-key-file=/etc/parley-admin/key"} <= set(worker["args"])
    assert {"--admin=0.0.0.0:50060", "--admin-workers=dns:demo-parley-workers:50060"} <= set(envoy["args"])
    of_workers, of_envoy = (
        named(resources, "NetworkPolicy", f"demo-parley-{name}")["spec"] for name in ("worker", "edge")
    )
    [rule] = [one for one in of_workers["ingress"] if {"protocol": "TCP", "port": "admin"} in one["ports"]]
    assert "edge" == rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    [rule] = [one for one in of_envoy["ingress"] if {"protocol": "TCP", "port": "admin"} in one["ports"]]
    assert values["networkPolicy"]["adminFrom"] == rule["from"]
    assert 50060 in [port["port"] for port in of_envoy["egress"][0]["ports"]]
    assert "admin" not in json.dumps(DEFAULTS).replace("administ", "")
    closed = named(chart.render({"admin": {"enabled": True}}), "NetworkPolicy", "demo-parley-edge")["spec"]
    assert not [one for one in closed["ingress"] if {"protocol": "TCP", "port": "admin"} in one["ports"]]


def test_a_pod_is_given_the_time_that_its_drain_may_take() -> None:
    """The grace period is longer than the drain of Envoy, and than the running calls of a worker."""
    resources = chart.render({"worker": {"shutdownGrace": 600}, "edge": {"shutdownGrace": 300, "shutdownDelay": 10}})
    for name, needed in (("worker", 600), ("edge", 310)):
        pod = named(resources, "Deployment", f"demo-parley-{name}")["spec"]["template"]["spec"]
        assert needed + 10 <= pod["terminationGracePeriodSeconds"]
    assert "--shutdown-grace=600s" in container(resources, "demo-parley-worker")["args"]
    assert (
        "--shutdown-grace=300s" in container(resources, "demo-parley-edge")["lifecycle"]["preStop"]["exec"]["command"]
    )


def test_the_migration_runs_before_the_release_with_inputs_of_its_own() -> None:
    """The Job is a hook of installation and upgrade; the ConfigMap that it mounts is made by an earlier hook."""
    hooks = [one for one in DEFAULTS if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    weights = {one["kind"]: int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in hooks}
    assert {"pre-install,pre-upgrade"} == {one["metadata"]["annotations"]["helm.sh/hook"] for one in hooks}
    assert weights["ConfigMap"] < weights["Job"]
    job = named(DEFAULTS, "Job", "demo-parley-migration")["spec"]["template"]["spec"]
    names = {one["metadata"]["name"] for one in hooks if one["kind"] == "ConfigMap"}
    assert names == {volume["configMap"]["name"] for volume in job["volumes"] if "configMap" in volume}
    assert [] == [one for one in chart.render({"migration": {"enabled": False}}) if one["kind"] == "Job"]


def test_the_default_configuration_is_one_of_parley(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of the ConfigMap is valid once the variable of the database is set."""
    monkeypatch.setenv("PARLEY_DATABASE_URL", "postgresql://parley@db/parley")
    text = named(DEFAULTS, "ConfigMap", "demo-parley")["data"]["parley.yaml"]
    config = parse(text, "parley.yaml")
    assert ("postgres", ["smollm2"]) == (config.store.kind, [model.id for model in config.models])


def test_secrets_come_from_the_named_secrets() -> None:
    """With existing Secrets the database and the keys are read from them, and no value is written into a manifest."""
    resources = chart.render({"database": {"existingSecret": "mine", "key": "uri"}, "secrets": {"existing": ["keys"]}})
    worker = container(resources, "demo-parley-worker")
    (url,) = [one for one in worker["env"] if one["name"] == "PARLEY_DATABASE_URL"]
    assert {"secretKeyRef": {"name": "mine", "key": "uri"}} == url["valueFrom"]
    assert [{"secretRef": {"name": "keys"}}] == worker["envFrom"]
    assert [] == [one for one in resources if one["kind"] == "Secret"]


def test_the_autoscaler_counts_calls_in_flight() -> None:
    """With autoscaling, the pods' metric decides, and the Deployment names no number of replicas."""
    resources = chart.render({"worker": {"autoscaling": {"enabled": True, "callsInFlight": 50}}})
    (metric,) = named(resources, "HorizontalPodAutoscaler", "demo-parley-worker")["spec"]["metrics"]
    assert "parley_calls_in_flight" == metric["pods"]["metric"]["name"]
    assert {"type": "AverageValue", "averageValue": "50"} == metric["pods"]["target"]
    assert "replicas" not in named(resources, "Deployment", "demo-parley-worker")["spec"]


def test_a_service_monitor_exists_only_if_requested() -> None:
    """Prometheus' operator is not needed by default; with it, workers and Envoys are targets."""
    assert [] == [one for one in DEFAULTS if one["kind"] == "ServiceMonitor"]
    resources = chart.render({"metrics": {"serviceMonitor": {"enabled": True}}})
    (expression,) = named(resources, "ServiceMonitor", "demo-parley")["spec"]["selector"]["matchExpressions"]
    services = [one for one in resources if one["kind"] == "Service"]
    targets = [one for one in services if one["metadata"]["labels"][expression["key"]] in expression["values"]]
    assert {"worker", "edge"} == {one["spec"]["selector"]["app.kubernetes.io/component"] for one in targets}


def test_the_alerts_and_the_dashboard_are_those_of_the_files() -> None:
    """On request, a PrometheusRule has the rules and a ConfigMap the dashboard, character by character."""
    assert {"PrometheusRule"}.isdisjoint(one["kind"] for one in DEFAULTS)
    resources = chart.render({"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}})
    rules, dashboard = chart.COPIES.values()
    assert yaml.safe_load(rules.read_text()) == named(resources, "PrometheusRule", "demo-parley")["spec"]
    config = named(resources, "ConfigMap", "demo-parley-dashboard")
    assert json.loads(dashboard.read_text()) == json.loads(config["data"]["parley.json"])
    assert "1" == config["metadata"]["labels"]["grafana_dashboard"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"worker": {"replica": 3}}, "replica"),
        ({"edge": {"trustedHops": -1}}, "trustedHops"),
        ({"admin": {"enabled": True, "port": 80}}, "port"),
        ({"edge": {"service": {"type": "External"}}}, "External|one of"),
        ({"config": "store: {kind: sqlite}"}, "the workers share one database"),
        ({"config": "a: [b"}, "config is not YAML"),
        ({"database": {"existingSecret": ""}}, "set database.existingSecret or database.url"),
    ],
)
def test_wrong_values_are_rejected(wrong: dict[str, Any], message: str) -> None:
    """A value that is unknown, out of range or unusable fails with its name."""
    with pytest.raises(helm.HelmError, match=message):
        chart.render(wrong)


def test_the_notes_name_the_addresses_and_the_first_key() -> None:
    """After an installation, the user sees where to call, how to make a key, and a warning about a missing policy."""
    text = chart.notes({"edge": {"tls": {"existingSecret": "tls"}}})
    assert "https://demo-parley.ai.svc:80" in text
    assert "exec deployment/demo-parley-worker -- parley keys create" in text
    assert "WARNING" not in text
    assert "WARNING" in chart.notes({"networkPolicy": {"enabled": False}})
