"""The Containerfile and the composition name only what exists in the product, and confine what they run."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from parley.cli.app import app
from parley.config.loader import parse
from tests.containers import checks

if not os.environ.get("CI") and not checks.installed("docker-compose"):
    pytest.skip("Docker Compose has no wheel for this machine", allow_module_level=True)

COMPOSITION = checks.composition()
SERVICES: dict[str, Any] = COMPOSITION["services"]
PARLEY = ("migration", "worker", "edge")
CONTAINERFILE = checks.CONTAINERFILE.read_text(encoding="utf-8")
FINAL = ("worker", "edge", "all-in-one")


def stages() -> dict[str, str]:
    """Returns the instructions of each stage of the Containerfile, by name."""
    found = re.split(r"^FROM \S+ AS (\S+)$", CONTAINERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def variables() -> set[str]:
    """Returns the variables of all options of the commands."""
    sources = (checks.ROOT / "service/parley/cli").rglob("*.py")
    return {name for source in sources for name in re.findall(r'env_var="(PARLEY_\w+)"', source.read_text())}


def option(service: str, name: str) -> str:
    """Returns the value of an option in the command of a service."""
    (value,) = [one.partition("=")[2] for one in SERVICES[service]["command"] if one.startswith(f"--{name}=")]
    return str(value)


def commands() -> Iterator[list[str]]:
    """Yields the arguments of each `parley` that the files run."""
    for name in PARLEY:
        service = SERVICES[name]
        yield service["command"]
        if "healthcheck" in service:
            assert ["CMD", "parley"] == service["healthcheck"]["test"][:2]
            yield service["healthcheck"]["test"][2:]
    for text in re.findall(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE):
        yield json.loads(text)


def test_both_files_are_checked(tmp_path: Path) -> None:
    """The real files have no problem; a mistake in each is found by its tool, an unknown key included."""
    assert [] == list(checks.problems())
    (tmp_path / "Containerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install curl\n")
    (tmp_path / "compose.yaml").write_text("services: {one: {image: a, replica: 2}}\n")
    found = "\n".join(checks.problems(tmp_path / "Containerfile", tmp_path / "compose.yaml"))
    assert "DL3006" in found
    assert "services.one.replica" in found


def test_every_command_has_options_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, health checks and hooks are accepted by the command line with every option."""
    monkeypatch.setenv("PARLEY_EDGE_WORKERS", "dns:worker:50051")  # the image for Envoy needs it
    found = list(commands())
    assert 8 == len(found)
    for command in found:
        app.parse_args(command, exit_on_error=False, print_error=False)


def test_every_variable_is_that_of_an_option() -> None:
    """Each variable of Parley that an image or a service sets is read by an option."""
    named = set(re.findall(r"\b(PARLEY_\w+)=", CONTAINERFILE))
    named |= {name for service in PARLEY for name in SERVICES[service].get("environment", {}) if "PARLEY_" in name}
    assert named
    assert set() == named - variables()


def test_every_mounted_file_exists() -> None:
    """What is mounted from the repository exists; what is copied into the build is not excluded from it."""
    mounts = [one for service in SERVICES.values() for one in service.get("volumes", ()) if one["type"] == "bind"]
    assert 5 == len(mounts)
    assert [] == [one["source"] for one in mounts if not Path(one["source"]).exists() or not one["read_only"]]
    allowed = {line[1:] for line in (checks.ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        name
        for words in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE)
        for name in words.split()[:-1]
    }
    assert {name.partition("/")[0] for name in allowed} == {name.partition("/")[0] for name in copied}
    assert [] == [name for name in copied if not (checks.ROOT / name).exists()]


def test_every_stage_and_image_is_built() -> None:
    """The services build stages that exist. Images run `parley`, not as root, and have no package of Debian more."""
    built = [SERVICES[name]["build"] for name in PARLEY]
    assert {checks.ROOT / one["dockerfile"] for one in built} == {checks.CONTAINERFILE}
    assert {one["target"] for one in built} <= set(FINAL) <= stages().keys()
    # The later images are made from the first one.
    assert re.findall(r"^FROM (\S+) AS (?:edge|all-in-one)$", CONTAINERFILE, re.MULTILINE) == ["worker", "edge"]
    assert "\nUSER 10001:10001\n" in stages()["worker"]
    assert '\nENTRYPOINT ["parley"]\n' in stages()["worker"]
    assert {"python", "build"} == {name for name, text in stages().items() if "apt-get" in text}
    assert " --no-install-recommends ca-certificates libgomp1 python3 \\\n" in stages()["python"]


