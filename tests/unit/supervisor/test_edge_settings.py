"""The settings of the edge, as `parley up` takes them and as Envoy is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from parley.supervisor import envoy
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
    """Envoy's configuration with these settings."""
    places: dict[str, Any] = {"endpoints": Path("/run/workers.yaml"), "admin": Path("/run/admin.sock")}
    return yaml.safe_load(envoy.render(http=ANYWHERE, grpc=ANYWHERE, **places, settings=settings))


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
    """Units of 1024 and of 1000, however they are spelt; a person is told the largest that fits."""
    assert size == parse_size(text)
    assert written == write_size(size)


@pytest.mark.parametrize("text", ["", "x", "MiB", "-1MiB", "1.5MiB", "1GiB", "1 2", "1023", "31MiB", "30721KiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """No number, no unit that we know, too small to ask anything, or more than a worker takes."""
    with pytest.raises(ValueError, match=r"write for example 20MiB|choose a size from 1KiB to 30MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["https://app.example.com", "http://localhost:3000", "app://-", "http://[::1]:1", "*"])
def test_an_origin_is_taken_as_browsers_send_it(text: str) -> None:
    """Scheme, host, and a port where it is not the usual one; a star stands for all."""
    assert text == parse_origin(text)


@pytest.mark.parametrize(
    "text", ["", "app.example.com", "https://app.example.com/", "https://a b", "https://*/x", "null", "https://a,b"]
)
def test_what_no_browser_sends_is_refused(text: str) -> None:
    """It would never match, and its operator would wonder why."""
    with pytest.raises(
        ValueError, match=r"is not an origin for --cors-origin; write for example https://app\.example\.com"
    ):
        parse_origin(text)


@pytest.mark.parametrize(
    ("option", "says"),
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
def test_up_refuses_a_wrong_setting_in_one_line(option: list[str], says: str) -> None:
    """The option, what is wrong with it, and what to write."""
    done = run_here("up", *option)
    assert 2 == done.returncode
    assert says in done.stderr
    assert 1 == done.stderr.count("\n")


def test_the_settings_stand_in_the_file_as_they_are_by_default() -> None:
    """An Envoy that is started with the file itself is as one that Parley starts without what is off."""
    original = yaml.safe_load((envoy.edge_dir() / "envoy.yaml").read_text(encoding="utf-8"))
    for at, listener in enumerate(rendered(DEFAULT_EDGE)["static_resources"]["listeners"]):
        chains = original["static_resources"]["listeners"][at]["filter_chains"]
        manager = chains[0]["filters"][0]["typed_config"]
        optional = [entry for entry in manager["http_filters"] if entry.get("disabled")]
        manager["http_filters"] = [entry for entry in manager["http_filters"] if entry not in optional]
        for host in manager["route_config"]["virtual_hosts"]:
            host["routes"] = [route for route in host["routes"] if "runtime_fraction" not in route["match"]]
        assert chains == listener["filter_chains"]


def test_each_host_is_told_the_settings() -> None:
    """The origins and the limit hold whatever the host's name is, the limit for native callers too."""
    rest, native, _ = rendered(EdgeSettings(("https://a.example",), 2**20))["static_resources"]["listeners"]
    hosts = rest["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    reported = [host["metadata"]["filter_metadata"] for host in hosts]
    assert [["https://a.example"]] * 6 == [scripts["arrival"]["cors_origins"] for scripts in reported]
    assert ["1 MiB"] * 6 == [scripts["lua"]["max_body"] for scripts in reported]
    assert [2**20] * 6 == [scripts["arrival"]["max_body"] for scripts in reported]
    routes = native["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    assert 2**20 == routes["virtual_hosts"][0]["request_body_buffer_limit"]


def test_a_dialect_s_hosts_are_added_to_those_of_the_file() -> None:
    """A name goes to the dialect that the setting says, and away from another that the file says."""
    settings = EdgeSettings(dialect_hosts=("upchatty=chat.example.com", "openai=www.upchatty.com"))
    listener = rendered(settings)["static_resources"]["listeners"][0]
    hosts = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    domains = {host["name"]: host["domains"] for host in hosts}
    assert ["upchatty.*", "chat.example.com"] == domains["upchatty"]
    assert ["api.openai.com", "www.upchatty.com"] == domains["openai"]
    assert ["*"] == domains["rest"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("Upchatty=Chat.Example.com", "upchatty=chat.example.com"),
        ("openpipe=*.pipes.example.com", "openpipe=*.pipes.example.com"),
        ("fastapi=fast.*", "fastapi=fast.*"),
        ("chipp=localhost", "chipp=localhost"),
    ],
)
def test_a_dialect_host_is_read(text: str, parsed: str) -> None:
    """Names ignore case, and may leave one end open."""
    assert parsed == parse_dialect_host(text)


@pytest.mark.parametrize(
    "text", ["", "upchatty", "upchatty=", "upchatty=*", "x=a", "openai=a:80", "chipp=a/b", "chipp=*.a.*"]
)
def test_what_is_no_dialect_host_is_refused(text: str) -> None:
    """It would stop Envoy, or never match."""
    with pytest.raises(ValueError, match="write for example"):
        parse_dialect_host(text)
