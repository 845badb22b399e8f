"""Podman in namespaces of its own, for machines on which neither Docker runs nor a registry of images is reachable.

The base image is made by debootstrap, Debian's packages stand in for PostgreSQL and Prometheus, and Grafana is not run.
Podman starts health checks by timers of systemd; here a thread starts them, because systemd need not run.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.containers.checks import ROOT

FOLDER = Path(os.environ.get("PARLEY_SANDBOX", "/var/tmp/parley-containers"))
_HERE = Path(__file__).parent / "stand_ins"
_ENGINE = """\
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{folder}/networks"
"""
_STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
_STAND_INS = {"postgres": "docker.io/library/postgres:17", "prometheus": "docker.io/prom/prometheus:v3.5.0"}
# No registry is asked, and commands run without namespaces of their own.
_BUILD = ["--isolation", "chroot", "--layers", "--pull-never", "--build-arg", "BASE=localhost/parley-base"]
_CERTIFICATES = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]  # those of this machine are trusted


def enter() -> None:
    """Builds the images, then runs this program again in namespaces of its own. Returns in that run."""
    os.environ["CONTAINERS_CONF"] = _written("containers.conf", _ENGINE)
    os.environ["CONTAINERS_STORAGE_CONF"] = _written("storage.conf", _STORAGE)
    os.environ["DOCKER_HOST"] = f"unix://{FOLDER}/podman.sock"
    os.environ["COMPOSE_PARALLEL_LIMIT"] = (
        "1"  # the name server of Podman 4 loses networks that are made at the same time
    )
    if os.environ.get("PARLEY_SANDBOX_ENTERED"):
        _start()
        return
    _build()
    os.environ["PARLEY_SANDBOX_ENTERED"] = "1"
    command = [sys.executable, "-m", "tests.containers.drill", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--mount", "--net", *command])


def _written(name: str, text: str) -> str:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(folder=FOLDER))
    return str(path)


def _build() -> None:
    """Builds the base, Parley's images with `make images`, and the stand-ins."""
    if subprocess.run(["podman", "image", "exists", "localhost/parley-base"], check=False).returncode:
        root = FOLDER / "base"
        _logged(
            "debootstrap.log", "debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)
        )
        archive = ["tar", "-C", str(root), "-c", "."]
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as packed:
            subprocess.run(["podman", "import", "-", "localhost/parley-base"], stdin=packed.stdout, check=True)
    _logged("images.log", "make", "images", "BUILDER=buildah", f"BUILD={' '.join(_BUILD + _CERTIFICATES)}")
    for stage, image in _STAND_INS.items():
        _logged(f"{stage}.log", "buildah", "build", *_BUILD, "--target", stage, "--tag", image, str(_HERE))


def _logged(log: str, *command: str) -> None:
    sys.stdout.write(f"Building: the log is {FOLDER / log}\n")
    sys.stdout.flush()
    with (FOLDER / log).open("wb") as output:
        subprocess.run(command, cwd=ROOT, check=True, stdout=output, stderr=output)


def _start() -> None:
    """Starts Podman's API in the new namespaces, and the thread of the health checks. Both end with this process."""
    for command in ("ip link set lo up", "umount -R -l /sys/fs/cgroup", "mount -t tmpfs none /sys/fs/cgroup"):
        subprocess.run(command.split(), check=True)
    for folder in ("/run/netns", "/run/containers"):  # the state of networks in other namespaces
        Path(folder).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    (FOLDER / "podman.sock").unlink(missing_ok=True)
    log = (FOLDER / "podman.log").open("wb")
    service = ["podman", "system", "service", "--time", "0", os.environ["DOCKER_HOST"]]
    subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *service], stderr=log)
    while not (FOLDER / "podman.sock").exists():
        time.sleep(0.1)
    threading.Thread(target=_check_health, daemon=True).start()


def _check_health() -> None:
    while True:
        listed = subprocess.run(["podman", "ps", "--format", "{{.Names}}"], check=False, capture_output=True, text=True)
        for name in listed.stdout.split():
            subprocess.run(["podman", "healthcheck", "run", name], check=False, capture_output=True)
        time.sleep(1)
