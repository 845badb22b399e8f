"""A browser's clients for gRPC-Web and Connect, run by Node, make real calls through `parley up --grpc-web`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e import vendor
from tests.e2e.node_packages import HERE, installed
from tests.processes import PATIENCE, environment, started
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]
ROOT = Path(__file__).parents[2]
EXPECTED = {
    "whole": "Hello! How can I assist you today?",
    "streamed": "Hello!",
    "total": 1163,
    "error": ["Unauthenticated", "Invalid API key"],
}


def generate(folder: Path) -> None:
    """Generates the JavaScript messages that Connect-ES needs, with protoc-gen-es."""
    protos = ROOT / "protos"
    out, plugin = folder / "gen", folder / "node_modules" / ".bin" / "protoc-gen-es"
    out.mkdir()
    files = [str(path) for package in ("parley", "google") for path in (protos / package).rglob("*.proto")]
    options = [f"-I{protos}", f"--plugin=protoc-gen-es={plugin}", f"--es_out={out}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *options, "--es_opt=target=js,import_extension=js", *files]
    subprocess.run(command, check=True, timeout=5 * PATIENCE)


def test_connect_es_calls_in_both_protocols(
    upstream: ScriptedUpstream, scripted_config: Path, tmp_path: Path, installed: Path
) -> None:
    """Connect-ES makes a unary call, reads a stream, and gets the error of a wrong key, by gRPC-Web and by Connect."""
    whole, streamed = vendor.complete_answer(), vendor.text("Hel", "lo", "!")
    upstream.answer(whole, streamed, whole, streamed)
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(HERE / "grpc_web.mjs", tmp_path)
    generate(tmp_path)
    with started("--config", str(scripted_config), PARLEY_GRPC_WEB="true") as parley:
        known = environment(PARLEY_HTTP=parley.http, KEY=parley.key)
        command = ["node", "grpc_web.mjs"]
        done = subprocess.run(
            command, cwd=tmp_path, env=known, capture_output=True, text=True, check=False, timeout=5 * PATIENCE
        )
    assert 0 == done.returncode, done.stderr
    assert {"web": EXPECTED, "connect": EXPECTED} == json.loads(done.stdout)
