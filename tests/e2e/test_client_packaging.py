"""parley-client as a distribution: its contents, its range of protobuf, and its import."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from email.parser import Parser
from pathlib import Path

import pytest

from tests.pages import ROOT
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import ScriptedUpstream

PROGRAM = Path(__file__).parent / "grpc_clients" / "installed_client.py"
UV = str(Path(sys.executable).with_name("uv"))
OLDEST_GRPC = "grpcio==1.60.0" if sys.version_info < (3, 13) else "grpcio==1.66.2"  # which has wheels for this Python
OLDEST = ("protobuf==5.26.1", OLDEST_GRPC, "googleapis-common-protos==1.63.1")
BETWEEN = ("protobuf==6.33.1", "grpcio==1.76.0", "googleapis-common-protos==1.72.0")
NEW_MODULES = 30
"""The most modules of others that the client may import beside those of gRPC and protobuf; it imports some twenty."""


def run(*command: str, folder: Path | None = None, **more: str) -> str:
    """Runs a command to its end; returns what it prints."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both distributions, by name."""
    folder = tmp_path_factory.mktemp("dist")
    for project in (ROOT, ROOT / "service" / "client"):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), folder=project)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


def contents(wheel: Path) -> set[str]:
    """Returns the top-level names in a wheel."""
    return {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def metadata(wheel: Path, field: str) -> list[str]:
    """Returns the values of a field of a wheel's metadata."""
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(archive.read(name).decode()).get_all(field, [])


def test_neither_distribution_has_anything_of_the_other(wheels: dict[str, Path]) -> None:
    """Each wheel has one package; the service requires this version of the client."""
    assert {"parley"} == contents(wheels["parley_gateway"])
    assert {"parley_client"} == contents(wheels["parley_client"])
    [version] = metadata(wheels["parley_client"], "Version")
    assert f"parley-client=={version}" in metadata(wheels["parley_gateway"], "Requires-Dist")
    required = {re.split("[<>=]", line)[0] for line in metadata(wheels["parley_client"], "Requires-Dist")}
    assert {"protobuf", "grpcio", "googleapis-common-protos", "opentelemetry-api"} == required


def environment_with(packages: tuple[str, ...]) -> Path:
    """Returns a virtual environment with these packages, made once beside the other packages."""
    folder = Path(sys.prefix) / "client" / hashlib.sha256(repr(packages).encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        run(UV, "venv", "--quiet", "--relocatable", "--python", sys.executable, "--clear", made)
        run(UV, "pip", "install", "--quiet", "--python", made, *packages)
        with suppress(OSError):  # another run has been faster
            Path(made).rename(folder)
    return folder


@pytest.mark.parametrize("packages", [OLDEST, BETWEEN], ids=["oldest", "between"])
def test_the_wheel_works_alone(
    stack: Parley, upstream: ScriptedUpstream, wheels: dict[str, Path], tmp_path: Path, packages: tuple[str, ...]
) -> None:
    """With nothing of the service, and older releases of protobuf and gRPC, it makes every kind of call."""
    python = environment_with(packages) / "bin" / "python"
    target = tmp_path / "installed"
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "--target", str(target)]
    run(*install, str(wheels["parley_client"]))
    known = {"PYTHONPATH": str(target), "PARLEY_GRPC": stack.grpc, "KEY": stack.key}
    seen = json.loads(run(str(python), str(PROGRAM), folder=tmp_path, **known))
    versions = [package.partition("==")[2] for package in packages[:2]]
    assert (*versions, False) == (seen["protobuf"], seen["grpcio"], seen["service"])
    assert ["Hello there.", 12] == seen["whole"]
    assert ["Hello there.", "Hello there.", "completed"] == seen["streamed"]
    assert (["Hello there.", "And?", "Hello there."], "MODEL_NOT_FOUND") == (seen["messages"], seen["reason"])
    assert "Hello there." == seen["asynchronous"]
    assert 7 == upstream.requests[0].json["top_k"]


def test_the_import_adds_little_to_that_of_grpc() -> None:
    """The client imports its own modules, and few of the standard library; nothing that reads packages' metadata."""
    program = """
import sys, grpc, google.api.annotations_pb2, google.api.httpbody_pb2
import google.rpc.error_details_pb2, google.rpc.status_pb2
import google.protobuf.message_factory, google.protobuf.struct_pb2
before = set(sys.modules)
import parley_client
print(*(name for name in set(sys.modules) - before if not name.startswith("parley_client")))
"""
    added = run(sys.executable, "-c", program).split()
    assert len(added) <= NEW_MODULES, added
    assert not {"importlib.metadata", "pydantic", "opentelemetry", "asyncio.subprocess"} & set(added)
