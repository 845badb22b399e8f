"""`parley edge`: the files of an Envoy that runs without a supervisor."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme

from parley.supervisor import envoy, static_edge
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import EdgeSettings
from parley.supervisor.errors import CommandError
from tests.processes import run_here

ADMIN = ("--admin", "127.0.0.1:50052", "--admin-workers", "dns:parley-workers:50052")
CLUSTERS = ("workers", "checks", "storing_workers")


def rendered(folder: Path, *options: str, workers: str = "dns:parley-workers:50051") -> Any:
    """Returns the configuration that `parley edge render` writes with these options."""
    done = run_here("edge", "render", str(folder), "--workers", workers, *options)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads((folder / "envoy.yaml").read_text())["static_resources"]


def validate(folder: Path) -> str:
    """Returns what the real Envoy reports about the configuration of a folder."""
    command = [envoy.command(Path())[0], "--config-path", "envoy.yaml", "--mode", "validate", "--log-level", "warning"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_envoy_accepts_every_option_without_a_warning(tmp_path: Path) -> None:
    """Envoy accepts a configuration with TLS, client certificates and metrics, with its files beside it."""
    authority = trustme.CA()
    pair = authority.issue_cert("parley.example.com")
    (tmp_path / "tls.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ["--tls-certificate", str(tmp_path / "tls.pem"), "--tls-key", str(tmp_path / "tls.key")]
    clients = ["--client-ca", str(tmp_path / "ca.pem"), "--client-required", "--client-name", "san_uri"]
    rendered(tmp_path, *tls, *clients, "--http", "0.0.0.0:8443", "--metrics", "0.0.0.0:9464", *ADMIN)
    assert "configuration 'envoy.yaml' OK\n" == validate(tmp_path)


def test_each_address_of_a_name_is_a_worker(tmp_path: Path) -> None:
    """Calls, checks of credentials and readiness use the addresses of all names, as strict DNS."""
    config = rendered(tmp_path, "--workers", "dns:other:1")
    found = {cluster["name"]: cluster for cluster in config["clusters"]}
    for name in CLUSTERS:
        (group,) = found[name]["load_assignment"]["endpoints"]
        addresses = [one["endpoint"]["address"]["socket_address"] for one in group["lb_endpoints"]]
        assert ["parley-workers", "other"] == [one["address"] for one in addresses]
        assert "envoy.cluster.dns" == found[name]["cluster_type"]["name"]
        assert found[name]["health_checks"]


def test_the_admin_listener_finds_the_workers_at_another_port(tmp_path: Path) -> None:
    """With both options there is an admin listener, with a list of workers of its own; by default there is none."""
    config = rendered(tmp_path / "with", *ADMIN)
    [cluster] = [one for one in config["clusters"] if one["name"] == "admin_workers"]
    [[endpoint]] = [group["lb_endpoints"] for group in cluster["load_assignment"]["endpoints"]]
    socket = {"address": "parley-workers", "port_value": 50052}
    assert socket == endpoint["endpoint"]["address"]["socket_address"]
    assert "envoy.cluster.dns" == cluster["cluster_type"]["name"]
    assert "admin" not in {one["name"] for one in rendered(tmp_path / "without")["listeners"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ADMIN[:2], "give both --admin and --admin-workers"),
        (ADMIN[2:], "give both --admin and --admin-workers"),
        (("--admin", "0.0.0.0:50052", *ADMIN[2:]), "--admin: other machines reach 0.0.0.0:50052"),
    ],
)
def test_the_options_of_the_admin_listener_belong_together(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    """An admin listener needs workers, and TLS if other machines reach it."""
    done = run_here("edge", "render", str(tmp_path), "--workers", "dns:a:1", *options)
    assert (1, True) == (done.returncode, message in done.stderr), done.stderr


def test_threads_share_the_heap(tmp_path: Path) -> None:
    """The number of threads is Envoy's concurrency, and divides what large bodies in progress may fill."""
    sizes = []
    for threads in (1, 2):
        arguments = ["--workers", "dns:a:1", "--max-heap", "960MiB", "--threads", str(threads)]
        done = run_here("edge", "render", str(tmp_path), *arguments)
        assert f"--concurrency {threads} " in done.stdout
        listener = json.loads((tmp_path / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
        host = listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"][0]
        sizes.append(host["metadata"]["filter_metadata"]["large"]["of_all"])
    assert [80 * 2**20, 40 * 2**20] == sizes


def test_workers_may_be_listed_in_a_file(tmp_path: Path) -> None:
    """A file is the source of the endpoints of every cluster of workers."""
    config = rendered(tmp_path, workers=str(tmp_path / "list.yaml"))
    sources = [cluster["eds_cluster_config"] for cluster in config["clusters"] if cluster["name"] in CLUSTERS]
    paths = {source["eds_config"]["path_config_source"]["path"] for source in sources}
    assert (3, {str(tmp_path / "list.yaml")}) == (len(sources), paths)


def test_the_configuration_is_that_of_parley_up(tmp_path: Path) -> None:
    """Besides the workers and /livez, the listeners are exactly those that `parley up` renders with these settings."""
    config = rendered(tmp_path, "--max-heap", "512MiB", "--cors-origin", "*")
    settings = EdgeSettings(cors_origins=("*",), max_heap=2**29, max_connections_per_address=0)
    addresses = (Address("127.0.0.1", 8080), Address("127.0.0.1", 50051))
    expected = json.loads(envoy.render_in(tmp_path, *addresses, settings))["static_resources"]
    for resources in (config, expected):
        for listener in resources["listeners"]:
            for host in listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"]:
                host["routes"] = [route for route in host["routes"] if route["match"].get("path") != "/livez"]
    assert expected["listeners"] == config["listeners"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--http", "0.0.0.0:8080"], "--http: other machines reach 0.0.0.0:8080"),
        (["--workers", "a.yaml"], "give dns:HOST:PORT, several of them, or one file"),
        (["--tls-key", "key.pem"], "give --tls-certificate and --tls-key"),
        (["--client-ca", "ca.pem"], "give --tls-certificate and --tls-key"),
        (["--tls-key", "no.pem", "--tls-certificate", "no.pem"], "tls.certificate: no.pem cannot be read"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: list[str], message: str) -> None:
    """An error names the option and what to do."""
    done = run_here("edge", "render", str(tmp_path), "--workers", "dns:parley-workers:50051", *options)
    assert 0 != done.returncode
    assert message in done.stderr


def test_a_drain_without_envoy_names_the_folder(tmp_path: Path) -> None:
    """`parley edge drain` fails with the folder if no Envoy runs there."""
    with pytest.raises(CommandError, match=f"is {tmp_path} the folder of a running"):
        asyncio.run(static_edge.drain(tmp_path, 0, 0))
