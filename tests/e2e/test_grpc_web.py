"""Clients for gRPC-Web and Connect, in Node and in a browser, make real calls through `parley up --grpc-web`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.e2e import vendor
from tests.e2e.browser import Site, opened, site
from tests.e2e.conftest import write_config
from tests.e2e.node_packages import HERE, installed
from tests.processes import PATIENCE, Parley, environment, started
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]
ROOT = Path(__file__).parents[2]
EXPECTED = {
    "whole": "Hello! How can I assist you today?",
    "streamed": "Hello!",
    "total": 1163,
    "error": ["Unauthenticated", "Invalid API key"],
}
BLOCKED = "ConnectError: [unknown] Failed to fetch"


def generate(folder: Path) -> None:
    """Generates the JavaScript messages that Connect-ES needs, with protoc-gen-es."""
    protos = ROOT / "protos"
    out, plugin = folder / "gen", folder / "node_modules" / ".bin" / "protoc-gen-es"
    out.mkdir()
    files = [str(path) for package in ("parley", "google") for path in (protos / package).rglob("*.proto")]
    options = [f"-I{protos}", f"--plugin=protoc-gen-es={plugin}", f"--es_out={out}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *options, "--es_opt=target=js,import_extension=js", *files]
    subprocess.run(command, check=True, timeout=5 * PATIENCE)


@pytest.fixture(scope="module")
def files(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client for Node and browsers, its packages and its messages."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(installed / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("grpc_web.mjs", "grpc_web_node.mjs", "grpc_web.html"):
        shutil.copy(HERE / name, folder)
    generate(folder)
    return folder


@pytest.fixture(scope="module")
def allowed(files: Path) -> Iterator[Site]:
    """The site whose pages may call Parley."""
    with site(files) as served:
        yield served


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, allowed: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with gRPC-Web and Connect for pages of the allowed site."""
    file = write_config(tmp_path_factory.mktemp("web"), the_upstream)
    with started("--config", str(file), "--cors-origin", allowed.origin, PARLEY_GRPC_WEB="true") as parley:
        yield parley


@pytest.fixture
def answers(upstream: ScriptedUpstream) -> None:
    """The upstream's answers to the calls of one client."""
    whole, streamed = vendor.complete_answer(), vendor.text("Hel", "lo", "!")
    upstream.answer(whole, streamed, whole, streamed)


@pytest.mark.usefixtures("answers")
def test_node_calls_in_both_protocols(files: Path, parley: Parley) -> None:
    """Connect-ES makes a unary call, reads a stream, and gets the error of a wrong key, by gRPC-Web and by Connect."""
    known = environment(PARLEY_HTTP=parley.http, KEY=parley.key)
    command = ["node", "grpc_web_node.mjs"]
    done = subprocess.run(
        command, cwd=files, env=known, capture_output=True, text=True, check=False, timeout=5 * PATIENCE
    )
    assert 0 == done.returncode, done.stderr
    assert {"web": EXPECTED, "connect": EXPECTED} == json.loads(done.stdout)


@pytest.mark.usefixtures("answers")
def test_a_browser_calls_in_both_protocols_from_an_allowed_origin(
    upstream: ScriptedUpstream, files: Path, allowed: Site, parley: Parley
) -> None:
    """Chromium makes the same calls from a page of an allowed origin; a page of another origin cannot."""
    known = {"parley": parley.http, "key": parley.key}
    with site(files) as other:
        last = f"{other.origin}/grpc_web.html#{urlencode(known)}"
        first = f"{allowed.origin}/grpc_web.html#{urlencode(known | {'next': last})}"
        with opened(first) as chromium:
            assert {"web": EXPECTED, "connect": EXPECTED} == chromium.results(allowed)
            assert {"web": BLOCKED, "connect": BLOCKED} == chromium.results(other)
            chromium.log_says(f"from origin '{other.origin}' has been blocked by CORS policy")
    assert 4 == len(upstream.requests)
