"""Go programs that are compiled with Debian's packages of Go, gRPC and grpc-gateway, without a module proxy.

`python -m tests.e2e.go_programs` compiles the libraries that they share.
"""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.node_packages import unavailable
from tests.processes import PATIENCE, environment

GATEWAY = Path(sys.prefix) / "grpc-gateway" / "usr" / "share" / "gocode"
"""The unpacked package of grpc-gateway, which Debian does not install beside the current protoc-gen-go."""
PACKAGES = (
    "golang-github-ghodss-yaml-dev",
    "golang-github-golang-protobuf-1-5-dev",
    "golang-glog-dev",
    "golang-go",
    "golang-google-genproto-dev",
    "golang-google-grpc-dev",
    "golang-google-protobuf-dev",
    "protoc-gen-go",
    "protoc-gen-go-grpc",
)
GATEWAYS_PLUGIN = "github.com/grpc-ecosystem/grpc-gateway/protoc-gen-grpc-gateway"
"""Compiling it compiles the libraries of the gateway too."""
_DEBIANS_GO = "/usr/share/gocode"


def need(*programs: str, packages: tuple[str, ...]) -> None:
    """Skips the test if a program is not installed; in CI, fails it."""
    for program in programs:
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed (Debian: apt-get install {' '.join(packages)})")


def need_go() -> None:
    """Skips the test if Go or one of its plugins is not installed; in CI, fails it."""
    need("go", "protoc-gen-go", "protoc-gen-go-grpc", packages=PACKAGES)


def build(package: str, folder: Path, output: str) -> Path:
    """Compiles a package; returns the program.

    Args:
        package: The name of the package, below `src` of the folder or in Debian's packages.
        folder: The folder, whose `src` also has the generated code.
        output: The path of the program in the folder.
    """
    paths = f"{folder}:{_DEBIANS_GO}:{GATEWAY}"
    cache = Path(sys.prefix) / "go-cache"
    cache.mkdir(exist_ok=True)
    # The compiler ends before its garbage collector would pay. Without the paths of folders, the same generated code
    # is compiled once.
    variables = {"GO111MODULE": "off", "GOPATH": paths, "GOCACHE": str(cache), "GOFLAGS": "-trimpath", "GOGC": "off"}
    with (cache / "parley.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes would compile the same packages at the same time
        done = subprocess.run(
            ["go", "build", "-o", output, package],
            cwd=folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * PATIENCE,
        )
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder / output


def _compile_libraries() -> None:
    """Fills the cache of `build`; without Go or grpc-gateway, does without."""
    packages = ["google.golang.org/grpc"] + [GATEWAYS_PLUGIN] * GATEWAY.exists()
    with tempfile.TemporaryDirectory() as folder:
        for number, package in enumerate(packages if shutil.which("go") else ()):
            build(package, Path(folder), f"compiled-{number}")


if __name__ == "__main__":
    _compile_libraries()
