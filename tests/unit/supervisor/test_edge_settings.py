"""The settings of the edge, as options of `parley up` and in Envoy's configuration."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from parley.supervisor import envoy, limits
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import (
    DEFAULT_EDGE,
    EdgeSettings,
    parse_dialect_host,
    parse_origin,
    parse_size,
    write_size,
)
from tests.processes import run_here

ANYWHERE = ("127.0.0.1", 0)


def rendered(settings: EdgeSettings) -> Any:
    """Returns Envoy's configuration with these settings."""
    return yaml.safe_load(text_of(settings))


def text_of(settings: EdgeSettings) -> str:
    """Returns the text of Envoy's configuration with these settings."""
    paths: dict[str, Any] = {"endpoints": Path("/run/workers.yaml"), "admin": Path("/run/admin.sock")}
    return envoy.render(http=ANYWHERE, grpc=ANYWHERE, **paths, settings=settings)


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("20MiB", 20 * 2**20, "20 MiB"),
        ("20 mib", 20 * 2**20, "20 MiB"),
        ("500KiB", 500 * 2**10, "500 KiB"),
        ("1024", 1024, "1 KiB"),
        ("2MB", 2_000_000, "2000000 bytes"),
        ("30MiB", 30 * 2**20, "30 MiB"),
    ],
)
def test_a_size_is_read_and_written(text: str, size: int, written: str) -> None:
    """Units of 1024 and of 1000 are parsed in any spelling; a size is printed in the largest exact unit."""
    assert size == parse_size(text)
    assert written == write_size(size)


@pytest.mark.parametrize("text", ["", "x", "MiB", "-1MiB", "1.5MiB", "1GiB", "1 2", "1023", "31MiB", "30721KiB"])
def test_an_invalid_size_is_rejected(text: str) -> None:
    """Text without a number, unknown units, and sizes out of range are rejected."""
    with pytest.raises(ValueError, match=r"write for example 20MiB|choose a size from 1KiB to 30MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["https://app.example.com", "http://localhost:3000", "app://-", "http://[::1]:1", "*"])
def test_valid_origins(text: str) -> None:
    """An origin has a scheme, a host, and a port unless it is the default; an asterisk means all."""
    assert text == parse_origin(text)


@pytest.mark.parametrize(
    "text", ["", "app.example.com", "https://app.example.com/", "https://a b", "https://*/x", "null", "https://a,b"]
)
def test_an_invalid_origin_is_rejected(text: str) -> None:
    """An origin that no browser sends is rejected, because it would never match."""
    with pytest.raises(
        ValueError, match=r"is not an origin for --cors-origin; write for example https://app\.example\.com"
    ):
        parse_origin(text)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--cors-origin", "https://a.example", "--cors-origin", "b"], '"b" is not an origin for --cors-origin; write'),
        (
            ["--dialect-host", "nope=a.example"],
            '"nope=a.example" names no dialect (chipp, upchatty,',
        ),
        (["--dialect-host", "upchatty=https://a.example"], '"upchatty=https://a.example" has no host name; write for'),
        (
            ["--dialect-host", "upchatty=a.example", "--dialect-host", "openpipe=A.example"],
            '"a.example" is given to more than one dialect',
        ),
        (["--max-body", "40MiB"], '--max-body: "40MiB" is out of bounds; choose a size from 1KiB to 30MiB'),
    ],
)
def test_up_rejects_an_invalid_setting_in_one_line(option: list[str], message: str) -> None:
    """The error has the option, the problem and a valid example."""
    done = run_here("up", *option)
    assert 2 == done.returncode
    assert message in done.stderr
    assert 1 == done.stderr.count("\n")


def test_the_file_has_the_default_settings() -> None:
    """Without its disabled parts, the file equals the rendered default settings, except for two parts.

    The limit of an address needs a file; the files of the page and the documentation change.
    """
    original = yaml.safe_load((envoy.edge_dir() / "envoy.yaml").read_text(encoding="utf-8"))
    for at, listener in enumerate(
        rendered(EdgeSettings(max_connections_per_address=0, page=False, site=False, threads=2))["static_resources"][
            "listeners"
        ]
    ):
        chains = original["static_resources"]["listeners"][at]["filter_chains"]
        manager = chains[0]["filters"][-1]["typed_config"]
        bridges = {"rpc_hide", "grpc_web", "connect", "rpc", "rpc_buffer"}
        manager["http_filters"] = [entry for entry in manager["http_filters"] if entry["name"] not in bridges]
        for host in manager["route_config"]["virtual_hosts"]:
            host["routes"] = [route for route in host["routes"] if "runtime_fraction" not in route["match"]]
        assert chains == listener["filter_chains"]


def test_the_ports_of_a_rendered_configuration_can_be_changed() -> None:
    """Each listener with an address gets the port of its name; without one, its port and everything else stay."""
    text = text_of(EdgeSettings(admin=Address("127.0.0.1", 1)))
    changed = json.loads(envoy.with_ports(text, {"http": 2, "grpc": 3}))["static_resources"]["listeners"]
    for name, port in (("http", 2), ("grpc", 3), ("admin", 1)):
        [listener] = [one for one in changed if one["name"] == name]
        assert port == listener["address"]["socket_address"]["port_value"]
    assert json.loads(text) == json.loads(envoy.with_ports(text, {}))


def scripts_of(listener: Any) -> Any:
    """Returns what the scripts of a listener read."""
    [host] = listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"]
    return host["metadata"]["filter_metadata"]