@pytest.mark.parametrize("name", [*PARLEY, "prometheus", "grafana"])
def test_a_container_is_confined(name: str) -> None:
    """The root file system is read-only, and the processes have and gain no rights."""
    service = SERVICES[name]
    assert (True, ["ALL"]) == (service["read_only"], service["cap_drop"])
    assert ["no-new-privileges:true"] == service["security_opt"]


def test_only_this_machine_reaches_the_ports() -> None:
    """Published ports are on the loopback address. Only Envoy and Prometheus share a network with a worker."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert {"127.0.0.1"} == {port["host_ip"] for port in ports}
    shared = {name for name, service in SERVICES.items() if "workers" in service["networks"]}
    assert {"edge", "prometheus", "worker"} == shared
    assert all(COMPOSITION["networks"][name]["internal"] for name in ("database", "workers"))


def test_every_secret_is_a_file_that_the_configuration_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The configuration is valid, and each variable in it is a secret of the workers and of the migration."""
    text = (checks.FOLDER / "parley.yaml").read_text(encoding="utf-8")
    names = re.findall(r"^[^#]*\$\{(\w+)\}", text, re.MULTILINE)
    assert ["DATABASE_PASSWORD"] == names
    for service in (SERVICES["worker"], SERVICES["migration"]):
        given = {f"/run/secrets/{Path(secret['source']).name}" for secret in service["secrets"]}
        assert given == {service["environment"][f"{name}_FILE"] for name in names}
    (tmp_path / "secret").write_text("word\n")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "secret"))
    assert "postgresql://parley:word@postgres/parley" == getattr(parse(text, "f").store, "url", None)
    ignored = (checks.ROOT / ".gitignore").read_text().splitlines()
    assert {"edge/containers/secrets"} == {
        str(Path(one["file"]).parent.relative_to(checks.ROOT)) for one in COMPOSITION["secrets"].values()
    }
    assert "edge/containers/secrets/" in ignored


def test_the_services_start_in_order() -> None:
    """Migration waits for PostgreSQL, workers for the migration, Envoy for the workers."""
    conditions = {
        name: {other: needed["condition"] for other, needed in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert {"postgres": "service_healthy"} == conditions["migration"]
    assert {"migration": "service_completed_successfully"} == conditions["worker"]
    assert {"worker": "service_healthy"} == conditions["edge"]
    assert 2 == SERVICES["worker"]["deploy"]["replicas"]
    assert f"dns:worker:{option('worker', 'listen').rpartition(':')[2]}" == option("edge", "workers")


def test_calls_have_time_to_finish() -> None:
    """A container has longer to stop than its calls may take."""
    assert ("60s", "1m20s") == (option("worker", "shutdown-grace"), SERVICES["worker"]["stop_grace_period"])
    assert ("5s", "60s") == (option("edge", "shutdown-delay"), option("edge", "shutdown-grace"))
    assert "1m20s" == SERVICES["edge"]["stop_grace_period"]


def test_prometheus_and_grafana_find_what_they_show() -> None:
    """Prometheus scrapes the ports of the metrics of both services, and Grafana finds Prometheus and the dashboard."""
    text = (checks.ROOT / "edge/prometheus/prometheus.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    for name in ("worker", "edge"):
        assert name in found["names"]
        assert f"0.0.0.0:{found['port']}" == option(name, "metrics")
        assert "workers" in SERVICES[name]["networks"].keys() & SERVICES["prometheus"]["networks"].keys()
    provisioning = checks.ROOT / "edge/grafana/provisioning"
    (source,) = yaml.safe_load(next((provisioning / "datasources").glob("*.yaml")).read_text())["datasources"]
    assert "http://prometheus:9090" == source["url"]
    (provider,) = yaml.safe_load(next((provisioning / "dashboards").glob("*.yaml")).read_text())["providers"]
    targets = [Path(one["target"]) for one in SERVICES["grafana"]["volumes"]]
    assert Path(provider["options"]["path"]) in {target.parent for target in targets}