def test_both_listeners_have_the_settings() -> None:
    """Origins and the limit apply to REST, and the limit to native gRPC, too."""
    rest, native, *_ = rendered(EdgeSettings(("https://a.example",), 2**20))["static_resources"]["listeners"]
    scripts = scripts_of(rest)
    assert (["https://a.example"], 2**20) == (scripts["arrival"]["cors_origins"], scripts["arrival"]["max_body"])
    assert "1 MiB" == scripts["large"]["max_body"] == scripts_of(native)["lua"]["max_body"]
    routes = native["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]
    assert 2**20 == routes["virtual_hosts"][0]["request_body_buffer_limit"]


def test_a_dialect_s_hosts_are_added_to_those_of_the_file() -> None:
    """A host gets the configured dialect, also instead of another one in the file."""
    settings = EdgeSettings(dialect_hosts=("upchatty=chat.example.com", "openai=www.upchatty.com"))
    dialects = scripts_of(rendered(settings)["static_resources"]["listeners"][0])["arrival"]["dialects"]
    assert ("upchatty", "openai") == (dialects["chat.example.com"], dialects["www.upchatty.com"])
    assert ("upchatty", "chipp") == (dialects["upchatty.*"], dialects["*"])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("Upchatty=Chat.Example.com", "upchatty=chat.example.com"),
        ("openpipe=*.pipes.example.com", "openpipe=*.pipes.example.com"),
        ("fastapi=fast.*", "fastapi=fast.*"),
        ("chipp=localhost", "chipp=localhost"),
    ],
)
def test_valid_dialect_hosts(text: str, parsed: str) -> None:
    """Host names are case-insensitive, and may have a wildcard at one end."""
    assert parsed == parse_dialect_host(text)


@pytest.mark.parametrize(
    "text", ["", "upchatty", "upchatty=", "upchatty=*", "x=a", "openai=a:80", "chipp=a/b", "chipp=*.a.*"]
)
def test_an_invalid_dialect_host_is_rejected(text: str) -> None:
    """A host that would stop Envoy, or never match, is rejected."""
    with pytest.raises(ValueError, match="write for example"):
        parse_dialect_host(text)


def test_the_heap_holds_the_largest_bodies() -> None:
    """Envoy's heap is 160 MiB, or holds twenty bodies of the largest size, or is as chosen."""
    heaps = [
        rendered(settings)["overload_manager"]["resource_monitors"][1]["typed_config"]["max_heap_size_bytes"]
        for settings in (DEFAULT_EDGE, EdgeSettings(max_body=30 * 2**20), EdgeSettings(max_heap=2**29))
    ]
    assert [160 * 2**20, 600 * 2**20, 2**29] == heaps


def test_large_requests_in_progress_fill_half_of_the_heap() -> None:
    """Six times their bytes are half of the heap. A caller may have two thirds, and a body of the largest size."""

    def limits_of(settings: EdgeSettings) -> list[tuple[int, int]]:
        hosts = [
            host
            for listener in rendered(settings)["static_resources"]["listeners"]
            for host in listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"]
        ]
        scripts = [host["metadata"]["filter_metadata"] for host in hosts if "metadata" in host]
        found = [script[name] for script in scripts for name in ("lua", "large") if name in script]
        return sorted({(limit["of_all"], limit["of_caller"]) for limit in found})

    threads = max(2, (os.cpu_count() or 1) // 4)
    share = 2**30 // (2 * 6 * threads)
    assert [(share, 2 * share // 3)] == limits_of(EdgeSettings(max_heap=2**30, max_body=2**20))
    assert [(30 * 2**20, 30 * 2**20)] == limits_of(EdgeSettings(max_heap=2**26, max_body=30 * 2**20))


@pytest.mark.parametrize(("threads", "heap", "sent"), [(2, 160, 16), (16, 2048, 16), (16, 160, 2)])
def test_the_files_of_an_address_fit_into_the_heap(threads: int, heap: int, sent: int) -> None:
    """An address may load the page and the documentation at once, however many threads there are; sizes in MiB."""
    config = rendered(EdgeSettings(threads=threads, max_heap=heap * 2**20))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][-1]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    limit = host["metadata"]["filter_metadata"]["arrival"]["files"]
    assert {"of_all": sent * 2**20, "of_caller": sent * 2**20 // 3} == limit


@pytest.mark.parametrize(
    ("memory", "max_body", "heap"),
    [(512, 8, 160), (2048, 8, 256), (65536, 8, 2048), (512, 30, 600), (2048, 30, 600), (65536, 20, 2048)],
)
def test_the_default_heap_depends_on_the_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int, max_body: int, heap: int
) -> None:
    """An eighth of the memory within bounds, and at least twenty bodies; all in MiB."""
    monkeypatch.setattr(limits, "memory", lambda: memory * 2**20)
    assert heap * 2**20 == limits.default_heap(max_body * 2**20)


def test_the_memory_is_that_of_this_machine_or_container() -> None:
    """It is positive, and no more than the machine has."""
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < limits.memory() <= int(total.split()[1]) * 1024


@pytest.mark.parametrize(("settings", "filters"), [(DEFAULT_EDGE, 2), (EdgeSettings(trusted_hops=1), 1)])
def test_the_limit_of_an_address_is_off_behind_proxies(settings: EdgeSettings, filters: int) -> None:
    """Both public listeners have the filter of refused addresses, unless proxies have all connections."""
    rest, native, large, *_ = rendered(settings)["static_resources"]["listeners"]
    assert [filters, filters, 1] == [len(one["filter_chains"][0]["filters"]) for one in (rest, native, large)]
